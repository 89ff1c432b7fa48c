"""The predictor with artifacts that give logits or a confidence, or take images of any size."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tiny_artifact import expected_mask, expected_scores, make_artifact

import segkc_deploy
from segkc_deploy.errors import ArtifactError, DataError
from segkc_deploy.preprocess import resize_image

SIZE = (8, 12)
FREE = {"size_multiple": 4, "min_size": (4, 8), "max_size": (16, 20)}


def random_image(size=SIZE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def load(folder, **changes):
    return segkc_deploy.load(make_artifact(folder, **changes), device="cpu")


def upsampled(image, size, align_corners):
    scores = torch.from_numpy(expected_scores(image)).double().permute(2, 0, 1)[None]
    return torch.nn.functional.interpolate(scores, size, mode="bilinear", align_corners=align_corners)[0]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("outputs", [("logits",), ("masks", "logits"), ("logits", "confidence", "masks")])
def test_logits_are_upsampled_to_the_images_own_size(tmp_path, align_corners, outputs):
    image = np.kron(random_image(), np.ones((4, 4, 1), dtype=np.uint8))
    network_input = resize_image(image, SIZE)
    with load(tmp_path, outputs=outputs, align_corners=align_corners) as predictor:
        mask = predictor.predict(image)
    full = upsampled(network_input, image.shape[:2], align_corners)
    best = full.topk(2, dim=0).values
    clear = (best[0] - best[1] > 1e-3).numpy()
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(mask[clear], full.argmax(dim=0).numpy()[clear])
    assert (mask != np.kron(expected_mask(network_input), np.ones((4, 4), dtype=np.uint8))).any()


def test_the_three_parts_with_logits_are_what_predict_does(tmp_path):
    images = [random_image((20, 30), seed) for seed in range(3)]
    with load(tmp_path, outputs=("logits",)) as predictor:
        outputs = predictor.infer(predictor.preprocess(images))
        assert outputs["logits"].shape == (3, *SIZE, 4)
        masks = predictor.postprocess(outputs, [(20, 30)] * 3)
        for mask, expected in zip(masks, predictor.predict(images), strict=True):
            np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    ("image_size", "network_size"),
    [
        ((8, 12), (8, 12)),
        ((9, 13), (8, 12)),
        ((11, 15), (12, 16)),
        ((1, 1), (4, 8)),
        ((100, 100), (16, 20)),
        ((5, 19), (4, 20)),
        ((10, 14), (12, 16)),  # halfway: up, as the trained network is evaluated
    ],
)
def test_a_free_size_is_the_nearest_multiple_within_its_bounds(tmp_path, image_size, network_size):
    image = random_image(image_size)
    with load(tmp_path, **FREE) as predictor:
        assert predictor.preprocess([image]).shape == (1, *network_size, 3)
        mask = predictor.predict(image)
    assert mask.shape == image_size
    if image_size == network_size:
        np.testing.assert_array_equal(mask, expected_mask(image))


def test_images_of_one_network_size_share_a_batch_and_results_keep_their_order(tmp_path, monkeypatch):
    sizes = [(8, 12), (12, 8), (8, 12), (8, 12), (12, 8), (16, 20), (8, 12)]
    images = [random_image(size, seed) for seed, size in enumerate(sizes)]
    with load(tmp_path, **FREE) as predictor:
        shapes, infer = [], predictor.infer
        monkeypatch.setattr(predictor, "infer", lambda batch: shapes.append(batch.shape[:3]) or infer(batch))
        masks = predictor.predict(images, batch_size=3)
    for image, mask in zip(images, masks, strict=True):
        np.testing.assert_array_equal(mask, expected_mask(image))
    assert sorted(shapes) == [(1, 8, 12), (1, 16, 20), (2, 12, 8), (3, 8, 12)]


def test_a_batch_of_mixed_sizes_takes_the_first_ones(tmp_path):
    images = [random_image((12, 16)), random_image((16, 12))]
    with load(tmp_path, **FREE) as predictor:
        masks = predictor.postprocess(predictor.infer(predictor.preprocess(images)), [(12, 16), (16, 12)])
    np.testing.assert_array_equal(masks[0], expected_mask(images[0]))
    assert masks[1].shape == (16, 12)


@pytest.mark.parametrize(("wanted", "got"), [(1, 1), (3, 3), (9, 4)])
def test_a_batch_is_no_larger_than_the_artifact_takes(tmp_path, wanted, got):
    with load(tmp_path, max_batch=4) as predictor:
        assert predictor.batch_size(wanted) == got


@pytest.mark.parametrize("batch_size", [1, 2])
def test_confidence_has_the_images_own_size(tmp_path, batch_size):
    small, large = random_image(), np.kron(random_image(seed=1), np.ones((3, 3, 1), dtype=np.uint8))
    with load(tmp_path, outputs=("masks", "confidence")) as predictor:
        results = predictor.predict_with_confidence([small, large], batch_size)
        for image, (mask, _) in zip([small, large], results, strict=True):
            np.testing.assert_array_equal(mask, predictor.predict(image))
    scores = torch.from_numpy(expected_scores(small)).double()
    np.testing.assert_allclose(results[0][1], scores.softmax(dim=2).amax(dim=2), atol=1e-5)
    shrunk = torch.from_numpy(expected_scores(resize_image(large, SIZE))).double().softmax(dim=2).amax(dim=2)
    enlarged = torch.nn.functional.interpolate(shrunk[None, None], large.shape[:2], mode="bilinear")[0, 0]
    np.testing.assert_allclose(results[1][1], enlarged, atol=1e-4)
    assert results[1][1].dtype == np.float32


def test_confidence_that_is_not_there_is_refused(tmp_path):
    with load(tmp_path) as predictor, pytest.raises(ArtifactError, match=r"tiny\.onnx.*--outputs masks,confidence"):
        predictor.predict_with_confidence([random_image()])


def test_an_image_that_cannot_be_used_is_named_by_its_place(tmp_path):
    images = [random_image((8, 12)), random_image((12, 8)), np.zeros((3, 3), dtype=np.uint8)]
    with load(tmp_path, **FREE) as predictor, pytest.raises(DataError, match="image 2 "):
        predictor.predict(images, batch_size=2)


def test_an_iterator_is_predicted_batch_by_batch_as_it_is_used(tmp_path):
    images = [random_image(seed=seed) for seed in range(7)]
    taken: list[int] = []

    def frames():
        for position, image in enumerate(images):
            taken.append(position)
            yield image

    with load(tmp_path) as predictor:
        masks = predictor.predict(frames(), batch_size=3)
        assert np.array_equal(next(masks), expected_mask(images[0]))
        assert taken == [0, 1, 2]
        assert all(np.array_equal(mask, expected_mask(image)) for mask, image in zip(masks, images[1:], strict=True))


def test_threads_share_a_predictor(tmp_path):
    images = [random_image(seed=seed) for seed in range(64)]
    with load(tmp_path) as predictor:
        running: list[int] = []
        infer = predictor._runner.infer

        def watched(batch):
            running.append(len(batch))
            assert len(running) == 1, "two threads are in the network"
            outputs = infer(batch)
            running.pop()
            return outputs

        predictor._runner.infer = watched
        with ThreadPoolExecutor(8) as pool:
            masks = list(pool.map(predictor.predict, images))
    assert all(np.array_equal(mask, expected_mask(image)) for mask, image in zip(masks, images, strict=True))
