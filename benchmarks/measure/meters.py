"""Energy meters: of the GPU through its driver, of the processors through Linux's RAPL counters."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

from segkc_deploy.benchmarks.measure.at_intervals import at_intervals
from segkc_deploy.benchmarks.measure.nvidia_gpu import NvidiaGpu

POWERCAP = Path("/sys/class/powercap")
#: How long the idle power is measured, and how often a power is read that has no counter.
IDLE_S = 2.0
_POWER_INTERVAL_S = 0.1
#: How often processors' counters are read; at full power some begin anew after a minute.
_WRAP_INTERVAL_S = 10.0


class Meter(Protocol):
    """`joules` counts up from any start; the difference of two calls is the energy between. None if it cannot be read.

    `source` says what is counted and how.
    """

    source: str

    def joules(self) -> float | None: ...


class GpuCounter:
    """The GPU's own energy counter."""

    source = "NVML energy counter of the GPU"

    def __init__(self, gpu: NvidiaGpu) -> None:
        self._gpu = gpu

    def joules(self) -> float | None:
        return self._gpu.joules()


class GpuPower:
    """The GPU's power summed up over time (trapezoids), for GPUs without a counter; exact only if read often."""

    source = f"NVML power of the GPU, read every {_POWER_INTERVAL_S:g} s"

    def __init__(self, gpu: NvidiaGpu) -> None:
        self._gpu = gpu
        self._lock = threading.Lock()
        self._joules = 0.0
        self._last: tuple[float, float] | None = None

    def joules(self) -> float | None:
        """Read the power once more and return the sum so far; None if the power cannot be read."""
        with self._lock:
            watts, now = self._gpu.watts(), time.perf_counter()
            if watts is None:
                return None
            if self._last is not None:
                before, watts_before = self._last
                self._joules += (now - before) * (watts + watts_before) / 2
            self._last = now, watts
            return self._joules


class Rapl:
    """The energy counters of all processor packages; other processes' energy is in them.

    Args:
        packages: their folders in `/sys/class/powercap`.
    """

    def __init__(self, packages: list[Path]) -> None:
        self.source = f"RAPL, {len(packages)} processor package{'s' if len(packages) > 1 else ''}"
        self._packages = packages
        self._wraps_uj = [int((package / "max_energy_range_uj").read_text()) for package in packages]
        self._lock = threading.Lock()
        self._last_uj = self._read()
        self._total_uj = 0

    def joules(self) -> float | None:
        """Return the sum since the first call. A counter may begin anew once between two calls (after minutes)."""
        with self._lock:
            now = self._read()
            for value, last, wrap in zip(now, self._last_uj, self._wraps_uj, strict=True):
                self._total_uj += value - last if value >= last else value - last + wrap
            self._last_uj = now
            return self._total_uj / 1e6

    def _read(self) -> list[int]:
        return [int((package / "energy_uj").read_text()) for package in self._packages]


@contextmanager
def open_meter(gpu: NvidiaGpu | None, root: Path = POWERCAP) -> Iterator[tuple[Meter | None, str]]:
    """Give the meter of a GPU, or of the processors; or None and why there is none and what would help.

    Args:
        gpu: the GPU that the row runs on; None for the processors.
        root: where Linux lists the processors' counters.
    """
    if gpu is None:
        rapl, missing = _processors_meter(root)
        with at_intervals(rapl.joules, lambda: _WRAP_INTERVAL_S) if rapl else nullcontext():
            yield rapl, missing
    elif gpu.joules() is not None:
        yield GpuCounter(gpu), ""
    elif gpu.watts() is not None:
        meter = GpuPower(gpu)
        with at_intervals(meter.joules, lambda: _POWER_INTERVAL_S):
            yield meter, ""
    else:
        yield None, gpu.missing["gpu_watts"]


def _processors_meter(root: Path) -> tuple[Rapl | None, str]:
    packages = [
        folder
        for folder in sorted(root.glob("intel-rapl:*"))  # AMD's too
        if folder.name.count(":") == 1 and (folder / "name").read_text().startswith("package")
    ]
    if not packages:
        return None, f"no RAPL counter of the processors in {root}; virtual machines and most Arm systems have none"
    for package in packages:
        counter = package / "energy_uj"
        if not os.access(counter, os.R_OK):
            return None, f"not readable: {counter}; allow it with: sudo chmod a+r {root}/intel-rapl:*/energy_uj"
    return Rapl(packages), ""


def idle_watts(meter: Meter, seconds: float = IDLE_S) -> float | None:
    """Do nothing for a while and return the mean power meanwhile."""
    before, began = meter.joules(), time.perf_counter()
    time.sleep(seconds)
    after, lasted = meter.joules(), time.perf_counter() - began
    return None if before is None or after is None else (after - before) / lasted
