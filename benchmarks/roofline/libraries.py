"""Matrix products and copies by each library: what a machine's peaks are measured with.

A product function returns what makes two square matrices of a given side and then what multiplies them once, or None
where the library has no arithmetic of that precision on the device. Each call ends when the result is there.
"""

import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import psutil  # type: ignore[import-untyped]

from segkc_deploy.cuda_probe import cuda_obstacle
from segkc_deploy.machine import available_cores, available_memory
from segkc_deploy.runners.onnx_runner import preload_cuda_libraries
from segkc_deploy.runners.openvino_runner import compile_for_cpu, import_openvino, layer_precisions

Device = Literal["cpu", "gpu"]
#: Makes the matrices of a side and returns what multiplies them.
MakeProduct = Callable[[int], Callable[[], object]]
#: The bytes that a copy reads, and what runs it.
Copy = tuple[int, Callable[[], object]]

#: Bytes of a copied array: more than four times the last-level caches of most servers.
_COPIED = 1 << 30
#: Width of the images whose 1×1 convolution is a product.
_ROW = 32


def numpy_product(device: Device, precision: str, threads: int | None) -> MakeProduct | None:
    """Multiply by NumPy's BLAS; its threads are set by the environment."""
    if precision != "fp32":
        return None

    def make(side: int) -> Callable[[], object]:
        a, b = _matrix(side, np.float32, 0), _matrix(side, np.float32, 1)
        c = np.empty_like(a)
        return lambda: np.matmul(a, b, out=c)

    return make


def onnxruntime_product(device: Device, precision: str, threads: int | None) -> MakeProduct | None:
    """Multiply by ONNX Runtime, on matrices that stay on the device; integers are accumulated in int32."""
    types = {"fp32": ("float", "float"), "int8": ("uint8", "int8")}
    if device == "gpu":
        types |= {"tf32": ("float", "float"), "fp16": ("float16", "float16"), "int8": ("int8", "int8")}
    elif platform.machine().lower() in ("arm64", "aarch64"):
        types["fp16"] = ("float16", "float16")  # on other CPUs it converts to float32 and back
    if precision not in types:
        return None
    operator, made = ("MatMulInteger", "int32") if precision == "int8" else ("MatMul", types[precision][0])
    session = _session(operator, types[precision], made, device, threads, tf32=precision == "tf32")
    return session and (lambda side: _bound(session, side, device))


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
        values = _matrix(side, np.float32, 0).reshape(request.model_inputs[0].shape)
        return lambda: request.infer({0: values}, share_inputs=True)

    return make


def torch_product(device: Device, precision: str, threads: int | None) -> MakeProduct | None:
    """Multiply by PyTorch."""
    from segkc_deploy.export.torch_matmul import torch_matmul

    return torch_matmul("cuda" if device == "gpu" else "cpu", precision, threads)


def numpy_copy(threads: int | None) -> Copy:
    """Copy a large array in main memory by as many threads, each a part of it."""
    workers = threads or available_cores()
    count = min(_COPIED, min(psutil.virtual_memory().available, available_memory()) // 8) // 8
    # Written to, since the system maps memory that was never written to one page of zeros.
    source, target = np.ones(count), np.ones(count)
    parts = list(zip(np.array_split(target, workers), np.array_split(source, workers), strict=True))
    pool = ThreadPoolExecutor(workers)
    return source.nbytes, lambda: [future.result() for future in [pool.submit(np.copyto, *part) for part in parts]]


def onnxruntime_copy(threads: int | None) -> Copy | None:
    """Copy a matrix within the GPU's memory by ONNX Runtime."""
    side = int((_COPIED / 4) ** 0.5)
    session = _session("Identity", ("float",), "float", "gpu", threads)
    return session and (4 * side**2, _bound(session, side, "gpu"))


def torch_copy(threads: int | None) -> Copy | None:
    """Copy an array within the GPU's memory by PyTorch."""
    from segkc_deploy.export.torch_matmul import gpu_copy

    return gpu_copy(_COPIED)


def _session(
    operator: str, given: tuple[str, ...], made: str, device: Device, threads: int | None, tf32: bool = False
) -> Any | None:
    """Return a session of one operator of which nothing runs elsewhere than on `device`, or None without CUDA."""
    import onnxruntime
    from onnx import parser

    inputs = dict(zip("ab", given, strict=False))
    signature = ", ".join(f"{kind}[n, n] {name}" for name, kind in inputs.items())
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> one_operator ({signature}) => ({made}[n, n] c)'
        f" {{ c = {operator}({', '.join(inputs)}) }}"
    ).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    if device == "cpu":
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    cuda = "CUDAExecutionProvider"
    if cuda not in onnxruntime.get_available_providers() or cuda_obstacle():
        return None
    preload_cuda_libraries(onnxruntime)
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = onnxruntime.InferenceSession(model, options, [(cuda, {"use_tf32": str(int(tf32))})], enable_fallback=0)
    return session if session.get_providers()[0] == cuda else None


def _bound(session: Any, side: int, device: Device) -> Callable[[], Any]:
    """Return what runs `session` on square matrices that stay on `device`, and returns the result as an OrtValue."""
    from onnxruntime import OrtValue

    place, binding = "cuda" if device == "gpu" else "cpu", session.io_binding()
    for seed, value in enumerate(session.get_inputs()):
        matrix = _matrix(side, _numpy_type(value), seed)
        binding.bind_ortvalue_input(value.name, OrtValue.ortvalue_from_numpy(matrix, place, 0))
    (output,) = session.get_outputs()
    result = OrtValue.ortvalue_from_shape_and_type((side, side), _numpy_type(output), place, 0)
    binding.bind_ortvalue_output(output.name, result)

    def run() -> Any:
        session.run_with_iobinding(binding)
        return result

    return run


def _numpy_type(value: Any) -> Any:
    name = value.type.removeprefix("tensor(").removesuffix(")")
    return np.dtype({"float": "float32"}.get(name, name)).type


def _openvino_model(openvino: Any, precision: str, side: int) -> Any:
    """Return a model of a product; in INT8 a 1×1 convolution, which is twice as fast as a product proper."""
    from openvino import opset13 as ops

    constant = _matrix(side, np.float32, 1)
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


def _matrix(side: int, kind: Any, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if np.issubdtype(kind, np.floating):
        return rng.random((side, side), dtype=np.float32).astype(kind, copy=False)
    return rng.integers(0, 100, (side, side), dtype=np.int8).astype(kind)
