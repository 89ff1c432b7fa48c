"""Several ways from image to mask, timed in turn."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from segkc_deploy.benchmarks.side_by_side import main, measure, rows_of
from segkc_deploy.data.images import read_image
from segkc_deploy.export.export_run import export_run
from segkc_deploy.export.torch_runner import load_run_predictor
from segkc_deploy.export.usual_paths import EagerPath, PlainExportPath


def test_known_times_give_known_ratios() -> None:
    images = [np.zeros((2, 2, 3), np.uint8)]
    times = measure({"slow": lambda _: time.sleep(0.02), "fast": lambda _: time.sleep(0.005)}, images, rounds=12)
    slow, fast = rows_of(times, "slow")
    assert slow["times_faster"] == 1
    assert slow["samples"] == fast["samples"] == 12
    assert slow["p50_ms"] == pytest.approx(20, rel=0.3)
    assert 2 < fast["times_faster"] < 5
    low, high = fast["times_faster_quartiles"]
    assert low <= fast["times_faster"] <= high


def test_the_usual_paths_give_the_artifacts_masks(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = export_run(run, data, out=tmp_path).path
    image = read_image(sorted((data.parent / "images" / "val").iterdir())[0])
    expected = load_run_predictor(run, device="cpu").predict(image)
    for path in (EagerPath, PlainExportPath):
        mask = path(run, 1).predict(image)
        assert mask.shape == image.shape[:2]
        # They interpolate by plain bilinear weights and upsample logits instead of masks: borders may move.
        assert (mask == expected).mean() > 0.9
    out = tmp_path / "side.json"
    assert main([str(run), str(artifact), "--data", str(data), "--out", str(out), "--rounds", "3"]) == 0
    content = json.loads(out.read_text())
    assert [row["samples"] for row in content["rows"]] == [3, 3, 3]
    assert content["machine"]["cpu"]
    assert str(artifact) in capsys.readouterr().out
    assert main([str(run), str(tmp_path / "no.onnx"), "--data", str(data), "--out", str(out)]) == 2
