"""A device has no torch: `benchmark` leaves out the rows that need it and says so, and `compare` needs none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import yaml
from tiny_artifact import LABELS, expected_mask, make_artifact

#: Run by Python at the start of every process: to it, these packages are not installed.
HIDE = """
import importlib.machinery

hidden = {"torch", "torchvision", "timm", "lightning", "safetensors", "onnx", "onnxscript"}
find_spec = importlib.machinery.PathFinder.find_spec

def find_others(name, path=None, target=None):
    return None if name.partition(".")[0] in hidden else find_spec(name, path, target)

importlib.machinery.PathFinder.find_spec = find_others
"""


def segkc_deploy(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    (folder / "sitecustomize.py").write_text(HIDE)
    return subprocess.run(
        [sys.executable, "-m", "segkc_deploy", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_needs_torch_is_left_out_and_said(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3)).astype(np.uint8)
    for name, content in (("images", image[..., ::-1]), ("masks", expected_mask(image))):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "0.png"), content)
    spec = {"layout": "folders", "classes": list(LABELS.names), "val": {"images": "images", "masks": "masks"}}
    data, run = tmp_path / "data.yaml", tmp_path / "run"
    data.write_text(yaml.safe_dump(spec))
    run.mkdir()
    for role in ("senior", "junior"):
        (run / f"{role}.safetensors").write_bytes(b"weights")

    quick = ("--samples", 1, "--seconds", 0.01, "--batches", 1, "--device", "cpu", "--sustained", 0)
    here = tmp_path / "here"
    artifacts = [make_artifact(tmp_path, name) for name in ("tiny.onnx", "other.onnx")]
    quick = (*quick, "--rounds", 1)
    finished = segkc_deploy(tmp_path, "benchmark", run, *artifacts, "--data", data, "--out", here, *quick)
    assert finished.returncode == 0, finished.stderr
    stored = json.loads((here / "benchmark.json").read_text())
    names = ["tiny.onnx", "other.onnx"]
    assert [(row["name"], row["accuracy"]["miou"]) for row in stored["rows"]] == [(name, 100.0) for name in names]
    assert [(one["name"], one["kind"], one["error"]) for one in stored["interleaved"]["contenders"]] == [
        (name, "row", None) for name in names
    ]
    (note,) = stored["notes"]
    assert note.startswith(f"{run}: its PyTorch rows (senior, junior) are left out, and its baselines")
    for page in ("index.html", "benchmark.md"):
        assert "its PyTorch rows (senior, junior) are left out" in (here / page).read_text()

    # The same packages suffice to join it with another machine's, whose rows of the run are there.
    for row, role in ((dict(stored["rows"][0]), role) for role in ("senior", "junior")):
        stored["rows"].append(row | {"name": f"run {role}", "role": role})
    there = tmp_path / "there" / "benchmark.json"
    there.parent.mkdir()
    there.write_text(json.dumps(stored | {"notes": []}))
    both = tmp_path / "both"
    finished = segkc_deploy(tmp_path, "compare", here / "benchmark.json", f"server={there}", "--out", both)
    assert finished.returncode == 0, finished.stderr
    assert len(json.loads((both / "benchmark.json").read_text())["rows"]) == 6
    assert "its PyTorch rows (senior, junior) are left out" in (both / "index.html").read_text()


def test_the_packages_are_hidden(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    code = "import importlib.util; print(importlib.util.find_spec('torch'), importlib.util.find_spec('numpy') is None)"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["None", "False"]
