"""`pseudo-label`: thresholds against a plain reading of their rule, masks against the network, the data spec."""

import json
import math
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from command_line import CommandLine
from tiny_data import tiny_recipe, write_recipe, write_tiny_data

from segkc_deploy.data.images import read_image
from segkc_deploy.data.masks import read_sample
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.training.evaluation.prediction import probability_predictor
from segkc_deploy.training.files.network_file import load_network
from segkc_deploy.training.pseudo_label.calibrate import calibrate
from segkc_deploy.training.pseudo_label.confidence import (
    EDGES,
    ConfidenceCounts,
    Thresholds,
    choose_thresholds,
    fold_of,
    measure,
    measure_held_out,
)
from segkc_deploy.training.recipe import ValidationConfig
from segkc_deploy.training.train import train_run

# The thresholds


def predictions(seed: int, count: int = 6000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted classes, confidences and true classes; class 2 is rare, and the surer the more often right."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, count, p=[0.6, 0.35, 0.05])
    confidence = rng.uniform(0.34, 1, count).astype(np.float32)
    right = rng.uniform(size=count) < confidence ** np.array([0.2, 0.5, 1.0])[labels]
    return labels, confidence, np.where(right, labels, (labels + 1) % 3)


def counted(labels: np.ndarray, confidence: np.ndarray, truth: np.ndarray) -> ConfidenceCounts:
    counts = ConfidenceCounts(3)
    counts.update(*(torch.from_numpy(values) for values in (labels, confidence, truth)))
    return counts


def expected_threshold(confidence: np.ndarray, right: np.ndarray, precision: float) -> float:
    """The rule read aloud: the least edge at which at least 100 pixels are kept and enough of them are right."""
    for edge in EDGES.numpy():
        kept = confidence >= edge
        if kept.sum() >= 100 and right[kept].mean() >= precision:
            return float(edge)
    return math.inf


@pytest.mark.parametrize("precision", [0.8, 0.9, 0.95, 1.0])
def test_thresholds_equal_a_plain_reading_of_their_rule(precision: float) -> None:
    labels, confidence, truth = predictions(1)
    thresholds = choose_thresholds(counted(labels, confidence, truth), precision)
    shared = expected_threshold(confidence, labels == truth, precision)
    expected = [
        expected_threshold(confidence[labels == index], (truth == index)[labels == index], precision)
        for index in range(2)
    ]
    assert thresholds.values == (*expected, shared)  # class 2 has some 300 pixels
    assert thresholds.own == (True, True, False)


def test_the_measured_precision_is_that_of_the_kept_pixels() -> None:
    labels, confidence, truth = predictions(2)
    thresholds = Thresholds((0.5, 0.9, math.inf), (True, True, True))
    for index, quality in enumerate(measure(counted(labels, confidence, truth), thresholds)):
        of_class = labels == index
        kept = of_class & (confidence >= EDGES.numpy()[EDGES.numpy() >= thresholds.values[index]].min(initial=2))
        assert (quality.pixels, quality.kept) == (of_class.sum(), kept.sum())
        assert quality.right == (truth == index)[kept].sum()
    assert quality.precision is None and quality.kept_share == 0


def test_held_out_precision_uses_thresholds_of_the_other_parts() -> None:
    parts = [counted(*predictions(seed)) for seed in (3, 4)]
    held_out = measure_held_out(parts, 0.95)
    crossed = [measure(parts[one], choose_thresholds(parts[1 - one], 0.95)) for one in (0, 1)]
    assert held_out is not None
    assert [quality.right for quality in held_out] == [a.right + b.right for a, b in zip(*crossed, strict=True)]
    assert measure_held_out(parts[:1], 0.95) is None


def test_neighbors_share_a_part() -> None:
    assert [fold_of(index, 10) for index in range(10)] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert [fold_of(index, 2) for index in range(2)] == [0, 1]


def test_pixels_below_their_class_threshold_are_ignored() -> None:
    probabilities = torch.tensor([[[0.7, 0.4, 0.2]], [[0.3, 0.6, 0.8]]])
    assert Thresholds((0.7, 0.7), (True, True)).mask(probabilities, 255).tolist() == [[0, 255, 1]]
    assert Thresholds((math.inf, 0.0), (True, True)).mask(probabilities, 9).tolist() == [[9, 1, 1]]


def test_calibration_on_parts_of_images_is_that_on_whole_images(data: Path) -> None:
    sets = load_data_spec(data).resolve()
    whole, parts = {}, {}
    counts = ConfidenceCounts(3)
    for index, sample in enumerate(sets.val):
        image, truth = read_sample(sample, sets)
        assert truth is not None
        generator = torch.Generator().manual_seed(index)
        hint = 3 * np.stack([truth == index for index in range(3)])
        probabilities = (torch.randn(3, *truth.shape, generator=generator) * 2 + torch.from_numpy(hint)).softmax(dim=0)
        whole[image.tobytes()] = [probabilities]
        parts[image.tobytes()] = probabilities.split([1, 30, truth.shape[0] - 31], dim=1)
        confidence, labels = probabilities.numpy().max(axis=0), probabilities.numpy().argmax(axis=0)
        known = torch.from_numpy(truth != 255)
        counts.update(*(torch.from_numpy(values)[known] for values in (labels, confidence, truth.astype(np.int64))))
    found = [
        calibrate(lambda image, given=given: given[image.tobytes()], sets, 0.8, None, "data")
        for given in (whole, parts)
    ]
    assert found[0] == found[1]
    assert found[0].thresholds == choose_thresholds(counts, 0.8)
    assert all(quality.kept for quality in found[0].qualities)


def test_ignored_pixels_count_for_nothing_and_each_part_is_held_out(tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data", labeled=1, unlabeled=1, val=3)
    for path in (data.parent / "masks" / "val").iterdir():
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        mask[:20] = 255
        cv2.imwrite(str(path), mask)
    sets = load_data_spec(data).resolve()
    given, parts = {}, []
    for index, sample in enumerate(sets.val):
        image, truth = read_sample(sample, sets)
        assert truth is not None
        hint = 4 * np.stack([truth == index for index in range(3)])
        noise = torch.randn(3, *truth.shape, generator=torch.Generator().manual_seed(index))
        given[image.tobytes()] = (2 * noise + torch.from_numpy(hint)).softmax(dim=0)
        probabilities, known = given[image.tobytes()].numpy(), truth != 255
        parts.append(counted(*(values[known] for values in (probabilities.argmax(0), probabilities.max(0), truth))))
    found = calibrate(lambda image: [given[image.tobytes()]], sets, 0.8, None, "data")
    assert found.qualities == tuple(measure(ConfidenceCounts.sum(parts), found.thresholds))
    assert sum(quality.pixels for quality in found.qualities) == 3 * (48 - 20) * 64
    assert found.held_out == tuple(measure_held_out(parts, 0.8) or ())


# The command


def read_masks(out: Path) -> dict[str, np.ndarray]:
    folder = out / "masks"
    return {
        path.relative_to(folder).with_suffix("").as_posix(): cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        for path in sorted(folder.rglob("*.png"))
    }


def record(out: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((out / "pseudo-label.json").read_text())
    return content


def test_masks_are_the_seniors_where_it_is_sure_enough(
    command: CommandLine, run: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pseudo"
    source = data.parent / "images" / "extra"
    finished = command("pseudo-label", run, "--source", source, "--out", out, "--precision", 0.6, "--device", "cpu")
    assert finished.code == 0, finished.err
    content = record(out)
    thresholds = [math.inf if value is None else value for value in content["thresholds"]]  # type: ignore[attr-defined]

    network, _ = load_network(run / "senior.safetensors")
    predict = probability_predictor(network, torch.device("cpu"), ValidationConfig(every=2))
    masks = read_masks(out)
    assert sorted(masks) == [f"{index:03}" for index in range(6)]
    for name, mask in masks.items():
        probabilities = torch.cat(list(predict(read_image(source / f"{name}.png"))), dim=1).numpy()
        labels, confidence = probabilities.argmax(axis=0), probabilities.max(axis=0)
        expected = np.where(confidence >= np.array(thresholds, np.float32)[labels], labels, 255)
        np.testing.assert_array_equal(mask, expected)
    kept = np.mean([mask != 255 for mask in masks.values()])
    assert content["outcome"]["kept_share"] == pytest.approx(kept)  # type: ignore[index]
    assert f"{100 * kept:.1f}% of the pixels kept" in finished.out

    # The precision that is reported is the one that a reader of the masks would find on the validation images.
    sets = load_data_spec(data).resolve()
    right = total = 0
    for sample in sets.val:
        image, truth = read_sample(sample, sets)
        mask = Thresholds(tuple(thresholds), (True,) * 3).mask(torch.cat(list(predict(image)), dim=1), 255)
        right += int((mask == truth)[mask != 255].sum())
        total += int((mask != 255).sum())
    assert content["validation"]["precision"] == pytest.approx(right / total if total else None)  # type: ignore[index]
    assert total == 0 or right / total >= 0.6


def test_the_junior_labels_where_it_is_asked_or_alone(command: CommandLine, run: Path, tmp_path: Path) -> None:
    options = ("--confidence", 0, "--device", "cpu")
    senior, junior = tmp_path / "senior", tmp_path / "junior"
    assert command("pseudo-label", run, "--out", senior, *options).code == 0
    assert command("pseudo-label", run, "--out", junior, "--role", "junior", *options).code == 0
    network, _ = load_network(run / "junior.safetensors")
    predict = probability_predictor(network, torch.device("cpu"), ValidationConfig(every=2))
    for name, mask in read_masks(junior).items():
        image = read_image(load_data_spec(run_data(run)).resolve().unlabeled[int(name)].image)
        np.testing.assert_array_equal(mask, torch.cat(list(predict(image)), dim=1).argmax(dim=0).numpy())
    assert any((read_masks(senior)[name] != mask).any() for name, mask in read_masks(junior).items())
    assert record(senior)["settings"]["role"] == "senior"  # type: ignore[index]


def run_data(run: Path) -> Path:
    return Path(yaml.safe_load((run / "config.yaml").read_text())["data"])


def test_its_data_spec_trains_on_the_masks_and_on_peoples_labels(
    command: CommandLine, run: Path, tmp_path: Path
) -> None:
    """From a spec whose masks need a mapping, and with paths that hold spaces and `#`."""
    data = write_tiny_data(tmp_path / "the #1 data", labeled=2, unlabeled=2, val=2)
    for path in (*(data.parent / "images").rglob("000.*"), *(data.parent / "masks").rglob("000.png")):
        path.rename(path.with_name(f"000 #1{path.suffix}"))
    for path in (data.parent / "masks").rglob("*.png"):
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where(mask == 2, 7, mask))
    content = yaml.safe_load(data.read_text())
    data.write_text(yaml.safe_dump(content | {"label_mapping": {7: 2}}))
    out = tmp_path / "pseudo labels"
    finished = command("pseudo-label", run, "--data", data, "--out", out, "--confidence", 0.3, "--device", "cpu")
    assert finished.code == 0, finished.err

    before, after = load_data_spec(data).resolve(), load_data_spec(out / "data.yaml").resolve()
    assert [sample.image.resolve() for sample in after.labeled] == [
        sample.image.resolve() for sample in (*before.labeled, *before.unlabeled)
    ]
    assert (len(after.val), after.labels.names, after.labels.palette) == (2, before.labels.names, before.labels.palette)
    for own, other in zip((*before.labeled, *before.val), (*after.labeled[:2], *after.val), strict=True):
        np.testing.assert_array_equal(read_sample(own, before)[1], read_sample(other, after)[1])
    for sample in after.labeled[2:]:
        np.testing.assert_array_equal(read_sample(sample, after)[1], read_masks(out)[sample.image.stem])

    tiny = tiny_recipe(senior=None, method={"name": "supervised"}, schedule={"steps": 1})
    trained = train_run(out / "data.yaml", str(write_recipe(tmp_path / "r.yaml", tiny)), tmp_path / "run", device="cpu")
    assert (trained.path / "junior.safetensors").is_file()


def test_images_that_are_known_are_left_out(command: CommandLine, run: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "pseudo labels"
    finished = command("pseudo-label", run, "--source", data.parent / "images", "--out", out, "--confidence", 0.5)
    assert finished.code == 0, finished.err
    assert f"next: segkc-deploy train --data '{out / 'data.yaml'}' --recipe RECIPE --out RUN" in finished.out
    assert sorted(read_masks(out)) == [f"extra/{index:03}" for index in range(6)]
    assert "7 images that the data spec labels or validates on were left out" in finished.out


def test_files_that_it_did_not_write_stay(command: CommandLine, run: Path, tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data", unlabeled=1)
    photos = tmp_path / "photos"
    shutil.copytree(data.parent / "images" / "extra", photos)
    arguments = ("pseudo-label", run, "--data", data, "--source", photos, "--device", "cpu", "--confidence", 0.4)
    before = {path: path.read_bytes() for path in data.parent.rglob("*") if path.is_file()}
    for flag in ("--overwrite", "--resume"):
        assert "holds the data set; choose another --out" in command.refused(*arguments, "--out", data.parent, flag)
        for name in ("data.yaml", "val/000.png", "labeled.txt"):
            other = tmp_path / f"{flag}-{name.replace('/', '-')}"
            (other / name).parent.mkdir(parents=True)
            (other / name).write_text("mine")
            assert "and no earlier call wrote it" in command.refused(*arguments, "--out", other, flag)
            assert (other / name).read_text() == "mine"
    assert {path: path.read_bytes() for path in data.parent.rglob("*") if path.is_file()} == before


def test_an_ended_call_goes_on_and_bad_files_come_last(command: CommandLine, run: Path, tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data", unlabeled=3)
    photos = data.parent / "images" / "extra"
    (photos / "broken.png").write_bytes(b"no image")
    arguments = ("pseudo-label", run, "--data", data, "--source", photos, "--out", tmp_path / "out", "--device", "cpu")
    finished = command(*arguments)
    assert finished.code == 2
    assert finished.err.splitlines()[-2].startswith("error: 1 of 4 images were left out")
    assert "broken.png" in finished.err.splitlines()[-1]
    masks = read_masks(tmp_path / "out")
    assert sorted(masks) == ["000", "001", "002"]
    assert record(tmp_path / "out")["outcome"]["masks"] == 3  # type: ignore[index]

    assert "not empty" in command.refused(*arguments)
    (tmp_path / "out" / "masks" / "001.png").unlink()
    (tmp_path / "out" / "masks" / "002.png").write_bytes(cv2.imencode(".png", np.zeros((4, 4), np.uint8))[1].tobytes())
    (photos / "broken.png").unlink()
    finished = command(*arguments, "--resume")
    assert finished.code == 0, finished.err
    again = read_masks(tmp_path / "out")
    np.testing.assert_array_equal(again["001"], masks["001"])
    assert again["002"].shape == (4, 4), "a finished mask is not made again"
    assert "another precision" in command.refused(*arguments, "--resume", "--precision", 0.5)
    assert "another role" in command.refused(*arguments, "--resume", "--role", "junior")
    (tmp_path / "out" / "pseudo-label.json").write_text("{")
    assert "damaged" in command.refused(*arguments, "--resume")


def test_without_validation_images_a_confidence_is_needed(command: CommandLine, run: Path, tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data")
    content = yaml.safe_load(data.read_text())
    del content["val"]
    data.write_text(yaml.safe_dump(content))
    arguments = ("pseudo-label", run, "--data", data, "--out", tmp_path / "out", "--device", "cpu")
    refusal = command.refused(*arguments)
    assert "no validation images" in refusal and "--confidence" in refusal
    finished = command(*arguments, "--overwrite", "--confidence", 0.4)
    assert finished.code == 0, finished.err
    assert record(tmp_path / "out")["validation"]["precision"] is None  # type: ignore[index]


def test_a_run_of_other_classes_is_refused(command: CommandLine, run: Path, tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data")
    data.write_text(data.read_text().replace("- disk", "- ball"))
    assert "other classes" in command.refused("pseudo-label", run, "--data", data, "--out", tmp_path / "out")
