"""What the processors do: their clock, their temperature, and how much other processes take of them."""

import os

import psutil  # type: ignore[import-untyped]

#: What Linux calls the sensors of processors: Intel, AMD, Arm, Jetson.
_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal")


class BackgroundLoad:
    """How much of all processors' time other processes take, from one call of `percent` to the next.

    It is what the system counts as busy, less what this process and its ended children have used. In a container the
    system may count the whole host.
    """

    def __init__(self) -> None:
        self._before = self._now()

    def percent(self) -> float | None:
        """Return the share in percent since the call before; None where no time has passed on the system's clock."""
        before, self._before = self._before, self._now()
        total, busy, own = (now - then for now, then in zip(self._before, before, strict=True))
        return None if total <= 0 else 100 * min(max(busy - own, 0.0) / total, 1.0)

    def _now(self) -> tuple[float, float, float]:
        """Return all processors' time, their busy time and this process's, in seconds."""
        times = psutil.cpu_times()._asdict()
        # Linux counts the time of virtual machines' guests as the user's too.
        total = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)
        busy = total - times["idle"] - times.get("iowait", 0.0)
        return total, busy, sum(os.times()[:4])


def mean_mhz() -> float | None:
    """Return the processors' mean clock in MHz, or None where the system does not tell it."""
    # There is none at all where psutil found no way to ask when it was imported.
    try:
        frequency = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    except (OSError, NotImplementedError):  # Linux without the files of the clock, or with unreadable ones
        return None
    return frequency.current if frequency is not None and frequency.current > 0 else None


def celsius() -> float | None:
    """Return the hottest of the processors' sensors, or None where the system shows none."""
    if not hasattr(psutil, "sensors_temperatures"):
        return None
    found = psutil.sensors_temperatures()
    temperatures = [sensor.current for name in _SENSORS for sensor in found.get(name, ()) if sensor.current]
    return max(temperatures, default=None)
