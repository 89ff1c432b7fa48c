"""The curves of one training, from its `metrics.jsonl`."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

#: More records than this are joined, so that a page of many long trainings stays small.
MOST_POINTS = 500

#: Values that say how it is now; all others are means over the steps since the record before.
_STATES = ("lr", "memory_mib")

_DIGITS = 6


class Curves(BaseModel):
    """Values over steps, all at the same steps; null where a record lacks one.

    `joined` is how many records of the file make a point: it lies at the last one's step and is the mean of them (of
    learning rate and memory: the last).
    """

    steps: list[int] = []
    values: dict[str, list[float | None]] = {}
    joined: int = 1

    def at(self, step: int) -> dict[str, float]:
        """Return the values at `step` by name, without the missing ones; none if there is no point there."""
        if step not in self.steps:
            return {}
        place = self.steps.index(step)
        return {name: value for name, points in self.values.items() if (value := points[place]) is not None}


def read_curves(path: Path) -> tuple[Curves, Curves, int]:
    """Read a `metrics.jsonl`, which may be missing, and of which the last line may be cut off.

    Returns:
        the training's curves, the validations', and how many lines before the last one could not be read.
    """
    lines = path.read_text("utf-8", errors="replace").splitlines() if path.is_file() else []
    records = [_record(line) for line in lines]
    damaged = sum(record is None for record in records[:-1])
    training = _of_kind(records, "train")
    joined = max(math.ceil(len(training) / MOST_POINTS), 1)
    return _curves(training, joined), _curves(_of_kind(records, "validation"), 1), damaged


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else None


def _of_kind(records: Sequence[dict[str, Any] | None], kind: str) -> list[dict[str, Any]]:
    """Return the records of a kind by step; of two at one step the later one."""
    found = {record["step"]: record for record in records if record is not None and record.get("kind") == kind}
    return [found[step] for step in sorted(found)]


def _curves(records: Sequence[dict[str, Any]], joined: int) -> Curves:
    names = dict.fromkeys(name for record in records for name in record if name not in ("step", "kind"))
    groups = [records[start : start + joined] for start in range(0, len(records), joined)]
    return Curves(
        steps=[group[-1]["step"] for group in groups],
        values={name: [_joined(name, group) for group in groups] for name in names},
        joined=joined,
    )


def _joined(name: str, group: Sequence[dict[str, Any]]) -> float | None:
    values = [record[name] for record in group if _is_number(record.get(name))]
    if not values:
        return None
    value = values[-1] if name in _STATES else math.fsum(values) / len(values)
    return float(f"{value:.{_DIGITS}g}")


def _is_number(value: Any) -> bool:
    # `train` writes NaN where nothing could be scored, which is no JSON for a page.
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
