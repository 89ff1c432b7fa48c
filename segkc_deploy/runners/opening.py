"""From an artifact to the runner of its engine."""

from pathlib import Path

from segkc_deploy.errors import ArtifactError
from segkc_deploy.manifest import Manifest
from segkc_deploy.runners.base import Runner

ENGINES = ("onnx", "trt", "trt-rtx", "openvino", "aoti")


def open_runner(path: Path, manifest: Manifest, device: str = "auto", threads: int | None = None) -> Runner:
    """Return the runner for the artifact at `path`, not yet activated. Only the engine's own library is imported.

    Raises:
        ArtifactError: the engine is not known.
    """
    if manifest.engine == "onnx":
        from segkc_deploy.runners.onnx_runtime import OnnxRuntimeRunner

        return OnnxRuntimeRunner(path, device, threads)
    if manifest.engine in ("trt", "trt-rtx"):
        from segkc_deploy.runners.tensorrt_runner import TensorRTRunner

        return TensorRTRunner(path, manifest, device)
    if manifest.engine == "openvino":
        from segkc_deploy.runners.openvino_runner import OpenVINORunner

        return OpenVINORunner(path, device, threads)
    if manifest.engine == "aoti":
        from segkc_deploy.runners.aoti_runner import AOTIRunner

        return AOTIRunner(path, manifest, device, threads)
    raise ArtifactError(
        f"{path}: made for the engine {manifest.engine!r}; this version runs {', '.join(ENGINES)}; export again"
    )
