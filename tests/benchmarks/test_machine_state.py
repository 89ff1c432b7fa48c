"""The readings around the parts of a row's measuring, and what taking them costs."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from unittest.mock import Mock

import psutil
import pytest
from fake_nvml import FakeGpu, install

from segkc_deploy.benchmarks.measure import background_load
from segkc_deploy.benchmarks.measure.background_load import BackgroundLoad
from segkc_deploy.benchmarks.measure.machine_state import INTERVAL_S, MOST_SHARE, MachineWatch
from segkc_deploy.benchmarks.measure.nvidia_gpu import find_gpu_of_row


def watch_of(monkeypatch: pytest.MonkeyPatch, gpu: FakeGpu, interval_s: float = INTERVAL_S) -> MachineWatch:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    install(monkeypatch, gpu)
    return MachineWatch(find_gpu_of_row()[0], interval_s)


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 200
    while not what():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def test_readings_before_during_and_after() -> None:
    watch = MachineWatch(interval_s=0.1)
    with watch.during("latency"):
        wait_for(lambda: len(watch.state().readings) >= 5)
    with watch.during("batch 4"):
        pass
    watch.read("after")
    readings = watch.state().readings
    moments = [reading.moment for reading in readings]
    inside = moments.count("latency")
    assert moments == ["before", *["latency"] * inside, "batch 4", "batch 4", "after"]
    assert inside >= 5  # both ends, and at intervals between
    times = [reading.at_s for reading in readings]
    assert times == sorted(times)
    between = times[2:inside]
    assert all(later - earlier > 0.09 for earlier, later in pairwise(between))
    assert 0 <= times[0] < times[-1]
    assert readings[0].background_load is None
    assert readings[0].gpu_mhz is None
    assert {reading.cpu_mhz for reading in readings} != set()
    assert watch.gpu is None


def test_no_thread_outlives_a_part_even_one_that_fails() -> None:
    watch, before = MachineWatch(interval_s=0.01), threading.active_count()
    with pytest.raises(ValueError, match="the row failed"), watch.during("latency"):
        assert threading.active_count() == before + 1
        raise ValueError("the row failed")
    assert threading.active_count() == before


def test_the_gpus_state(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(limit=500_000)
    watch = watch_of(monkeypatch, gpu, interval_s=0.02)
    gpu.processes = [1]  # the row's own
    with watch.during("latency"):
        time.sleep(0.1)
        gpu.sm_mhz, gpu.reasons = 1410, 0x4
    state = watch.state()
    assert [reading.gpu_mhz for reading in state.readings][:2] == [1980, 1980]
    assert state.readings[-1].gpu_mhz == 1410
    assert state.readings[-1].gpu_limits == ["power limit"]
    found = [flag for flag in state.flags if "GPU" in flag]
    assert found == [
        "the clock of the GPU moved by more than 5%: latency 1410 to 1980 MHz",
        "the GPU was throttled: power limit (latency)",
        "the GPU's power limit is 500 W instead of its default of 700 W",
    ]


@pytest.mark.parametrize(("before", "during", "others"), [([], [1], 0), ([5], [5, 1], 1), ([], [1, 8, 9], 2)])
def test_other_processes_on_the_gpu(
    before: list[int], during: list[int], others: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = FakeGpu(processes=before)
    watch = watch_of(monkeypatch, gpu)
    gpu.processes = during
    with watch.during("latency"):
        pass
    gpu.processes = []  # they need not stay to the end
    told = [flag for flag in watch.state().flags if "used the GPU" in flag]
    assert [int(flag.split()[0]) for flag in told] == ([others] if others else [])


def test_a_row_on_the_processors_leaves_the_gpu_out(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watch_of(monkeypatch, FakeGpu(processes=[5], limit=1000, unsupported={"nvmlDeviceGetClockInfo"}))
    assert watch.state().readings[0].gpu_watts == 410.5
    assert watch.missing()["state.gpu_mhz"] == "NVML: Not Supported"
    watch.leave_gpu_out()
    watch.read("after")
    assert watch.gpu is None
    for reading in watch.state().readings:
        assert (reading.gpu_watts, reading.gpu_celsius, reading.gpu_limits) == (None, None, [])
    assert not any("GPU" in flag for flag in watch.state().flags)
    assert not any("gpu" in name for name in watch.missing())


def test_figures_that_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_freq", lambda: None)
    monkeypatch.setattr(psutil, "sensors_temperatures", dict, raising=False)
    watch = MachineWatch()
    assert (watch.state().readings[0].cpu_mhz, watch.state().readings[0].cpu_celsius) == (None, None)
    assert watch.missing().keys() == {"state.cpu_mhz", "state.cpu_celsius"}
    for error in (NotImplementedError, PermissionError):
        monkeypatch.setattr(psutil, "cpu_freq", Mock(side_effect=error))
        assert background_load.mean_mhz() is None
    monkeypatch.delattr(psutil, "cpu_freq")
    monkeypatch.delattr(psutil, "sensors_temperatures")
    assert (background_load.mean_mhz(), background_load.celsius()) == (None, None)


def test_the_hottest_sensor_of_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    sensor = psutil._ntuples.shwtemp
    found = {
        "coretemp": [sensor("Package", 61.0, 90, 100), sensor("Core 0", 64.0, 90, 100)],
        "nvme": [sensor("", 80.0, None, None)],
    }
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: found, raising=False)
    assert background_load.celsius() == 64.0


class Counters:
    """System times and this process's that a test sets, for two processors."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.user = self.idle = self.own = 0.0
        monkeypatch.setattr(psutil, "cpu_times", lambda: Times(self.user, self.idle))
        monkeypatch.setattr("os.times", lambda: (self.own, 0.0, 0.0, 0.0, 0.0))


class Times:
    def __init__(self, user: float, idle: float) -> None:
        self.user, self.idle = user, idle

    def _asdict(self) -> dict[str, float]:
        # Linux counts the guests' time as the user's too.
        return {"user": self.user, "guest": self.user / 2, "idle": self.idle, "iowait": 0.0}


def test_background_load_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    counters = Counters(monkeypatch)
    load = BackgroundLoad()
    counters.user, counters.idle, counters.own = 3.0, 7.0, 2.5
    assert load.percent() == pytest.approx(5.0)  # 0.5 of 10 s
    assert load.percent() is None  # no time has passed
    counters.user, counters.idle, counters.own = 4.0, 8.0, 4.5  # clocks tick at other times
    assert load.percent() == 0.0


def test_another_busy_process_is_background_load() -> None:
    load, began = BackgroundLoad(), time.monotonic()
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        busy = psutil.Process(child.pid)
        wait_for(lambda: busy.cpu_times().user > 0.5)
        with_child, elapsed = load.percent(), time.monotonic() - began
        seconds = busy.cpu_times().user
    finally:
        child.kill()
        child.wait()
    assert with_child is not None
    # At least about the child's own share of all processors' time; the system's clock ticks a hundred times a second.
    assert with_child > 0.5 * 100 * seconds / (elapsed * (psutil.cpu_count() or 1))


def test_slow_readings_are_rarer(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = MachineWatch(interval_s=0.01)
    monkeypatch.setattr("segkc_deploy.benchmarks.measure.machine_state.mean_mhz", lambda: time.sleep(0.01) or 3000.0)
    watch._read_at_leisure("latency")
    assert watch._pause_s >= 0.01 / MOST_SHARE
