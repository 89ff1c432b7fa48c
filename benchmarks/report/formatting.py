"""How figures are written in the reports: the same digits everywhere, a dash for what was not measured."""

import math
from collections.abc import Mapping
from typing import Any

MISSING = "–"
#: Values below this power of ten are written with an exponent.
_SMALLEST_POWER = -6
#: Points of mIoU: smaller ones are written as 0.00.
_SMALLEST = 0.005

#: Stands where `difference` and `percent_range` write.
INTERVAL_NOTE = (
    "Intervals are 95% bootstrap intervals over images. A difference is called noise where its interval contains 0:"
    " other images of the same kind could turn it around. With few images, or frames of one video, they are too narrow."
)


def _missing(value: float | None) -> bool:
    return value is None or not math.isfinite(value)


def significant(value: float | None) -> str:
    """Return `value` with three significant digits, and all of its whole part: 1.23e-07, 0.000123, 1.23, 12.3, 1234."""
    if value is None or _missing(value):
        return MISSING
    rounded = f"{value:.2e}"  # 9.996 is 10.0
    magnitude = int(rounded.partition("e")[2]) if value else -1
    return rounded if magnitude < _SMALLEST_POWER else f"{value:.{max(2 - magnitude, 0)}f}"


def percent(value: float | None, decimals: int = 1) -> str:
    """Return a figure that is in percent already, without the sign."""
    return MISSING if value is None or _missing(value) else f"{value:.{decimals}f}"


def signed_percent(value: float | None) -> str:
    """Return a change in percent, without the sign of percent: +1.2, −0.4, 0.0."""
    if value is None or _missing(value):
        return MISSING
    text = f"{value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def agreement(value: float | None) -> str:
    """Return an agreement in percent, without the sign; what is not quite 100 is never rounded up to it."""
    if value is None or _missing(value):
        return MISSING
    if value == 100:
        return "100"
    return f"{min(value, 99.999):.3f}"


def percent_range(ends: tuple[float, float] | None) -> str:
    """Return an interval whose ends are in percent already: 53.1 to 56.9."""
    return MISSING if ends is None else " to ".join(percent(end) for end in ends)


def difference(points: float | None, interval: tuple[float, float] | None) -> str:
    """Return a difference of mIoU, its interval and what they mean: −0.31 (−0.80 to +0.22: noise).

    Noise is a difference whose interval contains 0; equal is one that no choice of images changes from 0. One that is
    too small to be written says so.
    """
    if points is None or _missing(points):
        return MISSING
    if interval is None:
        return _signed(points)
    meaning = ": equal" if interval == (0, 0) else ": noise" if interval[0] <= 0 <= interval[1] else ""
    if max(map(abs, interval)) < _SMALLEST:
        return f"0.00 (0.00 to 0.00{meaning or f': below {_SMALLEST}'})"
    return f"{_signed(points)} ({_signed(interval[0])} to {_signed(interval[1])}{meaning})"


def _signed(points: float) -> str:
    return "0.00" if points == 0 else f"{points:+.2f}".replace("-", "−")


def quantity(value: float | None, unit: str = "") -> str:
    """Return `value` with a metric prefix: 24.8M, 1.20G; 3.52 for small ones."""
    if value is None or _missing(value):
        return MISSING
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{significant(value / factor)}{prefix}{unit}"
    return f"{significant(value)}{unit}"


def mebibytes(value: float | None) -> str:
    """Return a number of bytes in MiB."""
    return MISSING if value is None else significant(value / (1 << 20))


def ratio(value: float) -> str:
    """Return how many times: 4.7×."""
    return f"{significant(value) if value < 10 else f'{value:.0f}'}×"


def shortened(name: str, longest: int) -> str:
    """Return `name` with its middle left out where it is longer than `longest` characters."""
    if len(name) <= longest:
        return name
    tail = (longest - 1) // 2
    return f"{name[: longest - 1 - tail]}…{name[-tail:]}"


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested JSON values as (dotted key, text), without the empty ones."""
    lines: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            lines += flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            for number, item in enumerate(value):
                lines += flat(item, f"{prefix}{key}[{number}].")
        elif value not in (None, [], {}):
            lines.append((f"{prefix}{key}", str(value)))
    return lines
