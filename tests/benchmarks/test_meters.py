"""Energy meters against made-up counters, powers and times."""

import time
from pathlib import Path

import pynvml
import pytest
from fake_nvml import FakeGpu, install

from segkc_deploy.benchmarks.measure import meters
from segkc_deploy.benchmarks.measure.meters import GpuCounter, GpuPower, Rapl, idle_watts, open_meter
from segkc_deploy.benchmarks.measure.nvidia_gpu import NvidiaGpu, find_gpu_of_row


class Clock:
    """Stands in for the module `time` in the meters."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def perf_counter(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def counter(root: Path, folder: str, name: str, microjoules: int, most: int = 1_000_000) -> Path:
    made = root / folder
    made.mkdir(parents=True)
    (made / "name").write_text(name + "\n")
    (made / "energy_uj").write_text(f"{microjoules}\n")
    (made / "max_energy_range_uj").write_text(f"{most}\n")
    return made / "energy_uj"


@pytest.fixture
def powercap(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A tree with two packages, and its counters, among those of other parts."""
    first = counter(tmp_path, "intel-rapl:0", "package-0", 100_000)
    second = counter(tmp_path, "intel-rapl:1", "package-1", 900_000)
    counter(tmp_path, "intel-rapl:0:0", "core", 5)
    counter(tmp_path, "intel-rapl:2", "psys", 7)
    counter(tmp_path, "intel-rapl-mmio:0", "package-0", 9)
    return tmp_path, first, second


def test_packages_are_counted_alone_and_counters_wrap(powercap: tuple[Path, Path, Path]) -> None:
    root, first, second = powercap
    with open_meter(None, root) as (meter, reason):
        assert isinstance(meter, Rapl)
        assert reason == ""
        assert meter.source == "RAPL, 2 processor packages"
        assert meter.joules() == 0.0
        first.write_text("300000")
        second.write_text("50000")  # 100,000 to its end and 50,000 from 0
        assert meter.joules() == pytest.approx(0.2 + 0.15)
        second.write_text("60000")
        assert meter.joules() == pytest.approx(0.36)


def test_a_counter_that_begins_anew_several_times_is_followed(
    powercap: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, first, _ = powercap
    monkeypatch.setattr(meters, "_WRAP_INTERVAL_S", 0.01)
    with open_meter(None, root) as (meter, _):
        assert isinstance(meter, Rapl)
        for value in (600_000, 200_000, 800_000, 100_000):  # twice past 1,000,000
            (root / "new").write_text(str(value))
            (root / "new").replace(first)  # never empty, as the kernel's file never is
            # Followed when the thread has seen it; nobody else asks.
            while meter._last_uj[0] != value:
                time.sleep(0.002)
        assert meter.joules() == pytest.approx(0.5 + 0.6 + 0.6 + 0.3)


def test_no_counters(tmp_path: Path) -> None:
    counter(tmp_path, "intel-rapl:2", "psys", 7)
    for root in (tmp_path, tmp_path / "nowhere"):
        with open_meter(None, root) as (meter, reason):
            assert meter is None
            assert reason.startswith(f"no RAPL counter of the processors in {root}")


def test_counters_that_only_root_may_read(powercap: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root, first, _ = powercap
    monkeypatch.setattr(meters.os, "access", lambda path, mode: path != first)
    with open_meter(None, root) as (meter, reason):
        assert meter is None
        assert reason == f"not readable: {first}; allow it with: sudo chmod a+r {root}/intel-rapl:*/energy_uj"


def gpu_of(monkeypatch: pytest.MonkeyPatch, fake: FakeGpu) -> NvidiaGpu:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    install(monkeypatch, fake)
    gpu, reason = find_gpu_of_row()
    assert gpu is not None, reason
    return gpu


def test_the_gpus_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeGpu(millijoules=5_000)
    with open_meter(gpu_of(monkeypatch, fake)) as (meter, reason):
        assert isinstance(meter, GpuCounter)
        assert (meter.joules(), reason) == (5.0, "")
        fake.millijoules = 7_500
        assert meter.joules() == 7.5
        fake.unsupported.add("nvmlDeviceGetTotalEnergyConsumption")
        assert meter.joules() is None


def test_power_is_summed_up_by_trapezoids(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(meters, "time", clock)
    fake = FakeGpu(milliwatts=100_000)
    meter = GpuPower(gpu_of(monkeypatch, fake))
    assert meter.joules() == 0.0
    for seconds, watts, joules in ((2.0, 300, 400.0), (1.0, 300, 700.0), (4.0, 0, 1300.0)):
        clock.seconds += seconds
        fake.milliwatts = 1000 * watts
        assert meter.joules() == pytest.approx(joules)


def test_a_gpu_without_a_counter_is_read_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeGpu(unsupported={"nvmlDeviceGetTotalEnergyConsumption"})
    calls: list[float] = []
    gpu = gpu_of(monkeypatch, fake)

    def power(handle: FakeGpu) -> int:
        calls.append(time.perf_counter())
        return 50_000

    monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerUsage", power)
    with open_meter(gpu) as (meter, _):
        assert isinstance(meter, GpuPower)
        before, began = meter.joules(), time.perf_counter()
        time.sleep(0.5)
        after, lasted = meter.joules(), time.perf_counter() - began
        assert before is not None
        assert after is not None
        assert after - before == pytest.approx(50 * lasted, rel=0.1)
    assert len(calls) >= 4
    count = len(calls)
    time.sleep(0.25)
    assert len(calls) == count, "nothing reads on afterwards"


def test_a_gpu_that_tells_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeGpu(unsupported={"nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage"})
    with open_meter(gpu_of(monkeypatch, fake)) as (meter, reason):
        assert (meter, reason) == (None, "NVML: Not Supported")


class Load:
    """A meter that counts a steady power."""

    source = "made up"

    def __init__(self, clock: Clock, watts: float | None) -> None:
        self.clock, self.watts = clock, watts

    def joules(self) -> float | None:
        return None if self.watts is None else self.watts * self.clock.seconds


def test_idle_power(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(meters, "time", clock)
    assert idle_watts(Load(clock, 45.0)) == pytest.approx(45.0)
    assert clock.seconds == meters.IDLE_S == 2.0
    assert idle_watts(Load(clock, None)) is None
