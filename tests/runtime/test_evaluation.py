import json
import math

import cv2
import numpy as np
import pytest
from tiny_artifact import LABELS, expected_mask, make_artifact

from segkc_deploy.boundary import BoundaryCounts
from segkc_deploy.data.masks import read_sample
from segkc_deploy.data.samples import ImageSets, MaskCoding, Sample
from segkc_deploy.errors import DataError
from segkc_deploy.evaluation import count_pixels, evaluate
from segkc_deploy.manifest import read_manifest
from segkc_deploy.metrics import ConfusionMatrix
from segkc_deploy.prefetch import prefetch

SIZE = (8, 12)


def write_pair(folder, name, seed, size=SIZE, noise=0.3):
    """Write a random image and a mask that differs from the tiny network's in a share `noise` of the pixels."""
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
    mask = expected_mask(image)
    changed = generator.random(size) < noise
    mask[changed] = generator.integers(0, LABELS.num_classes, changed.sum())
    mask[0, 0] = LABELS.ignore_index
    for kind, pixels in (("images", image[..., ::-1]), ("masks", mask)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(folder / kind / f"{name}.png"), pixels)
    return image, mask


@pytest.fixture
def pairs(tmp_path):
    return [write_pair(tmp_path / "val", f"image{index}", index) for index in range(7)]


@pytest.fixture
def sets(tmp_path, pairs):
    folder = tmp_path / "val"
    names = [f"image{index}" for index in range(len(pairs))]
    samples = [Sample(name, folder / "images" / f"{name}.png", folder / "masks" / f"{name}.png") for name in names]
    return ImageSets(MaskCoding(LABELS), val=tuple(samples))


def counted(pairs, predict=expected_mask):
    matrix = ConfusionMatrix(LABELS.num_classes, LABELS.ignore_index)
    for image, mask in pairs:
        matrix.update(mask, predict(image))
    return matrix.scores()


def test_an_image_is_read_once_for_all_predictors(sets, pairs):
    read = []

    def reading(sample, sets):
        read.append(sample)
        return read_sample(sample, sets)

    predictors = [expected_mask, lambda image: np.zeros(image.shape[:2], np.uint8), expected_mask]
    matrices, sizes = count_pixels(predictors, sets, sets.val, "counting", read=reading)
    assert sorted(read, key=lambda sample: sample.id) == list(sets.val)
    # As text, since NaN equals nothing: the second one predicts one class alone.
    assert [str(matrix.scores()) for matrix in matrices] == [str(counted(pairs, predict)) for predict in predictors]
    assert sizes == {SIZE}


def test_all_validation_images_count_in_one_matrix(sets, pairs):
    evaluation = evaluate(expected_mask, sets)
    assert evaluation.scores == counted(pairs)
    assert 30 < evaluation.scores.miou < 95
    assert evaluation.images == 7
    assert evaluation.scores.pixels == 7 * (8 * 12 - 1)
    assert evaluation.resolution == "each image's own size, 12×8 (width × height)"


def test_every_image_is_shown_in_order_with_its_own_scores(sets, pairs):
    seen = []
    evaluate(expected_mask, sets, on_image=seen.append)
    assert [scored.sample.id for scored in seen] == [sample.id for sample in sets.val]
    for scored, (image, mask) in zip(seen, pairs, strict=True):
        np.testing.assert_array_equal(scored.image, image)
        np.testing.assert_array_equal(scored.truth, mask)
        np.testing.assert_array_equal(scored.prediction, expected_mask(image))
        assert scored.scores == counted([(image, mask)])


def test_the_edges_and_each_images_counts_come_with_the_scores(sets, pairs):
    evaluation = evaluate(expected_mask, sets)
    edges = BoundaryCounts(LABELS.num_classes, LABELS.ignore_index)
    for image, mask in pairs:
        edges.update(mask, expected_mask(image))
    assert evaluation.boundary == edges.scores()
    counts = evaluation.image_counts
    for place, (image, mask) in enumerate(pairs):
        alone = 100 * counts.intersection[place] / counts.union[place]
        np.testing.assert_allclose(alone, counted([(image, mask)]).iou)
    together = 100 * counts.intersection.sum(axis=0) / counts.union.sum(axis=0)
    np.testing.assert_allclose(together, evaluation.scores.iou)


def test_miou_is_that_of_plain_numpy(sets, pairs):
    judged, predicted = (np.concatenate(parts, axis=None) for parts in zip(*(
        (mask[mask != LABELS.ignore_index], expected_mask(image)[mask != LABELS.ignore_index]) for image, mask in pairs
    ), strict=True))  # fmt: skip
    shared = [np.logical_and(judged == c, predicted == c).sum() for c in range(LABELS.num_classes)]
    together = [np.logical_or(judged == c, predicted == c).sum() for c in range(LABELS.num_classes)]
    expected = 100 * np.mean(np.divide(shared, together))
    assert evaluate(expected_mask, sets).scores.miou == pytest.approx(expected, rel=1e-12)


def test_the_confusion_counts_pairs_of_truth_and_prediction(sets, pairs):
    """Pixel by pixel, with a class that is in neither; ignored pixels are in no cell."""
    with_absent = ImageSets(MaskCoding(LABELS.model_copy(update={"names": (*LABELS.names, "absent")})), val=sets.val)
    by_hand = [[0] * 5 for _ in range(5)]
    for image, mask in pairs:
        for true, predicted in zip(mask.ravel().tolist(), expected_mask(image).ravel().tolist(), strict=True):
            if true != LABELS.ignore_index:
                by_hand[true][predicted] += 1
    confusion = evaluate(expected_mask, with_absent).confusion
    assert confusion.tolist() == by_hand
    assert confusion.sum() == 7 * (8 * 12 - 1)
    assert not np.array_equal(confusion, confusion.T), "rows and columns could be mistaken for each other"


def test_agrees_with_torchmetrics_on_the_same_masks(sets, pairs):
    torch = pytest.importorskip("torch", reason="compares with torchmetrics, which needs torch")
    classification = pytest.importorskip("torchmetrics.classification", reason="compares with torchmetrics")
    with_absent = ImageSets(MaskCoding(LABELS.model_copy(update={"names": (*LABELS.names, "absent")})), val=sets.val)
    ours = evaluate(expected_mask, with_absent)
    known = {"num_classes": 5, "ignore_index": LABELS.ignore_index}
    mean, each = (classification.MulticlassJaccardIndex(average=kind, **known) for kind in ("macro", "none"))
    confusion = classification.MulticlassConfusionMatrix(**known)
    for image, mask in pairs:
        both = torch.from_numpy(expected_mask(image)).long(), torch.from_numpy(mask).long()
        for metric in (mean, each, confusion):
            metric.update(*both)
    assert ours.scores.miou == pytest.approx(100 * float(mean.compute()), rel=1e-6)
    np.testing.assert_allclose(ours.scores.iou[:4], 100 * each.compute().numpy()[:4], rtol=1e-6)
    assert math.isnan(ours.scores.iou[4])
    assert ours.confusion.tolist() == confusion.compute().tolist()


def test_sizes_may_differ_and_are_stated(tmp_path, sets):
    write_pair(tmp_path / "val", "image3", 3, size=(20, 9))
    assert evaluate(expected_mask, sets).resolution == "each image's own size, 12×8 to 9×20 (width × height)"


def test_figures_that_do_not_exist_are_null_in_json(sets):
    truth_of_class_0 = evaluate(lambda image: np.zeros(image.shape[:2], np.uint8), sets)
    figures = json.loads(json.dumps(truth_of_class_0.to_json(), allow_nan=False))
    assert figures["iou"]["red"] == 0
    everything_else = ImageSets(MaskCoding(LABELS.model_copy(update={"names": (*LABELS.names, "new")})), val=sets.val)
    scores = evaluate(expected_mask, everything_else)
    assert math.isnan(scores.scores.iou[4])
    assert scores.to_json()["iou"]["new"] is None


def test_without_validation_images_there_is_nothing_to_say():
    with pytest.raises(DataError, match="no validation images"):
        evaluate(expected_mask, ImageSets(MaskCoding(LABELS)))


def test_an_image_that_cannot_be_read_is_named(sets):
    sets.val[4].image.write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"image4\.png"):
        evaluate(expected_mask, sets)


def test_a_prediction_of_another_size_names_the_image(sets):
    with pytest.raises(DataError, match=r"image0\.png.*shape"):
        evaluate(lambda image: expected_mask(image)[1:], sets)


def test_reading_ahead_keeps_the_order_and_does_not_run_far_ahead():
    read = []

    def remember(item):
        read.append(item)
        return 10 * item

    results = prefetch(remember, range(100), ahead=3)
    assert [next(results) for _ in range(5)] == [0, 10, 20, 30, 40]
    assert max(read) <= 5 + 3
    assert list(results) == [10 * item for item in range(5, 100)]
    assert sorted(read) == list(range(100))


def test_a_failed_read_is_raised_at_its_turn():
    def divide(item):
        return 1 / item

    results = prefetch(divide, [1, 2, 0, 4])
    assert [next(results), next(results)] == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.fixture
def artifact(tmp_path):
    return make_artifact(tmp_path / "artifact", size=SIZE)


@pytest.fixture
def data(tmp_path, pairs):
    return write_spec(tmp_path / "data.yaml", LABELS.names)


def write_spec(path, names):
    path.write_text(f"classes: [{', '.join(names)}]\nval: {{images: val/images, masks: val/masks}}\n")
    return path


def test_the_command_prints_every_figure_with_its_rule(command, artifact, data, sets, pairs, tmp_path):
    finished = command("eval", artifact, "--data", data, "--device", "cpu", "--json", tmp_path / "scores.json")
    assert (finished.code, finished.err) == (0, "")
    scores = counted(pairs)
    words = finished.out.replace("│", " ").split()
    for name, value in zip(LABELS.names, scores.iou, strict=True):
        assert words[words.index(name) + 1] == f"{value:.2f}"
    edges = evaluate(expected_mask, sets).boundary
    place = words.index("mIoU")
    assert words[place + 1 : place + 3] == [f"{scores.miou:.2f}", f"{edges.miou:.2f}"]
    red = (edges.iou[1], scores.precision[1], scores.recall[1])
    assert words[words.index("red") + 2 : words.index("red") + 5] == [f"{value:.2f}" for value in red]
    assert f"{scores.pixel_accuracy:.2f}" in words
    protocol = (
        "the artifact's own: the whole image resized to 12×8 (width × height); masks resized to the image's own size"
    )
    assert f"protocol: {protocol}\n" in finished.out
    assert "ran on: onnxruntime" in finished.out
    assert "compared at: each image's own size, 12×8" in finished.out
    assert f"rule: {scores.rule}" in finished.out

    stored = json.loads((tmp_path / "scores.json").read_text())
    assert stored["miou"] == scores.miou
    assert stored["boundary_miou"] == edges.miou
    assert stored["weights_sha256"] == read_manifest(artifact).source.weights_sha256
    low, high = stored["miou_interval"]
    assert low < scores.miou < high
    assert f"mIoU, 95% interval: {low:.2f} to {high:.2f} (" in finished.out
    for metric in ("iou", "precision", "recall"):
        assert stored[metric] == dict(zip(LABELS.names, getattr(scores, metric), strict=True))
    assert stored["protocol"] == protocol
    assert stored["images"] == 7


def test_the_command_draws_successive_images_together(command, artifact, data):
    finished = command("eval", artifact, "--data", data, "--device", "cpu", "--block", 3)
    assert "3 successive ones together" in finished.out
    in_one_block = command("eval", artifact, "--data", data, "--device", "cpu", "--block", 7)
    assert in_one_block.code == 0
    assert "95% interval" not in in_one_block.out


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("dark", "red", "blue", "green"), "class 2 is 'green' against 'blue'"),
        (("dark", "red", "green", "blue", "gray"), "4 classes against 5"),
    ],
)
def test_other_classes_are_refused(command, artifact, pairs, tmp_path, names, message):
    line = command.refused("eval", artifact, "--data", write_spec(tmp_path / "other.yaml", names))
    assert message in line
    assert "tiny.onnx" in line
    assert "other.yaml" in line


def test_an_artifact_has_no_senior(command, artifact, data):
    assert "--role senior" in command.refused("eval", artifact, "--data", data, "--role", "senior")


def test_a_damaged_artifact_is_one_line(command, artifact, data):
    artifact.write_bytes(artifact.read_bytes()[:-1])
    assert "sha256" in command.refused("eval", artifact, "--data", data)


def test_a_folder_that_is_no_run_is_one_line(command, data, tmp_path):
    pytest.importorskip("torch")
    assert str(tmp_path) in command.refused("eval", tmp_path, "--data", data)
