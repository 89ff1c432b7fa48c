"""What the GPU can do: matrix products and copies by PyTorch, and by ONNX Runtime where there is no PyTorch."""

from collections.abc import Callable
from typing import Any

import numpy as np

from segkc_deploy.benchmarks.measure.best_rate import Rate, best_product, fastest_of, timed
from segkc_deploy.benchmarks.measure.product_model import NUMPY_TYPES, ElementType, copy_model, product_model
from segkc_deploy.cuda_probe import cuda_obstacle
from segkc_deploy.runners.onnx_runner import preload_cuda_libraries

_LARGEST = 16384
_CUDA = "CUDAExecutionProvider"
_COPY = 1 << 30
_SIDE_OF_COPY = 16384  # of float32: the same size


def torch_peak(precision: str, threads: int | None, seconds: float) -> Rate | None:
    """Return the best product by PyTorch, timed by events; None where it cannot do it on this GPU."""
    import torch

    from segkc_deploy.export.torch_products import gpu_product

    make = gpu_product(precision)
    return best_product(make, f"torch {torch.__version__}", seconds, _LARGEST) if make else None


def torch_copy(threads: int | None, seconds: float) -> Rate | None:
    """Return the best copy within the GPU's memory by PyTorch; bytes read and written count."""
    from segkc_deploy.export.torch_products import gpu_copy

    copy = gpu_copy(_COPY)
    if copy is None:
        return None
    size, run = copy
    return Rate(2 * size / fastest_of(run, seconds) / 1e9, f"copy of {size >> 20} MiB by torch")


def onnxruntime_peak(precision: str, threads: int | None, seconds: float) -> Rate | None:
    """Return the best product by ONNX Runtime's CUDA provider; None where it cannot be loaded or has no such product.

    It tells no times of the GPU: the host's clock says when a product is done.
    """
    types: dict[str, ElementType] = {"fp32": "fp32", "tf32": "fp32", "fp16": "fp16", "int8": "int8"}
    if precision not in types:
        return None
    kind = types[precision]
    opened = _cuda_session(product_model(kind, kind), precision == "tf32")
    if opened is None:
        return None
    onnxruntime, session = opened

    def make(side: int) -> Callable[[], float]:
        return timed(bound(onnxruntime, session, side, kind, "int32" if kind == "int8" else kind))

    return best_product(make, f"onnxruntime {onnxruntime.__version__} {_CUDA}", seconds, _LARGEST)


def onnxruntime_copy(threads: int | None, seconds: float) -> Rate | None:
    """Return the best copy within the GPU's memory by ONNX Runtime's CUDA provider."""
    opened = _cuda_session(copy_model())
    if opened is None:
        return None
    run = bound(*opened, _SIDE_OF_COPY, "fp32", "fp32")
    return Rate(2 * _COPY / fastest_of(timed(run), seconds) / 1e9, f"copy of {_COPY >> 20} MiB by onnxruntime")


def _cuda_session(model: bytes, tf32: bool = False) -> tuple[Any, Any] | None:
    """Return onnxruntime and a session of which nothing runs on the CPU, or None without CUDA."""
    import onnxruntime

    if _CUDA not in onnxruntime.get_available_providers() or cuda_obstacle():
        return None
    preload_cuda_libraries(onnxruntime)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    providers = [(_CUDA, {"use_tf32": str(int(tf32))})]
    session = onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
    return (onnxruntime, session) if session.get_providers()[0] == _CUDA else None


def bound(
    onnxruntime: Any, session: Any, side: int, given: ElementType, made: ElementType, device: str = "cuda"
) -> Callable[[], Any]:
    """Return what runs `session` on matrices that stay on `device`, and gives the result as an OrtValue."""
    binding = session.io_binding()
    for seed, value in enumerate(session.get_inputs()):
        matrix = np.random.default_rng(seed).integers(0, 100, (side, side), dtype=np.int8).astype(NUMPY_TYPES[given])
        binding.bind_ortvalue_input(value.name, onnxruntime.OrtValue.ortvalue_from_numpy(matrix, device, 0))
    result = onnxruntime.OrtValue.ortvalue_from_shape_and_type((side, side), NUMPY_TYPES[made], device, 0)
    binding.bind_ortvalue_output("c", result)

    def run() -> Any:
        session.run_with_iobinding(binding)
        return result

    return run
