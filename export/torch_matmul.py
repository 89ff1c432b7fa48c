"""Matrix products and copies by PyTorch: what a machine's peak is measured with."""

from collections.abc import Callable

import torch
from torch import Tensor

#: Makes square matrices of a side and returns what multiplies them and waits for the result.
MakeProduct = Callable[[int], Callable[[], Tensor]]

_TYPES = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
#: The lowest compute capability of NVIDIA GPUs with matrix units for a precision; all have fp32.
_GPU_SINCE = {"fp32": (0, 0), "fp16": (7, 0), "tf32": (8, 0), "bf16": (8, 0), "int8": (7, 5), "fp8": (8, 9)}


def torch_matmul(device: str, precision: str, threads: int | None) -> MakeProduct | None:
    """Return what makes matrices of a side and multiplies them; None if the device lacks the arithmetic.

    Args:
        device: `cpu` or `cuda`.
        precision: `fp32`, `tf32`, `fp16`, `bf16`, `int8` or `fp8`.
        threads: of the CPU, for the whole process; PyTorch's own default if None.
    """
    if not (_on_cpu(precision) if device == "cpu" else _on_gpu(precision)):
        return None
    if threads is not None:
        torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    return lambda side: _finished(multiply(precision, side, device), device)


def gpu_copy(at_most: int) -> tuple[int, Callable[[], Tensor]] | None:
    """Return the bytes of an array on the GPU and what copies it, or None without a GPU.

    `at_most` is the largest size in bytes; a quarter of the free memory if that is less.
    """
    if not torch.cuda.is_available():
        return None
    size = min(at_most, torch.cuda.mem_get_info()[0] // 4)
    source = torch.ones(size, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return size, _finished(lambda: target.copy_(source), "cuda")


def multiply(precision: str, side: int, device: str) -> Callable[[], Tensor]:
    """Return what multiplies two random matrices on `device`: int8 into int32, fp8 into bf16, else in their type."""
    shape = (side, side)
    if precision == "int8":
        whole = [torch.randint(-100, 100, shape, dtype=torch.int8, device=device) for _ in range(2)]
        return lambda: torch._int_mm(whole[0], whole[1].t())
    if precision == "fp8":
        small = [torch.rand(shape, device=device).to(torch.float8_e4m3fn) for _ in range(2)]
        one = torch.ones((), device=device)
        return lambda: torch._scaled_mm(
            small[0], small[1].t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True
        )
    a, b = (torch.rand(shape, device=device).to(_TYPES[precision]) for _ in range(2))
    c = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=c)


def _on_cpu(precision: str) -> bool:
    if precision == "fp32":
        return True
    if not torch.backends.mkldnn.is_available() or precision not in ("fp16", "bf16"):
        return False
    return bool(getattr(torch.ops.mkldnn, f"_is_mkldnn_{precision}_supported")())


def _on_gpu(precision: str) -> bool:
    # AMD's GPUs count differently, and all of them are above.
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= _GPU_SINCE.get(precision, (99, 0))


def _finished(run: Callable[[], Tensor], device: str) -> Callable[[], Tensor]:
    """Return what calls `run` and waits for the GPU."""

    def once() -> Tensor:
        result = run()
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    return once
