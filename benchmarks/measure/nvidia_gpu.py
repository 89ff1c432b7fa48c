"""What the NVIDIA driver's management library (NVML) says of the GPU that a row runs on.

No CUDA is touched: a context made here would be part of what the row's cold start has to pay for.
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import pynvml

_Answer = TypeVar("_Answer")

#: NVML's reasons for clocks below what was asked for. Idleness (0x1) is none.
LIMITS = {
    0x002: "clocks set by the user",
    0x004: "power limit",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "heat (software)",
    0x040: "heat (hardware)",
    0x080: "power brake",
    0x100: "display clocks",
}
_IDLE = 0x001


class NvidiaGpu:
    """One GPU. A figure that it or its driver does not tell is None, and `missing` says why, by the figure's name.

    Args:
        handle: NVML's device handle.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self.missing: dict[str, str] = {}

    def reading(self) -> dict[str, Any]:
        """Return the present clocks (MHz), power and its limit (W), temperature (C) and limits, as in `Reading`."""
        milliwatts = self._ask("gpu_watts", lambda: pynvml.nvmlDeviceGetPowerUsage(self._handle))
        limit = self._ask("gpu_limit_watts", lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(self._handle))
        return {
            "gpu_mhz": self._clock("gpu_mhz", pynvml.NVML_CLOCK_SM),
            "gpu_memory_mhz": self._clock("gpu_memory_mhz", pynvml.NVML_CLOCK_MEM),
            "gpu_watts": None if milliwatts is None else milliwatts / 1e3,
            "gpu_limit_watts": None if limit is None else limit / 1e3,
            "gpu_celsius": self._ask(
                "gpu_celsius", lambda: pynvml.nvmlDeviceGetTemperature(self._handle, pynvml.NVML_TEMPERATURE_GPU)
            ),
            "gpu_limits": self._limits(),
        }

    def watts(self) -> float | None:
        """Return the power that it takes now."""
        milliwatts = self._ask("gpu_watts", lambda: pynvml.nvmlDeviceGetPowerUsage(self._handle))
        return None if milliwatts is None else milliwatts / 1e3

    def joules(self) -> float | None:
        """Return the energy that it has taken since the driver was loaded; GPUs since Volta count it."""
        millijoules = self._ask("energy", lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        return None if millijoules is None else millijoules / 1e3

    def default_limit_watts(self) -> float | None:
        """Return the power limit that it comes with."""
        milliwatts = self._ask(
            "gpu_default_limit", lambda: pynvml.nvmlDeviceGetPowerManagementDefaultLimit(self._handle)
        )
        return None if milliwatts is None else milliwatts / 1e3

    def compute_processes(self) -> int | None:
        """Return how many processes have something of CUDA's on it, this one included."""
        return self._ask("gpu_processes", lambda: len(pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle)))

    def _clock(self, figure: str, kind: int) -> float | None:
        return self._ask(figure, lambda: pynvml.nvmlDeviceGetClockInfo(self._handle, kind))

    def _limits(self) -> list[str]:
        bits = self._ask("gpu_limits", self._limit_bits) or 0
        known = [word for bit, word in LIMITS.items() if bits & bit]
        unknown = bits & ~(sum(LIMITS) | _IDLE)
        return [*known, f"another reason ({unknown:#x})"] if unknown else known

    def _limit_bits(self) -> int:
        try:
            return int(pynvml.nvmlDeviceGetCurrentClocksEventReasons(self._handle))
        except pynvml.NVMLError_FunctionNotFound:  # drivers before 535 have it under its old name
            return int(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle))

    def _ask(self, figure: str, query: Callable[[], _Answer]) -> _Answer | None:
        try:
            return query()
        except pynvml.NVMLError as error:
            self.missing.setdefault(figure, f"NVML: {error}")
            return None


def find_gpu_of_row() -> tuple[NvidiaGpu | None, str]:
    """Return the GPU that CUDA counts first in this process, or None and why NVML cannot tell of it."""
    try:
        pynvml.nvmlInit()
        handle, reason = _find_handle()
    except pynvml.NVMLError as error:
        return None, f"NVML: {error}"
    return (None, reason) if handle is None else (NvidiaGpu(handle), "")


def _find_handle() -> tuple[Any, str]:
    """Find the GPU as CUDA does, by `CUDA_VISIBLE_DEVICES` and `CUDA_DEVICE_ORDER`."""
    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0].strip()
    if first.startswith("MIG-"):
        part = pynvml.nvmlDeviceGetHandleByUUID(first)
        return pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(part), ""
    if first.startswith("GPU-"):  # CUDA takes the beginning of one too
        named = [handle for handle in handles if str(pynvml.nvmlDeviceGetUUID(handle)).startswith(first)]
        return (named[0], "") if len(named) == 1 else (None, f"CUDA_VISIBLE_DEVICES={first} names no one GPU")
    if not first.isdigit() or int(first) >= len(handles):
        return None, f"CUDA_VISIBLE_DEVICES={first} shows CUDA no GPU"
    # By default CUDA counts the fastest first and NVML by their slots, which differs only among GPUs that differ.
    differ = len({pynvml.nvmlDeviceGetName(handle) for handle in handles}) > 1
    if differ and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        return None, "several kinds of GPUs: set CUDA_DEVICE_ORDER=PCI_BUS_ID to say which one is meant"
    return handles[int(first)], ""
