"""Matrix products and copies by each library, on the CPU and the GPU: what a machine's peaks are measured with.

A product function returns what makes two square matrices of a given side and then what multiplies them once, or None
if the library has no arithmetic of that precision on the device. Each call ends when the result is there.
"""

import contextlib
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil  # type: ignore[import-untyped]

from segkc_deploy.cuda_probe import cuda_obstacle
from segkc_deploy.machine import available_cores
from segkc_deploy.runners.onnx_runner import preload_cuda_libraries
from segkc_deploy.runners.openvino_runner import compile_for_cpu, import_openvino, layer_precisions

Device = Literal["cpu", "gpu"]
#: Makes the matrices of a side and returns what multiplies them.
MakeProduct = Callable[[int], Callable[[], object]]
#: The bytes that a copy reads, and what runs it.
Copy = tuple[int, Callable[[], object]]

_CUDA = "CUDAExecutionProvider"
_NUMPY_TYPES = {"fp32": np.float32, "fp16": np.float16, "uint8": np.uint8, "int8": np.int8, "int32": np.int32}
#: Least bytes of a copied array on the CPU, which is also four times as large as the last-level caches, and the side of
#: a copied float32 matrix on the GPU.
_CPU_COPY, _GPU_SIDE = 256 << 20, 16384
#: Width of the images whose 1×1 convolution is a product.
_ROW = 32


def numpy_product(device: Device, precision: str, threads: int | None) -> MakeProduct | None:
    """Multiply by NumPy's BLAS; its threads are set by the environment."""
    if precision != "fp32":
        return None

    def make(side: int) -> Callable[[], object]:
        a, b = _matrix(side, "fp32", 0), _matrix(side, "fp32", 1)
        c = np.empty_like(a)
        return lambda: np.matmul(a, b, out=c)

    return make


def onnxruntime_product(device: Device, precision: str, threads: int | None) -> MakeProduct | None:
    """Multiply by ONNX Runtime, on matrices that stay on the device."""
    from segkc_deploy.benchmarks.roofline.matmul_model import ElementType, matmul_model

    types: dict[str, tuple[ElementType, ElementType]] = {"fp32": ("fp32", "fp32"), "int8": ("uint8", "int8")}
    if device == "gpu":
        types |= {"tf32": ("fp32", "fp32"), "fp16": ("fp16", "fp16"), "int8": ("int8", "int8")}
    elif platform.machine().lower() in ("arm64", "aarch64"):
        types["fp16"] = ("fp16", "fp16")  # on other CPUs it converts to float32 and back
    if precision not in types:
        return None
    left, right = types[precision]
    session = _session(matmul_model(left, right), device, threads, tf32=precision == "tf32")
    made = "int32" if precision == "int8" else left
    return session and (lambda side: bind(session, side, (left, right), made, device))


def openvino_product(device: Device, precision: str, threads: int | None) -> MakeProduct | None:
    """Multiply by OpenVINO on the CPU, where it really computes in that precision."""
    if precision not in ("fp32", "fp16", "bf16", "int8"):
        return None
    openvino = import_openvino()

    def compiled(side: int) -> Any:
        return compile_for_cpu(openvino, _openvino_model(openvino, precision, side), threads)

    if precision not in layer_precisions(compiled(_ROW)):
        return None

    def make(side: int) -> Callable[[], object]:
        request = compiled(side).create_infer_request()
        values = _matrix(side, "fp32", 0).reshape(request.model_inputs[0].shape)
        return lambda: request.infer({0: values}, share_inputs=True)

    return make


def torch_product(device: Device, precision: str, threads: int | None) -> MakeProduct | None:
    """Multiply by PyTorch."""
    from segkc_deploy.export.torch_matmul import torch_matmul

    return torch_matmul("cuda" if device == "gpu" else "cpu", precision, threads)


def numpy_copy(threads: int | None) -> Copy:
    """Copy a large array in main memory by as many threads, each a part of it."""
    workers = threads or available_cores()
    size = max(_CPU_COPY, 4 * _last_level_caches())
    count = min(size, psutil.virtual_memory().available // 8) // 8
    # Written to, since the system maps memory that was never written to one page of zeros.
    source, target = np.ones(count), np.ones(count)
    parts = list(zip(np.array_split(target, workers), np.array_split(source, workers), strict=True))
    pool = ThreadPoolExecutor(workers)
    return source.nbytes, lambda: [future.result() for future in [pool.submit(np.copyto, *part) for part in parts]]


def torch_copy(threads: int | None) -> Copy | None:
    """Copy an array within the GPU's memory by PyTorch."""
    from segkc_deploy.export.torch_matmul import gpu_copy

    return gpu_copy(4 * _GPU_SIDE**2)


def onnxruntime_copy(threads: int | None) -> Copy | None:
    """Copy a matrix within the GPU's memory by ONNX Runtime."""
    from segkc_deploy.benchmarks.roofline.matmul_model import copy_model

    session = _session(copy_model(), "gpu", threads)
    return session and (4 * _GPU_SIDE**2, bind(session, _GPU_SIDE, ("fp32",), "fp32", "gpu"))


def _session(model: bytes, device: Device, threads: int | None, tf32: bool = False) -> Any | None:
    """Return a session of which nothing runs elsewhere than on `device`, or None without CUDA."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    if device == "cpu":
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    if _CUDA not in onnxruntime.get_available_providers() or cuda_obstacle():
        return None
    preload_cuda_libraries(onnxruntime)
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    providers = [(_CUDA, {"use_tf32": str(int(tf32))})]
    session = onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
    return session if session.get_providers()[0] == _CUDA else None


def bind(session: Any, side: int, given: tuple[str, ...], made: str, device: Device) -> Callable[[], Any]:
    """Return what runs `session` on matrices that stay on `device`, and returns the result as an OrtValue."""
    from onnxruntime import OrtValue

    place = "cuda" if device == "gpu" else "cpu"
    binding = session.io_binding()
    for seed, (value, kind) in enumerate(zip(session.get_inputs(), given, strict=True)):
        binding.bind_ortvalue_input(value.name, OrtValue.ortvalue_from_numpy(_matrix(side, kind, seed), place, 0))
    result = OrtValue.ortvalue_from_shape_and_type((side, side), _NUMPY_TYPES[made], place, 0)
    binding.bind_ortvalue_output("c", result)

    def run() -> Any:
        session.run_with_iobinding(binding)
        return result

    return run


def _openvino_model(openvino: Any, precision: str, side: int) -> Any:
    """Return a model of a product; in INT8 a 1×1 convolution, which is twice as fast as a product proper."""
    from openvino import opset13 as ops

    constant = _matrix(side, "fp32", 1)
    if precision != "int8":
        kind = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}[precision]
        matrix = ops.parameter([side, side], np.float32)
        product = ops.matmul(ops.convert(matrix, kind), ops.convert(ops.constant(constant), kind), False, True)
        return openvino.Model([ops.convert(product, "f32")], [matrix])

    def quantized(node: Any, low: float, high: float, levels: int) -> Any:
        ends = [ops.constant(np.float32(end)) for end in (low, high)]
        return ops.fake_quantize(node, *ends, *ends, levels)

    images = ops.parameter([1, side, side // _ROW, _ROW], np.float32)
    weights = quantized(ops.constant(constant[:, :, None, None]), -1, 1, 255)
    product = ops.convolution(quantized(images, 0, 1, 256), weights, [1, 1], [0, 0], [0, 0], [1, 1])
    return openvino.Model([product], [images])


def _last_level_caches() -> int:
    """Return the bytes of all last-level caches together as Linux reports them; 0 on other systems."""
    found: dict[str, int] = {}
    for folder in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cache/index3"):
        with contextlib.suppress(OSError, ValueError):
            size = (folder / "size").read_text().strip().removesuffix("K")
            found[(folder / "shared_cpu_list").read_text()] = int(size) << 10
    return sum(found.values())


def _matrix(side: int, kind: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind in ("fp32", "fp16"):
        return rng.random((side, side), dtype=np.float32).astype(_NUMPY_TYPES[kind], copy=False)
    return rng.integers(0, 100, (side, side), dtype=np.int8).astype(_NUMPY_TYPES[kind])
