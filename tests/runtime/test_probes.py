"""The probes of `doctor`: they pass where an engine works, and say in one line what is wrong where it does not."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from segkc_deploy import doctor, probes
from segkc_deploy.probe_network import TEXT, example, onnx_bytes
from segkc_deploy.probes import PROBES, failure_of

MISSING = ": cannot open shared object file"


def test_the_network_is_the_one_of_its_text() -> None:
    model = onnx.parser.parse_model(TEXT)
    onnx.checker.check_model(model)
    assert onnx_bytes() == model.SerializeToString()
    images, masks = example()
    (found,) = ReferenceEvaluator(model).run(None, {"images": images})
    np.testing.assert_array_equal(found, masks)
    assert 0 < masks.mean() < 1


@pytest.mark.parametrize("name", ["onnx on the CPU", "openvino", "aoti", "predict"])
def test_an_engine_that_works(name: str) -> None:
    PROBES[name]()


def test_everything_that_doctor_names_has_a_probe() -> None:
    assert {ability.name for ability in doctor.diagnose(run=False).abilities} == PROBES.keys()


@pytest.mark.parametrize(
    ("module", "content", "name", "reason"),
    [
        ("cv2", f"raise ImportError('libGL.so.1{MISSING}')", "predict", "opencv-python-headless"),
        ("openvino", "import os; os.abort()", "openvino", "ended by SIGABRT"),
        ("openvino", "raise ImportError('bad wheel', name='openvino')", "openvino", "openvino cannot be imported"),
        ("openvino", "raise RuntimeError('broken')", "openvino", "RuntimeError: broken"),
        (
            "onnxruntime",
            "raise ImportError('libcudart.so.13: cannot open shared object file')",
            "onnx on the CPU",
            "CUDA",
        ),
    ],
)
def test_an_engine_that_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, content: str, name: str, reason: str
) -> None:
    (tmp_path / f"{module}.py").write_text(content)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    failure = failure_of(name)
    assert reason in failure
    assert "\n" not in failure


def test_wrong_results_are_no_success(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    images, masks = example()
    monkeypatch.setattr("segkc_deploy.probe_network.example", lambda: (images, 1 - masks))
    with pytest.raises(SystemExit, match="it runs, but gives wrong results"):
        probes.main("onnx on the CPU")
