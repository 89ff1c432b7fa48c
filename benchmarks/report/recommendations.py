"""What to ship: for each purpose the best row of a machine, what it costs otherwise, and what is as good as it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from segkc_deploy.benchmarks.report.formatting import mebibytes, percent, ratio, significant
from segkc_deploy.benchmarks.schema import BenchmarkResult, InterleavedTiming, Row

#: Points of mIoU: rows this close to the best have its mIoU as written, and the fastest of them is chosen.
_SAME_MIOU = 0.05


@dataclass(frozen=True)
class Recommendation:
    """The row to ship for `purpose` on `machine` (None where the result is of one machine).

    `metric` is what it was chosen by, `costs` its other metrics against the best ones, and `remarks` say which rows
    cannot be distinguished from it and what makes the recommendation unreliable.
    """

    machine: str | None
    purpose: str
    row: Row
    metric: str
    costs: list[str]
    remarks: list[str]


@dataclass(frozen=True)
class _Purpose:
    name: str
    cost: Callable[[Row], float | None]  # the lower the better
    text: Callable[[Row, float], str]  # the metric of a row, and how far it is from the best cost
    remarks: Callable[[Row, Sequence[Row], InterleavedTiming | None], list[str]]  # on a row against the others
    timed: bool = False


def recommendations(result: BenchmarkResult) -> list[Recommendation]:
    """Return what to ship, machine by machine, among the artifacts, or among the juniors where there is no artifact."""
    machines = dict.fromkeys(row.machine for row in result.rows)
    return [one for machine in machines for one in _of_one_machine(machine, result)]


def _of_one_machine(machine: str | None, result: BenchmarkResult) -> list[Recommendation]:
    rows = [row for row in result.rows if row.machine == machine]
    candidates = [row for row in rows if row.role == "artifact"] or [row for row in rows if row.role == "junior"]
    best = {purpose.name: cost for purpose in _PURPOSES if (cost := _least(purpose, candidates)) is not None}
    chosen = []
    for purpose in _PURPOSES:
        if purpose.name not in best:
            continue
        row = _best(purpose, candidates)
        others = [other for other in candidates if other is not row]
        chosen.append(
            Recommendation(
                machine=machine,
                purpose=purpose.name,
                row=row,
                metric=purpose.text(row, best[purpose.name]),
                costs=[
                    other.text(row, best[other.name])
                    for other in _PURPOSES
                    if other is not purpose and other.cost(row) is not None
                ],
                remarks=_remarks(purpose, row, others, result.interleaved),
            )
        )
    return chosen


def _best(purpose: _Purpose, candidates: Sequence[Row]) -> Row:
    """Return the row with the least cost; for accuracy the fastest of those whose mIoU is the same as written."""
    measured = [(cost, row) for row in candidates if (cost := purpose.cost(row)) is not None]
    least = min(cost for cost, _ in measured)
    within = _SAME_MIOU if purpose is _ACCURACY else 0.0
    return min((row for cost, row in measured if cost - least <= within), key=_speed_and_size)


def _least(purpose: _Purpose, rows: Sequence[Row]) -> float | None:
    return min((cost for row in rows if (cost := purpose.cost(row)) is not None), default=None)


def _speed_and_size(row: Row) -> tuple[float, ...]:
    """Of equals the faster, then the smaller one."""
    return tuple(float("inf") if cost is None else cost for cost in (_p50(row), row.file_bytes))


def _remarks(purpose: _Purpose, row: Row, others: Sequence[Row], interleaved: InterleavedTiming | None) -> list[str]:
    remarks = purpose.remarks(row, others, interleaved)
    if purpose.timed and row.state.flags:
        remarks.append("its timings are unreliable")
    if (
        purpose is not _ACCURACY
        and _lack_of_miou(row) is None
        and any(_lack_of_miou(one) is not None for one in others)
    ):
        remarks.append("its mIoU was not measured")
    return remarks


def _accuracy_remarks(row: Row, others: Sequence[Row], interleaved: InterleavedTiming | None) -> list[str]:
    judged = {other.name: _as_accurate(row, other) for other in others}
    remarks = []
    if alike := [name for name, same in judged.items() if same]:
        remarks.append(f"not distinguishable on these images from {', '.join(alike)}")
    if unknown := [name for name, same in judged.items() if same is None]:
        remarks.append(f"whether it differs from {', '.join(unknown)} was not measured")
    return remarks


def _latency_remarks(row: Row, others: Sequence[Row], interleaved: InterleavedTiming | None) -> list[str]:
    alike, faster, unknown = [], [], []
    for other in others:
        one, two = _speed_intervals(row, other, interleaved)
        if one is None or two is None:
            unknown += [other.name] if _p50(other) is not None else []
        elif _overlap(one, two):
            alike.append(other.name)
        elif two[0] > one[1]:
            faster.append(other.name)
    remarks = [f"not distinguishable by these measurements: {', '.join(alike)}"] if alike else []
    remarks += [f"faster in the interleaved timing: {', '.join(faster)}"] if faster else []
    remarks += [f"whether it is faster than {', '.join(unknown)} is unknown"] if unknown else []
    return remarks


def _size_remarks(row: Row, others: Sequence[Row], interleaved: InterleavedTiming | None) -> list[str]:
    alike = [other.name for other in others if other.file_bytes == row.file_bytes]
    return [f"as small: {', '.join(alike)}"] if alike else []


def _energy_remarks(row: Row, others: Sequence[Row], interleaved: InterleavedTiming | None) -> list[str]:
    sources = {one.sustained.energy.source for one in (row, *others) if one.sustained and one.sustained.energy}
    return ["by different meters, which do not count the same"] if len(sources) > 1 else []


def _as_accurate(row: Row, other: Row) -> bool | None:
    """Whether the intervals of two rows overlap, of their differences to the same junior or else of their mIoU.

    None where they were not measured. Both are of the same images, so the intervals overlap too often: this says that
    rows are distinguished only where they really differ.
    """
    one, two = row.accuracy, other.accuracy
    if one is None or two is None:
        return None
    pairs = [(one.miou_interval, two.miou_interval)]
    if one.agreement_with == two.agreement_with:
        pairs.insert(0, (one.miou_difference_interval, two.miou_difference_interval))
    return next((_overlap(first, second) for first, second in pairs if first and second), None)


def _speed_intervals(
    row: Row, other: Row, interleaved: InterleavedTiming | None
) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """Return the intervals of both rows' speed, interleaved if both have one, else of 1 / median latency."""
    speeds = {way.name: way.speed_interval for way in interleaved.contenders} if interleaved else {}
    if speeds.get(row.name) and speeds.get(other.name):
        return speeds[row.name], speeds[other.name]
    first, second = (one.latency.total.p50_interval if one.latency else None for one in (row, other))
    return _inverted(first), _inverted(second)


def _inverted(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    return interval and (1 / interval[1], 1 / interval[0])


def _overlap(one: tuple[float, float], two: tuple[float, float]) -> bool:
    return one[0] <= two[1] and two[0] <= one[1]


def _p50(row: Row) -> float | None:
    return row.latency.total.p50 if row.latency else None


def _joules(row: Row) -> float | None:
    return row.sustained.energy.joules_per_image if row.sustained and row.sustained.energy else None


def _lack_of_miou(row: Row) -> float | None:
    return None if row.accuracy is None or row.accuracy.miou is None else 100 - row.accuracy.miou


def _miou_text(row: Row, best: float) -> str:
    lack = _lack_of_miou(row)
    assert lack is not None
    text = f"{percent(100 - lack)}% mIoU"
    return text if lack - best < _SAME_MIOU else f"{text} ({lack - best:.2f} below the best)"


def _times(value: float, best: float, superlative: str) -> str:
    return "" if value == best else f" ({ratio(value / best)} the {superlative})" if best > 0 else ""


def _latency_text(row: Row, best: float) -> str:
    p50 = _p50(row)
    assert p50 is not None
    return f"{significant(p50)} ms at the median{_times(p50, best, 'fastest')}"


def _size_text(row: Row, best: float) -> str:
    assert row.file_bytes is not None
    return f"{mebibytes(row.file_bytes)} MiB{_times(row.file_bytes, best, 'smallest')}"


def _energy_text(row: Row, best: float) -> str:
    joules = _joules(row)
    assert joules is not None
    return f"{significant(joules)} J per image{_times(joules, best, 'least')}"


_ACCURACY = _Purpose("accuracy", _lack_of_miou, _miou_text, _accuracy_remarks)
_LATENCY = _Purpose("latency", _p50, _latency_text, _latency_remarks, timed=True)
_SIZE = _Purpose("size", lambda row: row.file_bytes, _size_text, _size_remarks)
_ENERGY = _Purpose("energy", _joules, _energy_text, _energy_remarks, timed=True)
_PURPOSES = (_ACCURACY, _LATENCY, _SIZE, _ENERGY)
