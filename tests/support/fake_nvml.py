"""A pretended NVML: GPUs whose answers a test sets, under the names and signatures of the real `pynvml`."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pynvml
import pytest


@dataclass
class FakeGpu:
    """One GPU; `unsupported` holds the names of the functions that it refuses, `missing` those of an older driver.

    Power is in mW, energy in mJ, as NVML has them.
    """

    name: str = "NVIDIA H200"
    uuid: str = "GPU-aaaa1111-0000-0000-0000-000000000000"
    sm_mhz: int = 1980
    memory_mhz: int = 3201
    milliwatts: int = 410_500
    limit: int = 700_000
    default_limit: int = 700_000
    celsius: int = 55
    reasons: int = 0
    millijoules: int = 0
    processes: list[int] = field(default_factory=list)
    unsupported: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)


class FakeNvml:
    """What `install` puts in the place of the library; `parts` are MIG instances by UUID with their GPUs."""

    def __init__(self, gpus: list[FakeGpu]) -> None:
        self.gpus = gpus
        self.parts: dict[str, FakeGpu] = {}

    def functions(self) -> dict[str, Callable[..., Any]]:
        return {
            "nvmlInit": lambda: None,
            "nvmlDeviceGetCount": lambda: len(self.gpus),
            "nvmlDeviceGetHandleByIndex": lambda index: self.gpus[index],
            "nvmlDeviceGetHandleByUUID": lambda uuid: ("part", self.parts[uuid]),
            "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": lambda handle: handle[1],
            "nvmlDeviceGetName": lambda handle: handle.name,
            "nvmlDeviceGetUUID": lambda handle: handle.uuid,
            "nvmlDeviceGetClockInfo": self._clock,
            "nvmlDeviceGetPowerUsage": self._answer("nvmlDeviceGetPowerUsage", "milliwatts"),
            "nvmlDeviceGetEnforcedPowerLimit": self._answer("nvmlDeviceGetEnforcedPowerLimit", "limit"),
            "nvmlDeviceGetPowerManagementDefaultLimit": self._answer(
                "nvmlDeviceGetPowerManagementDefaultLimit", "default_limit"
            ),
            "nvmlDeviceGetTemperature": self._temperature,
            "nvmlDeviceGetCurrentClocksEventReasons": self._answer("nvmlDeviceGetCurrentClocksEventReasons", "reasons"),
            "nvmlDeviceGetCurrentClocksThrottleReasons": self._answer(
                "nvmlDeviceGetCurrentClocksThrottleReasons", "reasons"
            ),
            "nvmlDeviceGetTotalEnergyConsumption": self._answer("nvmlDeviceGetTotalEnergyConsumption", "millijoules"),
            "nvmlDeviceGetComputeRunningProcesses": self._answer("nvmlDeviceGetComputeRunningProcesses", "processes"),
        }

    def _answer(self, function: str, attribute: str) -> Callable[[FakeGpu], Any]:
        def answer(handle: FakeGpu) -> Any:
            if function in handle.missing:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
            if function in handle.unsupported:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
            return getattr(handle, attribute)

        return answer

    def _clock(self, handle: FakeGpu, type: int) -> int:
        kinds = {pynvml.NVML_CLOCK_SM: "sm_mhz", pynvml.NVML_CLOCK_MEM: "memory_mhz"}
        return int(self._answer("nvmlDeviceGetClockInfo", kinds[type])(handle))

    def _temperature(self, handle: FakeGpu, sensor: int) -> int:
        assert sensor == pynvml.NVML_TEMPERATURE_GPU
        return int(self._answer("nvmlDeviceGetTemperature", "celsius")(handle))


def install(monkeypatch: pytest.MonkeyPatch, *gpus: FakeGpu) -> FakeNvml:
    """Put GPUs into `pynvml`. A name that it does not have, or that takes other arguments, is an error here."""
    nvml = FakeNvml(list(gpus))
    for name, function in nvml.functions().items():
        real, ours = (inspect.signature(one).parameters for one in (getattr(pynvml, name), function))
        assert len([parameter for parameter in real.values() if parameter.default is parameter.empty]) == len(ours), (
            name
        )
        monkeypatch.setattr(pynvml, name, function)
    return nvml
