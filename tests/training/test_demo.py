"""The demo: the whole pipeline at a tenth of its size, and the folders it refuses."""

import json
from pathlib import Path

import cv2
import pytest
from command_line import CommandLine

from segkc_deploy.cli import demo


def test_the_demo_ends_with_a_report(command: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "_LABELED": 2,
        "_UNLABELED": 3,
        "_VAL": 2,
        "_SECONDS_A_LATENCY": 0.05,
        "_BATCHES": (1,),
    }.items():
        monkeypatch.setattr(demo, name, value)
    out = tmp_path / "demo"
    finished = command("demo", "--out", out, "--steps", "2")
    assert finished.code == 0, finished.err
    for row in ("supervised junior", "co-trained junior", "senior", "ONNX artifact"):
        assert row in finished.out
    assert finished.out.rstrip().endswith(f"the report: {out / 'report' / 'index.html'}")
    assert "<html" in (out / "report" / "index.html").read_text()
    rows = json.loads((out / "report" / "benchmark.json").read_text())["rows"]
    assert sorted(row["role"] for row in rows) == ["artifact", "junior", "junior", "senior"]
    for name in ("val-0000", "val-0001"):
        predicted = cv2.imread(str(out / "predicted" / "masks" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        assert predicted is not None and predicted.shape == (128, 160) and predicted.max() < 8

    assert "add --overwrite" in command.refused("demo", "--out", out)


def test_a_folder_of_something_else_is_never_deleted(command: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("chapter 1")
    assert "not a demo's folder" in command.refused("demo", "--out", tmp_path, "--overwrite")
    assert (tmp_path / "thesis.txt").read_text() == "chapter 1"
