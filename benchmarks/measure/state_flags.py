"""Which of the machine's readings make a row's timings unreliable."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from segkc_deploy.benchmarks.schema import Reading

BEFORE, AFTER, ACCURACY = "before", "after", "accuracy"
#: Moments at which nothing is timed.
_UNTIMED = (BEFORE, AFTER, ACCURACY)

#: Largest change of a clock during one part, as a share of its highest value.
GPU_CLOCK_MOVED = 0.05
CPU_CLOCK_MOVED = 0.10
#: Largest share of all processors' time, in percent, that other processes may take during one part.
BACKGROUND_LOAD = 5.0
#: Largest slowdown under sustained load, in percent.
DRIFT = -5.0
#: A power limit is lower than the default if it is so by more than this share; drivers round.
_LIMIT_LOWERED = 0.01
#: A steady clock that somebody has chosen is no reason to doubt.
_DELIBERATE = ("clocks set by the user",)

_Parts = dict[str, list[Reading]]


def state_flags(readings: Sequence[Reading], default_watts: float | None, other_gpu_processes: int) -> list[str]:
    """Return a sentence on each thing that makes timings unreliable.

    Args:
        readings: a row's, in order.
        default_watts: the GPU's power limit as it comes, if known.
        other_gpu_processes: how many other processes computed on the row's GPU.
    """
    parts = _timed_parts(readings)
    flags = [
        _moved("GPU", parts, lambda reading: reading.gpu_mhz, GPU_CLOCK_MOVED),
        _throttled(parts),
        _lowered_limit(readings, default_watts),
        _background_load(parts),
        _moved("processors", parts, lambda reading: reading.cpu_mhz, CPU_CLOCK_MOVED),
    ]
    if other_gpu_processes:
        noun = "process" if other_gpu_processes == 1 else "processes"
        flags.append(f"{other_gpu_processes} other {noun} used the GPU")
    return [flag for flag in flags if flag]


def drift_flag(drift: float | None) -> str:
    """Return the sentence on a machine that slowed down under sustained load, or "" if it did not.

    Args:
        drift: `Sustained.drift`, in percent.
    """
    if drift is None or drift >= DRIFT:
        return ""
    return f"the throughput fell by {-drift:.0f}% under sustained load, so short measurements promise too much"


def _timed_parts(readings: Iterable[Reading]) -> _Parts:
    parts: _Parts = {}
    for reading in readings:
        if reading.moment not in _UNTIMED:
            parts.setdefault(reading.moment, []).append(reading)
    return parts


def _moved(what: str, parts: _Parts, clock: Callable[[Reading], float | None], most: float) -> str:
    found = []
    for part, readings in parts.items():
        clocks = [value for reading in readings if (value := clock(reading)) is not None]
        if clocks and max(clocks) - min(clocks) > most * max(clocks):
            found.append(f"{part} {min(clocks):.0f} to {max(clocks):.0f} MHz")
    return f"the clock of the {what} moved by more than {most:.0%}: {', '.join(found)}" if found else ""


def _throttled(parts: _Parts) -> str:
    found: dict[str, list[str]] = {}
    for part, readings in parts.items():
        for limit in sorted({limit for reading in readings for limit in reading.gpu_limits} - {*_DELIBERATE}):
            found.setdefault(limit, []).append(part)
    limits = "; ".join(f"{limit} ({', '.join(where)})" for limit, where in found.items())
    return f"the GPU was throttled: {limits}" if limits else ""


def _lowered_limit(readings: Iterable[Reading], default_watts: float | None) -> str:
    limits = [reading.gpu_limit_watts for reading in readings if reading.gpu_limit_watts is not None]
    if default_watts is None or not limits or min(limits) >= (1 - _LIMIT_LOWERED) * default_watts:
        return ""
    return f"the GPU's power limit is {min(limits):.0f} W instead of its default of {default_watts:.0f} W"


def _background_load(parts: _Parts) -> str:
    found = []
    for part, readings in parts.items():
        load = _mean_background_load(readings)
        if load is not None and load > BACKGROUND_LOAD:
            found.append(f"{part} {load:.0f}%")
    return (
        f"other processes took more than {BACKGROUND_LOAD:.0f}% of the processors: {', '.join(found)}" if found else ""
    )


def _mean_background_load(readings: Sequence[Reading]) -> float | None:
    """Return the mean over a part's time; its first reading covers the time before it."""
    spans = [
        (now.at_s - then.at_s, now.background_load)
        for then, now in pairwise(readings)
        if now.background_load is not None
    ]
    seconds = sum(span for span, _ in spans)
    return sum(span * load for span, load in spans) / seconds if seconds > 0 else None
