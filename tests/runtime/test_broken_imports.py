"""An installed package that cannot be imported is one line with the fix, not a traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from segkc_deploy.broken_imports import explain


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("libGL.so.1: cannot open shared object file: No such file or directory", "opencv-python-headless"),
        ("libgthread-2.0.so.0: cannot open shared object file: No such file", "libglib2.0-0"),
        ("libcudart.so.13: cannot open shared object file: No such file", "built for a CUDA that is not here"),
        ("libnvinfer.so.10: cannot open shared object file: No such file", "segkc-deploy doctor"),
        ("libfoo.so.2: cannot open shared object file: No such file", "libfoo.so.2 is missing"),
        (
            "DLL load failed while importing onnxruntime_pybind11_state: not found",
            "onnxruntime_pybind11_state is missing",
        ),
    ],
)
def test_a_missing_library_has_its_fix(text: str, answer: str) -> None:
    message = explain(ImportError(text))
    assert message is not None
    assert answer in message
    assert "\n" not in message


def test_other_import_errors_are_faults_of_ours() -> None:
    assert explain(ImportError("cannot import name 'x' from 'y'")) is None


@pytest.mark.parametrize("module", ["cv2", "onnxruntime"])
def test_a_command_ends_in_one_line(tmp_path: Path, module: str) -> None:
    library = {"cv2": "libGL.so.1", "onnxruntime": "libcudart.so.13"}[module]
    (tmp_path / f"{module}.py").write_text(f"raise ImportError('{library}: cannot open shared object file')\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    code += f"from segkc_deploy import cli; cli.app = lambda: __import__({module!r}); cli.main()"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert finished.returncode == 2
    assert finished.stderr.startswith(f"error: {library} is missing: ")
    assert len(finished.stderr.splitlines()) == 1
