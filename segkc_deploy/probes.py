"""Whether an engine, a job or an extra that is installed really works: one inference is run, the packages are imported.

`python -m segkc_deploy.probes NAME` ends with exit code 0 if it does, or with the reason as the last line on stderr.
"""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segkc_deploy.broken_imports import explain
from segkc_deploy.errors import SegKCError

if TYPE_CHECKING:
    import numpy as np

_SECONDS = 180

#: What each job and each optional extra imports, besides this package.
_MODULES = {
    "predict": ("cv2", "onnxruntime", "packaging", "PIL", "pydantic", "rich", "tifffile", "typer", "yaml"),
    "train": (
        *("lightning.fabric", "pycocotools.mask", "safetensors.torch", "scipy", "timm", "torch"),
        "torch.utils.tensorboard",
    ),
    "export": ("ml_dtypes", "onnx", "onnxscript", "onnxslim", "torch"),
    "benchmark": ("jinja2", "onnx", "psutil", "pynvml", "scipy"),
    "serve": ("fastapi", "httptools", "prometheus_client", "uvicorn"),
    "annotations": ("pycocotools.mask",),
    "geo": ("rasterio",),
    "heic": ("pillow_heif",),
    "hub": ("huggingface_hub",),
    "mlflow": ("mlflow",),
    "ray": ("ray.data",),
    "tiff": ("imagecodecs",),
    "video": ("av",),
    "wandb": ("wandb",),
}


def failure_of(name: str) -> str:
    """Return in one line why an engine, job or extra does not work, and what to do; "" if it works.

    The probe is a process of its own: a library that crashes takes nothing else with it.
    """
    command = [sys.executable, "-m", "segkc_deploy.probes", name]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return f"it did not end within {_SECONDS} s"
    if finished.returncode < 0:
        return f"the process was ended by {signal.Signals(-finished.returncode).name}; install its package again"
    if finished.returncode == 0:
        return ""
    lines = finished.stderr.strip().splitlines()
    return lines[-1] if lines else f"the process ended with exit code {finished.returncode}"


def main(name: str) -> None:
    """Try the engine, job or extra `name`; exit with the reason where it fails in a way that has a known fix."""
    try:
        PROBES[name]()
    except SegKCError as error:
        sys.exit(" ".join(str(error).split()))
    except ImportError as error:
        package = (error.name or "a package").partition(".")[0]
        sys.exit(explain(error) or f"{package} cannot be imported ({' '.join(str(error).split())}); install it again")


def _import_all(names: tuple[str, ...]) -> None:
    for name in names:
        import_module(name)


def _predict() -> None:
    _import_all(_MODULES["predict"])
    import cv2

    from segkc_deploy.data.images import decode_image
    from segkc_deploy.probe_network import example

    image = example()[0][0]
    encoded, content = cv2.imencode(".png", image[..., ::-1])
    assert encoded
    _require_equal(decode_image(content.tobytes(), "the example"), image)


def _onnxruntime(device: str) -> None:
    from segkc_deploy.probe_network import example, onnx_bytes
    from segkc_deploy.runners.onnx_runner import OnnxRuntimeRunner

    images, masks = example()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.onnx"
        path.write_bytes(onnx_bytes())
        with OnnxRuntimeRunner(path, device) as runner:
            _require_equal(runner.infer(images)["masks"], masks)


def _openvino() -> None:
    from segkc_deploy.probe_network import example, onnx_bytes
    from segkc_deploy.runners.openvino_runner import compile_for_cpu, import_openvino

    openvino = import_openvino()
    images, masks = example()
    compiled = compile_for_cpu(openvino, openvino.Core().read_model(onnx_bytes()), 1)
    _require_equal(compiled.create_infer_request().infer({0: images})[0], masks)


def _torch() -> None:
    """A package of native code takes a compiler to make, so a convolution stands for it."""
    import numpy as np

    torch: Any = import_module("torch")
    ones = torch.nn.functional.conv2d(torch.ones(1, 3, 8, 8), torch.full((1, 3, 1, 1), 1 / 3))
    _require_equal(np.rint(ones.numpy()), np.ones((1, 1, 8, 8)))


def _tensorrt(engine: str) -> None:
    """Build an engine from the network, and run it."""
    from segkc_deploy.cuda_probe import find_gpu
    from segkc_deploy.manifest import Contract, TensorContract
    from segkc_deploy.probe_network import example, onnx_bytes
    from segkc_deploy.runners.device_memory import DeviceMemory
    from segkc_deploy.runners.trt_execution import Execution
    from segkc_deploy.tensorrt_library import LIBRARIES, collect_log

    find_gpu()  # without a driver the import can crash
    trt = LIBRARIES[engine].load()
    log = collect_log(trt)
    builder = trt.Builder(log.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log.logger)
    plan = None
    if parser.parse(onnx_bytes()):
        plan = builder.build_serialized_network(network, builder.create_builder_config())
    loaded = None if plan is None else trt.Runtime(log.logger).deserialize_cuda_engine(plan)
    if loaded is None:
        raise SegKCError(f"{LIBRARIES[engine].title} cannot build or load an engine: {log.reason()}")
    images, masks = example()
    contract = Contract(
        input=TensorContract(name="images", dtype="uint8", layout="NHWC"),
        outputs=(TensorContract(name="masks", dtype="uint8", layout="NHW"),),
        size=images.shape[1:3],
        batch=1,
    )
    memory = DeviceMemory()
    execution = Execution("the probe's engine", trt, loaded, memory, contract, False, log)
    try:
        _require_equal(execution.run(images)["masks"], masks)
    finally:
        execution.close()
        memory.close()


def _require_equal(found: "np.ndarray", expected: "np.ndarray") -> None:
    import numpy as np

    if not np.array_equal(found, expected):
        raise SegKCError("it runs, but gives wrong results; install its packages again")


#: By the names that `doctor` shows.
PROBES: Mapping[str, Callable[[], None]] = {
    "onnx on the CPU": partial(_onnxruntime, "cpu"),
    "onnx on CUDA": partial(_onnxruntime, "cuda"),
    "onnx on TensorRT": partial(_onnxruntime, "tensorrt"),
    "trt": partial(_tensorrt, "trt"),
    "trt-rtx": partial(_tensorrt, "trt-rtx"),
    "openvino": _openvino,
    "aoti": _torch,
    "predict": _predict,
    **{job: partial(_import_all, modules) for job, modules in _MODULES.items() if job != "predict"},
}

if __name__ == "__main__":
    main(sys.argv[1])
