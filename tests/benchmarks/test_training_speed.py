"""The study of training speed on tiny input: both pipelines make the same views, and the ratios are the times'."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny_data import tiny_recipe, write_recipe

from segkc_deploy.benchmarks.studies import training_speed
from segkc_deploy.benchmarks.studies.plain_loop import plain_step
from segkc_deploy.benchmarks.studies.random_batch import CLASSES, random_batch
from segkc_deploy.benchmarks.studies.training_speed_rows import SpeedResult
from segkc_deploy.errors import DataError
from segkc_deploy.training.methods.registry import build_method


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(2):
        picture = cv2.resize(
            rng.integers(0, 256, (9, 12, 3)).astype(np.uint8), (120, 90), interpolation=cv2.INTER_CUBIC
        )
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), picture)
    return tmp_path / "images"


def test_both_pipelines_load_the_same_views(photographs: Path) -> None:
    path = photographs / "0.png"
    usual, ours = (load(path, 64, 3) for load in (training_speed.load_by_pillow, training_speed.load_by_opencv))
    assert [view.shape for view in usual] == [(3, 64, 64)] * 3
    assert [view.shape for view in ours] == [(64, 64, 3)] * 3
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    gray_levels = 255 * (usual[0].transpose(1, 2, 0) * std + mean)
    assert np.abs(gray_levels - ours[0]).mean() < 1


def test_the_study_writes_its_rows(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_speed, "LOADED", (((120, 90), ".jpg", 64),))
    recipe = write_recipe(tmp_path / "tiny.yaml", tiny_recipe())
    alone = tiny_recipe(senior=None, method={"name": "unimatch-v2"})
    single = write_recipe(tmp_path / "single.yaml", alone)
    results = tmp_path / "results.json"
    options = ["--images", str(photographs), "--results", str(results), "--rounds", "3", "--recipe", str(recipe)]
    assert training_speed.main([*options, "--crop", "64", "--single", str(single), "--single-crop", "64"]) == 0
    result = SpeedResult.model_validate_json(results.read_bytes())
    assert [row.name for row in result.rows] == [
        "Pillow pipeline",
        "segkc-deploy",
        "segkc-deploy, decoded cache",
        "the same, strong views on a GPU",
        "forwards and backwards alone",
        "whole step",
        "straightforward, fp32",
        "segkc-deploy, bf16",
    ]
    assert [result.rows[place].speed for place in (0, 4, 6)] == [1.0, 1.0, 1.0]
    assert all(row.p50_ms > 0 for row in result.rows)
    assert "| loader, 120×90 JPG, crop 64, 2 strong views | segkc-deploy |" in capsys.readouterr().out


def test_the_straightforward_step_learns_and_its_average_follows() -> None:
    recipe = tiny_recipe(senior=None, method={"name": "unimatch-v2"}, batch={"labeled": 2, "unlabeled": 2})
    networks = build_method(recipe, num_classes=CLASSES, ignore_index=255).train().networks()
    batch = random_batch(recipe, 2)
    step = plain_step(networks["junior"], networks["junior_ema"], batch)
    before = [parameter.clone() for parameter in networks["junior"].parameters()]
    losses = []
    for number in range(4):
        with torch.no_grad():
            logits = networks["junior"](batch.labeled["image"])
            losses.append(float(torch.nn.functional.cross_entropy(logits, batch.labeled["mask"])))
        step(number)
    assert losses[-1] < losses[0]
    moved = zip(before, networks["junior"].parameters(), networks["junior_ema"].parameters(), strict=True)
    for old, new, average in moved:
        assert (average - old).abs().max() <= 0.02 * (new - old).abs().max() + 1e-6


def test_a_folder_without_photographs_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(f"{tmp_path}: no photographs")):
        training_speed.main(["--images", str(tmp_path), "--results", str(tmp_path / "r.json")])
