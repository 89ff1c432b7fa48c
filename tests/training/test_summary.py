"""The last lines of a training."""

from pathlib import Path
from typing import Literal

import pytest

from segkc_deploy.training.summary import RunResult, summary

SCORES = {"junior": 69.1, "senior": 70.0, "junior_ema": 4.6, "senior_ema": 5.0}


def lines(miou: dict[str, float], ship: Literal["ema", "raw"]) -> list[str]:
    return summary(RunResult(Path("runs/a"), 20, miou, ship))


def test_it_names_what_ships_and_warns_where_the_ema_lags() -> None:
    told = lines(SCORES, "ema")
    assert told[0] == "finished: runs/a (20 steps)"
    assert "  mIoU junior_ema: 4.60 (ships)" in told
    assert "  mIoU junior: 69.10" in told
    (warning,) = (line for line in told if line.startswith("warning: "))
    assert "junior_ema" in warning
    assert "64.50 points more" in warning
    assert told[-1] == "next: segkc-deploy export runs/a --engine onnx"


@pytest.mark.parametrize(
    ("miou", "ship"),
    [(SCORES, "raw"), ({"junior": 60.5, "junior_ema": 60.0}, "ema"), ({"junior": 8.0, "junior_ema": 9.0}, "ema")],
)
def test_it_does_not_warn_otherwise(miou: dict[str, float], ship: Literal["ema", "raw"]) -> None:
    told = lines(miou, ship)
    assert not [line for line in told if line.startswith("warning: ")]
    assert f"  mIoU {'junior_ema' if ship == 'ema' else 'junior'}: " in "".join(
        line for line in told if "ships" in line
    )


def test_the_next_command_quotes_the_path() -> None:
    for miou, end in ((SCORES, ""), ({}, " --verify FOLDER, a folder of images on which the artifact is verified")):
        told = summary(RunResult(Path("my runs/a"), 20, miou, "ema"))
        assert told[-1] == f"next: segkc-deploy export 'my runs/a' --engine onnx{end}"


def test_without_validation_images_the_next_command_works() -> None:
    told = lines({}, "ema")
    assert "not scored" in told[1]
    assert "--verify FOLDER" in told[-1]
