"""Why metrics are missing: each reason once, with the rows that it is about."""

from collections.abc import Sequence
from dataclasses import dataclass

from segkc_deploy.benchmarks.schema import Row


@dataclass(frozen=True)
class Reason:
    """Why `metric` was not measured; `whom` names the rows, or says that it is all of them."""

    metric: str
    why: str
    whom: str


def reasons(rows: Sequence[Row]) -> list[Reason]:
    """Return the reasons of all rows, in the order in which they first come."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for metric, why in row.not_measured.items():
            found.setdefault((metric, why), []).append(row.name)
    return [
        Reason(metric, why, "all rows" if len(names) == len(rows) > 1 else ", ".join(names))
        for (metric, why), names in found.items()
    ]
