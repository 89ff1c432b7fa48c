"""A device has neither torch nor the other packages that training and export need: the runtime works without them."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
from tiny_artifact import expected_mask, make_artifact

FORBID = """
import importlib.abc, sys

class Forbid(importlib.abc.MetaPathFinder):
    names = {"torch", "torchvision", "timm", "onnx", "onnxscript", "safetensors", "lightning", "matplotlib", "jinja2"}

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"the runtime imported {fullname}", name=fullname)

sys.meta_path.insert(0, Forbid())
"""

USE_EVERYTHING = """
import numpy as np
import segkc_deploy
from segkc_deploy import evaluation, machine, metrics, overlay

artifact, image_file, mask_file, out = sys.argv[1:]
with segkc_deploy.load(artifact, device="cpu") as predictor:
    mask = predictor.predict(image_file)
    matrix = metrics.ConfusionMatrix(predictor.labels.num_classes, predictor.labels.ignore_index)
matrix.update(np.load(mask_file), mask)
assert matrix.scores().miou == 100.0
machine.describe_machine()

sys.argv = ["segkc-deploy", "predict", artifact, "--source", image_file, "--out", out]
from segkc_deploy.cli import main

main()
"""


def python(code: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", FORBID + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_ban_works():
    assert "the runtime imported torch" in python("import torch").stderr


def test_load_predict_metrics_and_the_command_need_no_workshop_library(tmp_path):
    artifact = make_artifact(tmp_path / "artifact")
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "image.png"), image[..., ::-1])
    np.save(tmp_path / "mask.npy", expected_mask(image))

    result = python(USE_EVERYTHING, artifact, tmp_path / "image.png", tmp_path / "mask.npy", tmp_path / "out")

    assert (result.returncode, result.stderr) == (0, "")
    mask = cv2.imread(str(tmp_path / "out" / "masks" / "image.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask, expected_mask(image))


def test_every_module_of_the_runtime_is_imported_without_them():
    code = """
import importlib, pathlib, segkc_deploy

root = pathlib.Path(segkc_deploy.__file__).parent
linked = {"training", "export", "benchmarks"}
files = [path.relative_to(root) for path in root.rglob("*.py")]
modules = [".".join(path.with_suffix("").parts) for path in files if path.parts[0] not in linked]
for module in modules:
    if module != "__main__":
        importlib.import_module(f"segkc_deploy.{module}".removesuffix(".__init__"))
print(len(modules))
"""
    result = python(code)
    assert (result.returncode, result.stderr) == (0, "")
    assert int(result.stdout) > 20


def test_help_answers_without_numpy_or_opencv():
    code = """
from segkc_deploy import cli

heavy = {"numpy", "cv2", "pydantic", "onnxruntime"} & set(sys.modules)
assert not heavy, heavy
"""
    result = python(code)
    assert (result.returncode, result.stderr) == (0, "")
