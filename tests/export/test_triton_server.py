"""The model repository and the client, tried with a real Triton server.

NVIDIA's package `nvidia-pytriton` on PyPI holds the server with its Python backend alone, so the ONNX file is run by
that backend. Set TRITON_HOME to a folder prepared as CONTRIBUTING.md says.
"""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from prepared_folder import prepared_folder
from tiny_artifact import make_artifact

import segkc_deploy
from segkc_deploy.errors import ArtifactError, ConfigError
from segkc_deploy.export.triton import write_model_repository
from segkc_deploy.manifest import read_manifest

_MODEL = """
import json, sys
from pathlib import Path
sys.path.insert(0, {packages!r})
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, args):
        file = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        return [self.answer(request, request.requested_output_names()) for request in requests]

    def answer(self, request, names):
        images = triton.get_input_tensor_by_name(request, "images").as_numpy()
        values = self.session.run(names, {{"images": images}})
        return triton.InferenceResponse([triton.Tensor(*pair) for pair in zip(names, values)])
"""


@pytest.fixture(scope="module")
def home() -> Path:
    return prepared_folder("TRITON_HOME", "a Triton server")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_artifact(tmp_path_factory.mktemp("triton"), "junior-fp32.onnx", outputs=("masks", "logits"))


@pytest.fixture(scope="module")
def url(home: Path, artifact: Path) -> Iterator[str]:
    """Serve what `export --triton` writes; only what runs it is another."""
    models = artifact.parent / "models"
    folder = write_model_repository(artifact, read_manifest(artifact), models)
    config = (folder / "config.pbtxt").read_text("utf-8")
    changed = config.replace('platform: "onnxruntime_onnx"', 'backend: "python"').replace("KIND_AUTO", "KIND_CPU")
    (folder / "config.pbtxt").write_text(changed, "utf-8")
    (folder / "1" / "model.py").write_text(_MODEL.format(packages=str(home / "python")), "utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = home / "pytriton" / "tritonserver"
    command = [str(server / "bin" / "tritonserver"), f"--model-repository={models}", "--http-address=127.0.0.1"]
    command += [f"--http-port={port}", "--allow-grpc=false", "--allow-metrics=false", "--exit-timeout-secs=2"]
    command += [f"--backend-directory={server / 'backends'}"]
    libraries = {"LD_LIBRARY_PATH": str(home / "nvidia_pytriton.libs")}
    with (
        (artifact.parent / "server.log").open("wb") as log,
        subprocess.Popen(command, env=os.environ | libraries, stdout=log, stderr=log) as process,
    ):
        address = f"http://127.0.0.1:{port}/v2/models/junior-fp32"
        try:
            wait_for(address, process, Path(log.name))
            yield address
        finally:
            process.terminate()


def wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    ends = time.monotonic() + 60
    while time.monotonic() < ends and process.poll() is None:
        try:
            segkc_deploy.connect(url).close()
        except (ArtifactError, ConfigError):
            time.sleep(0.2)
        else:
            return
    raise AssertionError(log.read_text("utf-8", errors="replace"))


def test_clients_get_what_the_artifact_gives(url: str, artifact: Path) -> None:
    images = [np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8) for seed in range(6)]
    with segkc_deploy.load(artifact, device="cpu") as predictor:
        expected = predictor.predict(images)

    def ask() -> list[np.ndarray]:
        with segkc_deploy.connect(url) as client:
            assert client.labels == predictor.labels
            assert client.contract.outputs == predictor.contract.outputs
            return [client.predict(image) for image in images]

    with ThreadPoolExecutor(4) as threads:
        for answers in threads.map(lambda _: ask(), range(4)):
            assert all(map(np.array_equal, answers, expected))


def test_an_unknown_model_is_refused(url: str) -> None:
    with pytest.raises(ArtifactError, match="the server answered"):
        segkc_deploy.connect(url.replace("junior-fp32", "other"))
