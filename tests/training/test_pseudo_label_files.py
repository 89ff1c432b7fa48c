"""`pseudo-label`: masks of people that cannot be used, other ignored values, its own files, and how calls go on."""

import json
import math
import shutil
from pathlib import Path

import cv2
import numpy as np
import yaml
from command_line import CommandLine
from tiny_data import write_tiny_data

from segkc_deploy.data.masks import read_sample
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.labels import Labels, default_palette
from segkc_deploy.training.pseudo_label.calibrate import Calibration
from segkc_deploy.training.pseudo_label.confidence import ClassQuality, Thresholds
from segkc_deploy.training.pseudo_label.record import Record, Settings

OPTIONS = ("--confidence", 0.3, "--device", "cpu")


def masks_of(out: Path) -> list[str]:
    return sorted(path.relative_to(out / "masks").as_posix() for path in (out / "masks").rglob("*.png"))


def test_a_labeled_mask_that_cannot_be_used_is_named(command: CommandLine, run: Path, tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data", labeled=3, unlabeled=1, val=1)
    bad = data.parent / "masks" / "train" / "001.png"
    cv2.imwrite(str(bad), np.full((48, 64), 77, np.uint8))
    out = tmp_path / "pseudo"
    finished = command("pseudo-label", run, "--data", data, "--out", out, *OPTIONS)
    assert finished.code == 2
    assert "error: 1 masks of the data spec could not be used; replace or remove them, and add --resume" in finished.err
    assert f"\n  {bad}: holds 77" in finished.err
    (reason,) = json.loads((out / "pseudo-label.json").read_text())["outcome"]["left_out"]
    assert reason.startswith(f"{bad}: holds 77")
    labeled = load_data_spec(out / "data.yaml").resolve().labeled
    assert [sample.image.name for sample in labeled] == ["000.png", "002.png", "000.png"]


def test_the_written_spec_has_the_runs_ignored_value(command: CommandLine, run: Path, tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data", labeled=2, unlabeled=1, val=1)
    for path in (data.parent / "masks").rglob("*.png"):
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        mask[:5] = 9
        cv2.imwrite(str(path), mask)
    data.write_text(yaml.safe_dump(yaml.safe_load(data.read_text()) | {"ignore_index": 9}))
    out = tmp_path / "pseudo"
    finished = command("pseudo-label", run, "--data", data, "--out", out, *OPTIONS)
    assert finished.code == 0, finished.err
    before, after = load_data_spec(data).resolve(), load_data_spec(out / "data.yaml").resolve()
    assert after.labels.ignore_index == 255
    for own, other in zip((*before.labeled, *before.val), (*after.labeled[:2], *after.val), strict=True):
        mask, written = read_sample(own, before)[1], read_sample(other, after)[1]
        assert mask is not None
        np.testing.assert_array_equal(np.where(mask == 9, 255, mask), written)
    assert read_sample(after.labeled[2], after)[1] is not None


def test_a_call_that_goes_on_has_the_thresholds_of_before(tmp_path: Path) -> None:
    """A class of which no confidence is enough stays one of which nothing is kept."""
    settings = Settings("run", "junior", "0" * 64, 0.95, None, "whole images")
    labels = Labels(names=("a", "b", "c"), palette=default_palette(3))
    thresholds = Thresholds((0.5, math.inf, 0.875), (True, True, False))
    qualities = (ClassQuality(9, 5, 4), ClassQuality(8, 0, 0), ClassQuality(7, 3, 3))
    for held_out in (None, qualities[::-1]):
        calibration = Calibration(thresholds, 3, qualities, held_out)
        Record(settings, labels, calibration).write(tmp_path)
        assert Record.calibration_of(tmp_path, settings, labels) == calibration


def test_its_own_masks_are_no_images(command: CommandLine, run: Path, tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data", unlabeled=2, val=1)
    out = data.parent / "images" / "extra" / "pseudo"
    for flags in ((), ("--overwrite",)):
        finished = command("pseudo-label", run, "--data", data, "--out", out, *OPTIONS, *flags)
        assert finished.code == 0, finished.err
        assert masks_of(out) == ["000.png", "001.png"]
    content = yaml.safe_load(data.read_text()) | {"unlabeled": {"images": "images/extra/pseudo/masks"}}
    data.write_text(yaml.safe_dump(content))
    refusal = command.refused("pseudo-label", run, "--data", data, "--out", out, *OPTIONS, "--overwrite")
    assert f"{out}: holds all unlabeled images" in refusal


def test_a_confidence_and_a_precision_are_refused_together(command: CommandLine, run: Path, tmp_path: Path) -> None:
    refusal = command.refused("pseudo-label", run, "--out", tmp_path / "out", *OPTIONS, "--precision", 0.9)
    assert "--confidence" in refusal and "--precision" in refusal


def test_a_call_goes_on_with_a_run_that_was_moved(command: CommandLine, run: Path, tmp_path: Path) -> None:
    out, moved = tmp_path / "out", tmp_path / "moved"
    assert command("pseudo-label", run, "--out", out, *OPTIONS).code == 0
    shutil.copytree(run, moved)
    finished = command("pseudo-label", moved, "--out", out, *OPTIONS, "--resume")
    assert finished.code == 0, finished.err
    assert "have results already" in finished.err


def test_a_call_does_not_go_on_with_other_validation_images(command: CommandLine, run: Path, tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data", unlabeled=2, val=2)
    out = tmp_path / "out"
    arguments = ("pseudo-label", run, "--out", out, *OPTIONS, "--data")
    assert command(*arguments, data).code == 0
    copied = tmp_path / "copied" / "data"
    shutil.copytree(data.parent, copied)
    other = write_tiny_data(tmp_path / "other", unlabeled=2, val=1)
    assert "begun with another validation set" in command.refused(*arguments, other, "--resume")

    source = ("--source", data.parent / "images" / "extra")
    assert command(*arguments, copied / "data.yaml", *source, "--resume").code == 0, "the same images elsewhere"
    record = json.loads((out / "pseudo-label.json").read_text())
    del record["settings"]["validation_set"]  # as older versions wrote it
    (out / "pseudo-label.json").write_text(json.dumps(record))
    assert command(*arguments, other, *source, "--resume").code == 0
