"""Matrix products and copies by PyTorch: what a machine's peak is measured with."""

from collections.abc import Callable

import torch
from torch import Tensor

#: Makes square matrices of a side and returns what multiplies them and gives the seconds that one product took.
MakeProduct = Callable[[int], Callable[[], float]]

_TYPES = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
#: The least compute capability of NVIDIA GPUs that have matrix units for a precision; all have fp32.
_GPU_SINCE = {"fp32": (0, 0), "fp16": (7, 0), "tf32": (8, 0), "bf16": (8, 0), "int8": (7, 5), "fp8": (8, 9)}
#: Products between two events; one alone would be as long as its launch on a small matrix.
_RUNS = 5


def cpu_product(precision: str, threads: int | None) -> Callable[[int], Callable[[], Tensor]] | None:
    """Return what makes matrices of a side and what then multiplies them; None where this CPU lacks the arithmetic."""
    if precision != "fp32" and not _in_hardware(precision):
        return None
    if threads is not None:
        torch.set_num_threads(threads)
    return lambda side: multiply(precision, side, "cpu")


def _in_hardware(precision: str) -> bool:
    if not torch.backends.mkldnn.is_available() or precision not in ("fp16", "bf16"):
        return False
    supported = getattr(torch.ops.mkldnn, f"_is_mkldnn_{precision}_supported")
    return bool(supported())


def gpu_product(precision: str) -> MakeProduct | None:
    """Return what makes matrices on the GPU; None where PyTorch sees no GPU or it lacks the arithmetic."""
    if not torch.cuda.is_available() or precision not in _GPU_SINCE:
        return None
    # AMD's GPUs count differently; PyTorch gives theirs in the same way, and all of them lie above.
    if torch.cuda.get_device_capability() < _GPU_SINCE[precision]:
        return None
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")

    def make(side: int) -> Callable[[], float]:
        return _by_events(multiply(precision, side, "cuda"))

    return make


def gpu_copy(at_most: int) -> tuple[int, Callable[[], float]] | None:
    """Return the bytes of an array on the GPU, and what copies it and gives the seconds; None without a GPU.

    `at_most` is the largest size in bytes; a fourth of what is free if that is less.
    """
    if not torch.cuda.is_available():
        return None
    free, _ = torch.cuda.mem_get_info()
    size = min(at_most, free // 4)
    source = torch.ones(size, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return size, _by_events(lambda: target.copy_(source))


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


def _by_events(run: Callable[[], object]) -> Callable[[], float]:
    """Return what runs `run` on the GPU and gives its seconds by the GPU's own clock."""

    def once() -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(_RUNS):
            run()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3 / _RUNS

    return once
