"""What NVML says of the row's GPU: which GPU, what is read of it, and what becomes of figures it does not tell."""

import pynvml
import pytest
from fake_nvml import FakeGpu, install

from segkc_deploy.benchmarks.measure import nvidia_gpu
from segkc_deploy.benchmarks.measure.nvidia_gpu import NvidiaGpu, find_gpu_of_row
from segkc_deploy.benchmarks.schema import Reading


@pytest.fixture(autouse=True)
def _no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)


def found() -> NvidiaGpu:
    gpu, reason = find_gpu_of_row()
    assert gpu is not None, reason
    return gpu


def test_everything_that_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeGpu(reasons=0x1 | 0x4 | 0x40, millijoules=12_500, processes=[7, 8])
    install(monkeypatch, fake)
    gpu = found()
    assert gpu.reading() == {
        "gpu_mhz": 1980, "gpu_memory_mhz": 3201, "gpu_watts": 410.5, "gpu_limit_watts": 700.0, "gpu_celsius": 55,
        "gpu_limits": ["power limit", "heat (hardware)"],
    }  # fmt: skip
    assert gpu.reading().keys() <= Reading.model_fields.keys()
    assert (gpu.watts(), gpu.joules(), gpu.default_limit_watts(), gpu.compute_processes()) == (410.5, 12.5, 700.0, 2)
    assert gpu.missing == {}
    fake.reasons = 0x1
    assert gpu.reading()["gpu_limits"] == []  # idleness is none
    fake.reasons = 0x800 | 0x20
    assert gpu.reading()["gpu_limits"] == ["heat (software)", "another reason (0x800)"]


def test_the_words_are_those_of_nvml() -> None:
    named = {
        "ApplicationsClocksSetting": "clocks set by the user", "SwPowerCap": "power limit",
        "HwSlowdown": "hardware slowdown", "SyncBoost": "sync boost", "SwThermalSlowdown": "heat (software)",
        "HwThermalSlowdown": "heat (hardware)", "HwPowerBrakeSlowdown": "power brake",
        "DisplayClockSetting": "display clocks",
    }  # fmt: skip
    assert {getattr(pynvml, f"nvmlClocksEventReason{name}"): word for name, word in named.items()} == nvidia_gpu.LIMITS
    assert sum(nvidia_gpu.LIMITS) | pynvml.nvmlClocksEventReasonGpuIdle == pynvml.nvmlClocksEventReasonAll


def test_older_drivers_have_the_old_name(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeGpu(reasons=0x8, missing={"nvmlDeviceGetCurrentClocksEventReasons"}))
    gpu = found()
    assert gpu.reading()["gpu_limits"] == ["hardware slowdown"]
    assert gpu.missing == {}


def test_what_a_gpu_does_not_tell_is_null_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    functions = {
        "nvmlDeviceGetClockInfo", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetEnforcedPowerLimit",
        "nvmlDeviceGetTemperature", "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetTotalEnergyConsumption",
        "nvmlDeviceGetPowerManagementDefaultLimit", "nvmlDeviceGetComputeRunningProcesses",
    }  # fmt: skip
    install(monkeypatch, FakeGpu(unsupported=functions))
    gpu = found()
    reading = gpu.reading()
    assert reading.pop("gpu_limits") == []
    assert set(reading.values()) == {None}
    assert (gpu.watts(), gpu.joules(), gpu.default_limit_watts(), gpu.compute_processes()) == (None,) * 4
    assert set(gpu.missing.values()) == {"NVML: Not Supported"}
    assert {*reading, "gpu_limits", "energy"} <= gpu.missing.keys()


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    assert find_gpu_of_row() == (None, "NVML: NVML Shared Library Not Found")


H200, A10 = "NVIDIA H200", "NVIDIA A10"


@pytest.mark.parametrize(
    ("names", "environment", "index"),
    [
        ([H200], {}, 0),
        ([H200, H200], {"CUDA_VISIBLE_DEVICES": "1"}, 1),
        ([H200, H200], {"CUDA_VISIBLE_DEVICES": " 1 ,0"}, 1),
        ([A10, H200], {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, 1),
        ([A10, H200], {"CUDA_VISIBLE_DEVICES": "GPU-1"}, 1),
        ([A10, H200], {"CUDA_VISIBLE_DEVICES": "MIG-1"}, 1),
    ],
)
def test_it_is_the_gpu_that_cuda_counts_first(
    names: list[str], environment: dict[str, str], index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = [FakeGpu(name, uuid=f"GPU-{place}234", sm_mhz=1000 + place) for place, name in enumerate(names)]
    nvml = install(monkeypatch, *gpus)
    nvml.parts = {"MIG-1": gpus[-1]}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert found().reading()["gpu_mhz"] == 1000 + index


@pytest.mark.parametrize(
    ("names", "environment", "told"),
    [
        ([A10, H200], {}, "several kinds of GPUs: set CUDA_DEVICE_ORDER=PCI_BUS_ID"),
        ([H200], {"CUDA_VISIBLE_DEVICES": ""}, "shows CUDA no GPU"),
        ([H200], {"CUDA_VISIBLE_DEVICES": "-1"}, "shows CUDA no GPU"),
        ([H200], {"CUDA_VISIBLE_DEVICES": "1"}, "CUDA_VISIBLE_DEVICES=1 shows CUDA no GPU"),
        ([H200, H200], {"CUDA_VISIBLE_DEVICES": "GPU-"}, "names no one GPU"),
        ([], {}, "shows CUDA no GPU"),
    ],
)
def test_where_it_is_not_known_which_one(
    names: list[str], environment: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, *(FakeGpu(name) for name in names))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    gpu, reason = find_gpu_of_row()
    assert gpu is None
    assert told in reason


def _no_nvml() -> str:
    gpu, reason = find_gpu_of_row()
    return "" if gpu else reason


@pytest.mark.gpu
@pytest.mark.skipif(bool(_no_nvml()), reason=_no_nvml() or "runs")
def test_a_real_gpu_is_read() -> None:
    gpu = found()
    reading = gpu.reading()
    assert reading["gpu_mhz"] > 0
    assert 0 < reading["gpu_watts"] <= 1.2 * reading["gpu_limit_watts"]
    assert 0 < reading["gpu_celsius"] < 110
