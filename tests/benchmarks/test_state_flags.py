"""Which readings make timings unreliable, at both sides of each threshold."""

from collections.abc import Sequence
from typing import Any

import pytest

from segkc_deploy.benchmarks.measure.state_flags import drift_flag, state_flags
from segkc_deploy.benchmarks.schema import Reading


def readings(moment: str, **figures: Sequence[Any]) -> list[Reading]:
    """Return readings one second apart, of which each has its own value of every figure."""
    count = len(next(iter(figures.values())))
    return [
        Reading(moment=moment, at_s=float(place), **{name: values[place] for name, values in figures.items()})
        for place in range(count)
    ]


def flags(found: list[Reading], default_watts: float | None = None, others: int = 0) -> list[str]:
    return state_flags(found, default_watts, others)


def test_a_quiet_machine_has_none() -> None:
    quiet = readings(
        "latency", gpu_mhz=[1980, 1900], cpu_mhz=[3000, 2750], background_load=[90, 4], gpu_limit_watts=[700, 700]
    )
    assert flags(quiet, default_watts=700) == []
    assert flags([]) == []
    assert flags(readings("latency", gpu_mhz=[None, None], cpu_mhz=[None, None], background_load=[None, None])) == []


def test_clocks_that_moved() -> None:
    assert flags(readings("latency", gpu_mhz=[1000, 951, 1000])) == []
    assert flags(readings("latency", gpu_mhz=[1000, 949, 1000]) + readings("batch 4", gpu_mhz=[900, 800])) == [
        "the clock of the GPU moved by more than 5%: latency 949 to 1000 MHz, batch 4 800 to 900 MHz"
    ]
    assert flags(readings("latency", cpu_mhz=[2000, 1801])) == []
    assert flags(readings("sustained", cpu_mhz=[2000, 1799])) == [
        "the clock of the processors moved by more than 10%: sustained 1799 to 2000 MHz"
    ]


def test_what_is_not_timed_raises_no_flag() -> None:
    for moment in ("before", "after", "accuracy"):
        wild = {"gpu_mhz": [300, 1980], "cpu_mhz": [800, 3000], "background_load": [90, 90]}
        assert flags(readings(moment, **wild, gpu_limits=[["power limit"]] * 2)) == []
    # A GPU that is idle before the first part has another clock than in it.
    assert flags(readings("before", gpu_mhz=[210]) + readings("latency", gpu_mhz=[1980, 1980])) == []


def test_throttling_is_told_with_its_reasons_and_parts() -> None:
    found = readings("latency", gpu_limits=[[], ["power limit"]])
    found += readings("sustained", gpu_limits=[["power limit"], ["heat (hardware)"]])
    assert flags(found) == ["the GPU was throttled: power limit (latency, sustained); heat (hardware) (sustained)"]
    assert flags(readings("latency", gpu_limits=[["clocks set by the user"]])) == []


@pytest.mark.parametrize(("limit", "told"), [(700.0, False), (694.0, False), (600.0, True)])
def test_a_lowered_power_limit(limit: float, told: bool) -> None:
    found = flags(readings("latency", gpu_limit_watts=[limit]), default_watts=700.0)
    assert found == (["the GPU's power limit is 600 W instead of its default of 700 W"] if told else [])


def test_a_power_limit_that_was_lowered_on_the_way() -> None:
    found = readings("latency", gpu_limit_watts=[700.0, 600.0]) + readings("batch 4", gpu_limit_watts=[700.0])
    assert flags(found, default_watts=700.0) == ["the GPU's power limit is 600 W instead of its default of 700 W"]


def test_other_processes() -> None:
    # Weighted by time: 3 s at 2%, then 1 s at 20%, is 6.5%; the first reading is about the time before the part.
    times = [(0.0, 99.0), (3.0, 2.0), (4.0, 20.0)]
    busy = [Reading(moment="latency", at_s=at_s, background_load=load) for at_s, load in times]
    assert flags(busy) == ["other processes took more than 5% of the processors: latency 6%"]
    assert flags(busy[:2]) == []
    assert flags(busy[:1]) == []


def test_other_processes_on_the_gpu() -> None:
    assert flags([], others=1) == ["1 other process used the GPU"]
    assert flags([], others=3) == ["3 other processes used the GPU"]


def test_drift() -> None:
    assert drift_flag(None) == drift_flag(3.0) == drift_flag(-5.0) == ""
    assert "fell by 12%" in drift_flag(-12.2)
