"""The columns of the reports' table of rows: what each is called, in which unit, and how it reads a row."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from segkc_deploy.benchmarks.report import formatting as f
from segkc_deploy.benchmarks.schema import Energy, Row


@dataclass(frozen=True)
class Column:
    """One column: `value` sorts (None where not measured), `text` is shown."""

    group: str
    title: str
    unit: str
    value: Callable[[Row], float | str | None]
    text: Callable[[Row], str]
    is_text: bool = False


def columns_of(rows: Sequence[Row]) -> list[Column]:
    """Return the columns that at least one of `rows` has a value for."""
    return [column for column in _COLUMNS if any(column.value(row) is not None for row in rows)]


def best_rate(row: Row) -> tuple[float, int] | None:
    """Return the highest images/s, end to end, and its batch size."""
    return max(((p.images_per_s, p.batch) for p in row.throughput if p.images_per_s is not None), default=None)


def _number(
    group: str, title: str, unit: str, value: Callable[[Row], float | None], form: Callable[[float | None], str]
) -> Column:
    return Column(group, title, unit, value, lambda row: form(value(row)))


def _word(title: str, value: Callable[[Row], str]) -> Column:
    return Column("", title, "", value, value, is_text=True)


def _score(name: str, row: Row) -> float | None:
    return None if row.accuracy is None else getattr(row.accuracy, name)


def _time(name: str, row: Row) -> float | None:
    return None if row.latency is None else getattr(row.latency.total, name)


def _sustained(name: str, row: Row) -> float | None:
    return None if row.sustained is None else getattr(row.sustained, name)


def _energy(row: Row) -> Energy | None:
    return row.sustained.energy if row.sustained else None


def _interval_start(row: Row) -> float | None:
    return row.accuracy.miou_interval[0] if row.accuracy and row.accuracy.miou_interval else None


def _interval(row: Row) -> str:
    return f.percent_range(row.accuracy.miou_interval if row.accuracy else None)


def _difference(row: Row) -> str:
    scores = row.accuracy
    return f.difference(scores.miou_difference, scores.miou_difference_interval) if scores else f.MISSING


def _best_rate(row: Row) -> str:
    best = best_rate(row)
    return f"{f.significant(best[0])} @ {best[1]}" if best else f.MISSING


def _columns() -> Iterable[Column]:
    yield _word("role", lambda row: row.role)
    yield _word("engine", lambda row: row.engine)
    yield _word("precision", lambda row: row.precision)
    yield Column("", "input", "", lambda r: float(r.size[0] * r.size[1]), lambda r: f"{r.size[0]}×{r.size[1]}")

    accuracy = partial(_number, "accuracy")
    yield accuracy("mIoU", "%", partial(_score, "miou"), f.percent)
    yield Column("accuracy", "95% interval", "%", _interval_start, _interval)
    yield Column("accuracy", "to the junior", "points (95% interval)", partial(_score, "miou_difference"), _difference)
    yield accuracy("boundary mIoU", "%", partial(_score, "boundary_miou"), f.percent)
    yield accuracy("pixel accuracy", "%", partial(_score, "pixel_accuracy"), f.percent)
    yield accuracy("agreement", "% of pixels", partial(_score, "agreement"), f.agreement)

    latency = partial(_number, "latency, batch 1, end to end")
    yield latency("p50", "ms", partial(_time, "p50"), f.significant)
    yield latency("p90", "ms", partial(_time, "p90"), f.significant)
    yield latency("p99", "ms", partial(_time, "p99"), f.significant)
    yield latency("cv", "%", lambda r: 100 * r.latency.total.cv if r.latency else None, f.percent)
    yield latency(
        "GPU time p50",
        "ms",
        lambda r: r.latency.device.p50 if r.latency and r.latency.device else None,
        f.significant,
    )
    yield latency(
        "CUDA graph p50",
        "ms",
        lambda r: r.latency_cuda_graph.total.p50 if r.latency_cuda_graph else None,
        f.significant,
    )
    yield latency(
        "roofline efficiency", "% of infer", lambda r: r.roofline.efficiency if r.roofline else None, f.percent
    )

    rate = partial(_number, "throughput, end to end")
    yield Column(
        "throughput, end to end", "best", "images/s @ batch", lambda r: (best_rate(r) or [None])[0], _best_rate
    )
    yield rate("sustained", "images/s", partial(_sustained, "images_per_s"), f.significant)
    yield rate("drift", "%", partial(_sustained, "drift"), f.signed_percent)
    yield rate(
        "energy", "J per image", lambda r: e.joules_per_image if (e := _energy(r)) is not None else None, f.significant
    )

    size = partial(_number, "size")
    yield size("parameters", "", lambda r: r.parameters, f.quantity)
    yield size("GFLOPs", "", lambda r: r.flops / 1e9 if r.flops is not None else None, f.significant)
    yield size("GMACs", "", lambda r: r.flops / 2e9 if r.flops is not None else None, f.significant)
    yield size("file", "MiB", lambda r: r.file_bytes, f.mebibytes)

    memory = partial(_number, "memory and start")
    yield memory("activation peak", "MiB", lambda r: r.activation_peak_bytes, f.mebibytes)
    yield memory("host peak", "MiB", lambda r: r.memory.host_peak_mib, f.significant)
    yield memory("host added", "MiB", lambda r: r.memory.host_added_mib, f.significant)
    yield memory("GPU added", "MiB", lambda r: r.memory.device_added_mib, f.significant)
    yield memory("cold start", "s", lambda r: r.cold_start_s, f.significant)


_COLUMNS = tuple(_columns())
