"""What the report's plots are drawn from: the rows as in the schema, without what no plot shows."""

from typing import Any

from segkc_deploy.benchmarks.report.published_points import published_sets
from segkc_deploy.benchmarks.schema import BenchmarkResult, Row

_LEFT_OUT: dict[str, Any] = {
    "about": True,
    "target": True,
    "measured": True,
    "memory": True,
    "threads": True,
    "not_measured": True,
    "accuracy": {"image_miou"},
    "latency_cuda_graph": True,
    "state": {"flags"},
}
_DIGITS = 5


def report_data(result: BenchmarkResult) -> dict[str, Any]:
    """Return JSON values: `classes`, `rows` in the result's order, `interleaved` and `published`."""
    return {
        "classes": list(result.labels.names),
        "rows": [_row(row) for row in result.rows],
        "interleaved": result.interleaved.model_dump(mode="json") if result.interleaved else None,
        "published": published_sets(result.labels),
    }


def _row(row: Row) -> dict[str, Any]:
    values = row.model_dump(mode="json", exclude=_LEFT_OUT)
    if row.latency:
        values["latency"]["times_ms"] = [_rounded(time) for time in row.latency.times_ms]
    if row.sustained:
        values["sustained"]["by_second"] = [_rounded(rate) for rate in row.sustained.by_second]
    return values


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
