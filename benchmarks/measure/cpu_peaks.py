"""What the CPU can do: matrix products by the libraries that are installed, and copies beyond the caches."""

import contextlib
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]

from segkc_deploy.benchmarks.measure.best_rate import Rate, best_product, fastest_of, timed
from segkc_deploy.benchmarks.measure.product_model import NUMPY_TYPES, ElementType, product_model
from segkc_deploy.machine import available_cores
from segkc_deploy.runners.openvino_runner import compile_for_cpu, import_openvino, layer_precisions

_LARGEST = 8192
#: Width of the images whose 1×1 convolution is a product.
_ROW = 32
#: Each of the two arrays of a copy has at least so many bytes, and four times those of the last caches together.
_LEAST_COPY = 256 << 20
_CACHES = 4


def numpy_peak(precision: str, threads: int | None, seconds: float) -> Rate | None:
    """Return the best product by NumPy's BLAS, whose threads the environment limits; None except for fp32."""
    if precision != "fp32":
        return None

    def make(side: int) -> Callable[[], float]:
        a, b = (_random(side, "fp32", seed) for seed in range(2))
        c = np.empty_like(a)
        return timed(lambda: np.matmul(a, b, out=c))

    return best_product(make, f"NumPy {np.__version__}", seconds, _LARGEST)


def onnxruntime_peak(precision: str, threads: int | None, seconds: float) -> Rate | None:
    """Return the best product by ONNX Runtime; None where it has no arithmetic of that precision for this CPU."""
    types: dict[str, tuple[ElementType, ElementType]] = {"fp32": ("fp32", "fp32"), "int8": ("uint8", "int8")}
    if platform.machine().lower() in ("arm64", "aarch64"):
        types["fp16"] = ("fp16", "fp16")  # elsewhere it converts to float32 and back
    if precision not in types:
        return None
    import onnxruntime

    left, right = types[precision]
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(product_model(left, right), options, providers=["CPUExecutionProvider"])

    def make(side: int) -> Callable[[], float]:
        matrices = {"a": _random(side, left, 0), "b": _random(side, right, 1)}
        return timed(lambda: session.run(None, matrices))

    return best_product(make, f"onnxruntime {onnxruntime.__version__}", seconds, _LARGEST)


def openvino_peak(precision: str, threads: int | None, seconds: float) -> Rate | None:
    """Return the best product by OpenVINO; None where it computes in another precision on this CPU."""
    if precision not in ("fp32", "fp16", "bf16", "int8"):
        return None
    openvino = import_openvino()
    model = _quantized_product if precision == "int8" else partial(_float_product, precision)

    def compiled(side: int) -> Any:
        return compile_for_cpu(openvino, model(openvino, side), threads)

    if precision not in layer_precisions(compiled(_ROW)):
        return None

    def make(side: int) -> Callable[[], float]:
        request = compiled(side).create_infer_request()
        values = _random(side, "fp32", 0).reshape(request.model_inputs[0].shape)
        return timed(lambda: request.infer({0: values}, share_inputs=True))

    return best_product(make, f"openvino {openvino.__version__.partition('-')[0]}", seconds, _LARGEST)


def torch_peak(precision: str, threads: int | None, seconds: float) -> Rate | None:
    """Return the best product by PyTorch; None where this CPU has no arithmetic of that precision."""
    import torch

    from segkc_deploy.export.torch_products import cpu_product

    make = cpu_product(precision, threads)
    if make is None:
        return None
    return best_product(lambda side: timed(make(side)), f"torch {torch.__version__}", seconds, _LARGEST)


def copy_peak(threads: int | None, seconds: float) -> Rate:
    """Return the best copy of a large array by as many threads, each a part of it; bytes read and written count."""
    workers = threads or available_cores()
    size = max(_LEAST_COPY, _CACHES * _last_caches())
    size = min(size, psutil.virtual_memory().available // 8)
    # Written, since memory that never was need not be read: the system maps all of it to one page of zeros.
    source, target = np.ones(size // 8), np.ones(size // 8)
    parts = list(zip(np.array_split(target, workers), np.array_split(source, workers), strict=True))
    with ThreadPoolExecutor(workers) as pool:

        def copy() -> None:
            for finished in [pool.submit(np.copyto, *part) for part in parts]:
                finished.result()

        fastest = fastest_of(timed(copy), seconds)
    return Rate(2 * source.nbytes / fastest / 1e9, f"copy of {source.nbytes >> 20} MiB by NumPy")


def _float_product(precision: str, openvino: Any, side: int) -> Any:
    """Return an OpenVINO model of the product of its input and a constant."""
    from openvino import opset13 as ops

    kind = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}[precision]
    matrix = ops.parameter([side, side], np.float32)
    weights = ops.convert(ops.constant(_random(side, "fp32", 1)), kind)
    product = ops.matmul(ops.convert(matrix, kind), weights, False, True)
    return openvino.Model([ops.convert(product, "f32")], [matrix])


def _quantized_product(openvino: Any, side: int) -> Any:
    """Return an OpenVINO model of a product as a 1×1 convolution of `side` channels and as many pixels.

    Products proper of quantized matrices are half as fast there.
    """
    from openvino import opset13 as ops

    def quantized(node: Any, least: float, most: float, levels: int) -> Any:
        ends = [ops.constant(np.float32(end)) for end in (least, most)]
        return ops.fake_quantize(node, *ends, *ends, levels)

    images = ops.parameter([1, side, side // _ROW, _ROW], np.float32)
    weights = ops.constant(_random(side, "fp32", 1)[:, :, None, None])
    product = ops.convolution(
        quantized(images, 0, 1, 256), quantized(weights, -1, 1, 255), [1, 1], [0, 0], [0, 0], [1, 1]
    )
    return openvino.Model([product], [images])


def _random(side: int, element: ElementType, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if element in ("fp32", "fp16"):
        return rng.random((side, side), dtype=np.float32).astype(NUMPY_TYPES[element], copy=False)
    return rng.integers(0, 100, (side, side)).astype(NUMPY_TYPES[element])


def _last_caches() -> int:
    """Return the bytes of all last-level caches together, as far as Linux tells; 0 elsewhere."""
    found: dict[str, int] = {}
    for folder in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cache/index3"):
        with contextlib.suppress(OSError, ValueError):
            shared = (folder / "shared_cpu_list").read_text().strip()
            found[shared] = int((folder / "size").read_text().strip().removesuffix("K")) << 10
    return sum(found.values())
