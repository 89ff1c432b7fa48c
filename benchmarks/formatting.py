"""How figures are written in the reports: the same digits everywhere, a dash for what was not measured."""

import math
from collections.abc import Mapping
from typing import Any

MISSING = "–"


def _missing(value: float | None) -> bool:
    return value is None or not math.isfinite(value)


def significant(value: float | None) -> str:
    """Return `value` with about three significant digits: 0.123, 1.23, 12.3, 1234."""
    if value is None or _missing(value):
        return MISSING
    decimals = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{decimals}f}"


def percent(value: float | None, decimals: int = 1) -> str:
    """Return a figure that is in percent already, without the sign."""
    return MISSING if value is None or _missing(value) else f"{value:.{decimals}f}"


def agreement(value: float | None) -> str:
    """Return an agreement in percent, without the sign; what is not quite 100 is never rounded up to it."""
    if value is None or _missing(value):
        return MISSING
    if value == 100:
        return "100"
    return f"{min(value, 99.999):.3f}"


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
