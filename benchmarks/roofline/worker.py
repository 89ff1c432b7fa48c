"""Measures a machine's peaks with one library: `python -m segkc_deploy.benchmarks.roofline.worker JOB.json RATES.json`.

It has a process of its own: no other library's threads are there, and a crash loses the rates of that library alone.
Each rate is written as soon as it is measured.
"""

import time
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from segkc_deploy import atomic
from segkc_deploy.benchmarks.measure.worker_process import work_on_job
from segkc_deploy.benchmarks.roofline import libraries
from segkc_deploy.benchmarks.roofline.libraries import Copy, Device, MakeProduct

LIBRARIES: dict[Device, tuple[str, ...]] = {
    "cpu": ("numpy", "onnxruntime", "openvino", "torch"),
    "gpu": ("torch", "onnxruntime"),
}
_PRODUCTS: dict[str, Callable[[Device, str, int | None], MakeProduct | None]] = {
    "numpy": libraries.numpy_product,
    "onnxruntime": libraries.onnxruntime_product,
    "openvino": libraries.openvino_product,
    "torch": libraries.torch_product,
}
_COPIES: dict[tuple[Device, str], Callable[[int | None], Copy | None]] = {
    ("cpu", "numpy"): libraries.numpy_copy,
    ("gpu", "torch"): libraries.torch_copy,
    ("gpu", "onnxruntime"): libraries.onnxruntime_copy,
}
#: Sides of the matrices: doubled from the smallest on, until one product takes `_LONG_S`.
_SMALLEST = 512
_LARGEST: dict[Device, int] = {"cpu": 8192, "gpu": 16384}
_LONG_S = 0.02
_LEAST_RUNS = 3


class PeakJob(BaseModel):
    """What to measure with which library; `seconds` for each size of a product and for the copy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    library: str
    device: Device
    precisions: tuple[str, ...]
    threads: int | None
    seconds: float


class Rate(BaseModel):
    """1e9 operations or bytes per second, and how they were measured."""

    giga_per_s: float
    how: str


class Rates(BaseModel):
    """Products by precision (operations) and the copy (bytes), where the library has them."""

    products: dict[str, Rate] = Field(default_factory=dict)
    copied: Rate | None = None


def measure_rates(job: PeakJob, rates_file: Path) -> None:
    """Measure what `job` asks for and write `Rates` to `rates_file`."""
    rates = Rates()
    copy = _COPIES.get((job.device, job.library))
    if copy is not None and (found := copy(job.threads)) is not None:
        size, run = found
        speed = 2 * size / fastest_of(run, job.seconds) / 1e9  # bytes read and written
        rates.copied = Rate(giga_per_s=speed, how=f"copy of {size >> 20} MiB by {job.library}")
        atomic.write_text(rates_file, rates.model_dump_json())
    for precision in job.precisions:
        make = _PRODUCTS[job.library](job.device, precision, job.threads)
        if make is not None:
            rates.products[precision] = best_product(make, job.library, job.seconds, _LARGEST[job.device])
            atomic.write_text(rates_file, rates.model_dump_json())


def best_product(make: MakeProduct, library: str, seconds: float, largest: int) -> Rate:
    """Return the most operations per second, 2 n³ for a product of n×n matrices, for sides up to `largest`."""
    best, side = Rate(giga_per_s=0.0, how=library), _SMALLEST
    while True:
        fastest = fastest_of(make(side), seconds)
        rate = 2 * side**3 / fastest / 1e9
        if rate > best.giga_per_s:
            best = Rate(giga_per_s=rate, how=f"{library}, {side}×{side}")
        if fastest >= _LONG_S or 2 * side > largest:
            return best
        side *= 2


def fastest_of(run: Callable[[], object], seconds: float) -> float:
    """Return the shortest time of `run` in seconds; the first call is not counted, and at least three are."""
    run()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < _LEAST_RUNS or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    work_on_job(PeakJob, measure_rates)
