"""From an artifact to the runner of its engine."""

from pathlib import Path

from segkc_deploy.errors import ArtifactError, ConfigError
from segkc_deploy.manifest import Manifest
from segkc_deploy.runners.base import Runner

ENGINES = ("onnx", "trt", "trt-rtx", "openvino", "aoti")


def create_runner(
    path: Path, manifest: Manifest, device: str = "auto", threads: int | None = None, cuda_graph: bool = False
) -> Runner:
    """Return the runner for the artifact at `path`, not yet activated. Only the engine's own library is imported.

    Raises:
        ArtifactError: the engine is not known.
        ConfigError: CUDA graphs are asked of an engine without them.
    """
    if cuda_graph and manifest.engine != "trt":
        raise ConfigError(f"{path}: CUDA graphs are for the engine trt; run this one without")
    if manifest.engine == "onnx":
        from segkc_deploy.runners.onnx_runtime import OnnxRuntimeRunner

        return OnnxRuntimeRunner(path, device, threads)
    if manifest.engine in ("trt", "trt-rtx"):
        from segkc_deploy.runners.tensorrt_runner import TensorRTRunner

        return TensorRTRunner(path, manifest, device, cuda_graph)
    if manifest.engine == "openvino":
        from segkc_deploy.runners.openvino_runner import OpenVINORunner, precision_hint

        return OpenVINORunner(path, device, threads, precision_hint(manifest))
    if manifest.engine == "aoti":
        from segkc_deploy.runners.aoti_runner import AOTIRunner

        return AOTIRunner(path, manifest, device, threads)
    raise ArtifactError(
        f"{path}: made for the engine {manifest.engine!r}; this version runs {', '.join(ENGINES)}; export again"
    )
