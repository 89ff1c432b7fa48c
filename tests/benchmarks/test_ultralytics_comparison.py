"""The comparison with Ultralytics, whose package a stand-in plays: its network answers one class everywhere."""

import json
import stat
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from tiny_artifact import LABELS, expected_mask, make_artifact

from segkc_deploy.benchmarks.studies.ultralytics_comparison import main
from segkc_deploy.metrics import ConfusionMatrix

SIZE = (8, 12)

ULTRALYTICS = """
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np


class Parameter:
    def numel(self):
        return 7


class YOLO:
    def __init__(self, path, task=None):
        self.path = path
        self.model = SimpleNamespace(parameters=lambda: [Parameter(), Parameter()])

    def add_callback(self, event, function):
        assert event == "on_train_start"
        function(self)

    def train(self, data, time, imgsz, project, name, **options):
        assert Path(data).is_file() and time == 0.05 and imgsz == 384, (data, time, imgsz)
        shutil.copytree(Path(data).parent, SEEN)
        weights = Path(project, name, "weights", "last.pt")
        weights.parent.mkdir(parents=True)
        weights.touch()

    def export(self, format, imgsz, device):
        assert (format, imgsz) == ("openvino", 512)
        return self.path + "_openvino_model"

    def predict(self, image, imgsz, device, verbose):
        assert image.dtype == np.uint8 and image.flags["C_CONTIGUOUS"]
        mask = np.full(image.shape[:2], 3 if image[0, 0, 0] > image[0, 0, 2] else 1)  # BGR
        return [SimpleNamespace(semantic_mask=SimpleNamespace(data=mask[None]))]
"""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A Python in whose environment the stand-in is Ultralytics."""
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "ultralytics.py").write_text(f"SEEN = {str(tmp_path / 'seen')!r}\n{ULTRALYTICS}")
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{packages}" exec "{sys.executable}" "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two labeled and two validation images with the masks of the tiny artifact, but for one pixel that is ignored."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / "set" / kind).mkdir(parents=True)
    for name in "abcd":
        image = rng.integers(0, 256, (*SIZE, 3)).astype(np.uint8)
        mask = expected_mask(image)
        mask[0, 0] = 255
        cv2.imwrite(str(tmp_path / f"set/images/{name}.png"), image[..., ::-1])
        cv2.imwrite(str(tmp_path / f"set/masks/{name}.png"), mask)
    part = {"images": "images", "masks": "masks"}
    spec = {"root": str(tmp_path / "set"), "classes": list(LABELS.names)}
    for name, ids in (("labeled", "ab"), ("val", "cd")):
        (tmp_path / f"set/{name}.txt").write_text("\n".join(ids) + "\n")
        spec[name] = part | {"ids": f"{name}.txt"}
    path = tmp_path / "data.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
def test_both_are_scored_and_timed_alike(tmp_path: Path, data: Path, python: Path) -> None:
    artifact, out = make_artifact(tmp_path / "artifact", size=SIZE), tmp_path / "out.json"
    arguments = [str(artifact), "--data", str(data), "--python", str(python), "--minutes", "3", "--rounds", "2"]
    assert main([*arguments, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    rows = found["contenders"]
    assert rows.keys() == {
        str(artifact),
        *(f"yolo26n-sem.yaml, {kind}" for kind in ("PyTorch at 384", "PyTorch at 512", "OpenVINO at 512")),
    }
    assert rows[str(artifact)]["miou"] == 100
    matrix = ConfusionMatrix(4, 255)
    for name in "cd":
        image = cv2.imread(str(tmp_path / f"set/images/{name}.png"))
        truth = cv2.imread(str(tmp_path / f"set/masks/{name}.png"), cv2.IMREAD_UNCHANGED)
        matrix.update(truth, np.full(SIZE, 3 if image[0, 0, 0] > image[0, 0, 2] else 1, np.uint8))
    assert rows["yolo26n-sem.yaml, PyTorch at 384"]["miou"] == round(matrix.scores().miou, 2)
    assert all(row["range_ms"][0] <= row["p50_ms"] <= row["range_ms"][1] for row in rows.values())
    assert (found["ultralytics_parameters"], found["labeled_images"], found["minutes"]) == (14, 2, 3)

    seen = yaml.safe_load((tmp_path / "seen/data.yaml").read_text())
    assert list(seen["names"].values()) == list(LABELS.names)
    assert sorted(path.name for path in (tmp_path / "seen/images/train").iterdir()) == ["a.png", "b.png"]
    for kind in ("images", "masks"):
        written = cv2.imread(str(tmp_path / f"seen/{kind}/val/c.png"), cv2.IMREAD_UNCHANGED)
        original = cv2.imread(str(tmp_path / f"set/{kind}/c.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(written, original)


def test_a_python_without_ultralytics_is_one_line(tmp_path: Path, data: Path) -> None:
    finished_badly = "export: failed; see above"
    artifact = make_artifact(tmp_path / "artifact", size=SIZE)
    with pytest.raises(Exception, match=finished_badly):
        main([str(artifact), "--data", str(data), "--python", sys.executable, "--weights", "w.pt"])
