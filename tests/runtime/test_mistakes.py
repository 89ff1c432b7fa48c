"""What a user can get wrong from data to artifact: one clear line each, exit code 2, and nothing written."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import CommandLine
from tiny_artifact import make_artifact
from tiny_data import tiny_recipe, write_recipe, write_tiny_data

Setup = tuple[Path, Path, Path]


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    """A data spec, a recipe, and a run directory that does not exist yet."""
    data = write_tiny_data(tmp_path / "data")
    return data, write_recipe(tmp_path / "recipe.yaml", tiny_recipe()), tmp_path / "run"


def refused_training(command: CommandLine, setup: Setup, *more: str) -> str:
    data, recipe, out = setup
    return command.refused("train", "--data", data, "--recipe", recipe, "--out", out, "--device", "cpu", *more)


def test_a_wrong_yaml_key(command: CommandLine, setup: Setup) -> None:
    data, _, out = setup
    data.write_text(data.read_text().replace("labeled:", "labelled:", 1))
    line = refused_training(command, setup)
    assert "data.yaml" in line
    assert "did you mean 'labeled'?" in line
    assert not out.exists()


def test_a_missing_folder(command: CommandLine, setup: Setup) -> None:
    data, _, out = setup
    data.write_text(data.read_text().replace("images/train", "images/trian"))
    assert "images/trian" in refused_training(command, setup)
    assert not out.exists()


def test_an_unknown_backbone(command: CommandLine, setup: Setup) -> None:
    line = refused_training(command, setup, "-o", "junior.backbone=mobilenet_v4")
    assert "mobilenet_v4" in line
    assert not setup[2].exists()


@pytest.mark.parametrize("workers", ["0", "1"])
def test_an_unreadable_image_met_while_training(command: CommandLine, setup: Setup, workers: str) -> None:
    """Raised in a worker process, it would arrive as that process's traceback."""
    for image in (setup[0].parent / "images" / "extra").iterdir():
        image.write_bytes(b"not an image")
    data, recipe, out = setup
    finished = command(
        "train", "--data", data, "--recipe", recipe, "--out", out, "--device", "cpu", "--workers", workers
    )
    assert finished.code == 2
    (line,) = (line for line in finished.err.splitlines() if line.startswith("error: "))
    assert "images/extra" in line
    assert "Traceback" not in finished.err


def test_a_mask_of_another_size(command: CommandLine, setup: Setup) -> None:
    mask = setup[0].parent / "masks" / "train" / "000.png"
    cv2.imwrite(str(mask), np.zeros((10, 10), np.uint8))
    finished = command("check", "--data", setup[0])
    assert finished.code == 2
    assert "000.png" in finished.out + finished.err


def test_ids_out_of_range(command: CommandLine, setup: Setup) -> None:
    mask = setup[0].parent / "masks" / "val" / "001.png"
    cv2.imwrite(str(mask), np.full((48, 64), 7, np.uint8))
    finished = command("check", "--data", setup[0])
    assert finished.code == 2
    assert "001.png" in finished.out + finished.err


@pytest.mark.parametrize("verb", ["predict", "eval"])
def test_an_artifact_with_a_flipped_byte(command: CommandLine, setup: Setup, tmp_path: Path, verb: str) -> None:
    artifact = make_artifact(tmp_path / "artifact")
    content = bytearray(artifact.read_bytes())
    content[len(content) // 2] ^= 1
    artifact.write_bytes(content)
    source = setup[0].parent / "images" / "val"
    options = ["--source", source, "--out", tmp_path / "out"] if verb == "predict" else ["--data", setup[0]]
    assert "sha256 differs" in command.refused(verb, artifact, *options)
    assert not (tmp_path / "out").exists()


def test_recipe_values_that_make_no_sense(command: CommandLine, setup: Setup) -> None:
    for option, value in (("--size", "33x64"), ("-o", "batch.labeled=0"), ("-o", "optimizer.lr=fast")):
        refused_training(command, setup, option, value)
    assert not setup[2].exists()


def test_the_usual_options_are_recipe_values(command: CommandLine, setup: Setup) -> None:
    data, recipe, out = setup
    finished = command(
        *("train", "--data", data, "--recipe", recipe, "--out", out, "--device", "cpu"),
        *("--steps", 1, "--batch", 3, "--size", "32x32", "--workers", 0, "--seed", 5),
    )
    assert finished.code == 0, finished.err
    config = (out / "config.yaml").read_text()
    for line in ("steps: 1", "labeled: 3", "unlabeled: 3", "seed: 5"):
        assert line in config
