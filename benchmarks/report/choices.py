"""What to ship: for each purpose the best row of a machine, what it costs otherwise, and what is as good as it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from segkc_deploy.benchmarks.report.formatting import mebibytes, percent, ratio, significant
from segkc_deploy.benchmarks.schema import BenchmarkResult, InTurn, Row


@dataclass(frozen=True)
class Choice:
    """The row to ship for `purpose` on `machine` (None where the result is of one machine).

    `figure` is what it was chosen by, `costs` its other figures against the best ones, and `remarks` say which rows
    cannot be told apart from it and what makes the choice doubtful.
    """

    machine: str | None
    purpose: str
    row: Row
    figure: str
    costs: list[str]
    remarks: list[str]


@dataclass(frozen=True)
class _Purpose:
    name: str
    cost: Callable[[Row], float | None]  # the lower the better
    text: Callable[[Row, float], str]  # the figure of a row, and how far it is from the best cost
    timed: bool = False


def choices(result: BenchmarkResult) -> list[Choice]:
    """Return what to ship, machine by machine, among the artifacts, or among the juniors where there is no artifact."""
    machines = dict.fromkeys(row.machine for row in result.rows)
    return [choice for machine in machines for choice in _of_one_machine(machine, result)]


def _of_one_machine(machine: str | None, result: BenchmarkResult) -> list[Choice]:
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
            Choice(
                machine=machine,
                purpose=purpose.name,
                row=row,
                figure=purpose.text(row, best[purpose.name]),
                costs=[
                    other.text(row, best[other.name])
                    for other in _PURPOSES
                    if other is not purpose and other.cost(row) is not None
                ],
                remarks=_remarks(purpose, row, others, result.in_turn),
            )
        )
    return chosen


def _best(purpose: _Purpose, candidates: Sequence[Row]) -> Row:
    """Return the row with the least cost; for accuracy the fastest of those that cannot be told apart from it."""
    best = min((row for row in candidates if purpose.cost(row) is not None), key=lambda row: _order(purpose, row))
    if purpose is not _ACCURACY:
        return best
    alike = [row for row in candidates if row is best or _as_accurate(best, row)]
    return min(alike, key=lambda row: (*_order(_LATENCY, row), *_order(_ACCURACY, row)))


def _least(purpose: _Purpose, rows: Sequence[Row]) -> float | None:
    return min((cost for row in rows if (cost := purpose.cost(row)) is not None), default=None)


def _order(purpose: _Purpose, row: Row) -> tuple[float, ...]:
    """By the purpose; of equals the faster, then the smaller one."""
    costs = [purpose.cost(row), _p50(row), row.file_bytes]
    return tuple(float("inf") if cost is None else cost for cost in costs)


def _remarks(purpose: _Purpose, row: Row, others: Sequence[Row], in_turn: InTurn | None) -> list[str]:
    remarks = []
    if purpose is _ACCURACY:
        remarks = _accuracy_remarks(row, others)
    elif purpose is _LATENCY:
        alike = [other.name for other in others if _as_fast(row, other, in_turn)]
        remarks = [f"not told apart by these measurements: {', '.join(alike)}"] if alike else []
    elif purpose is _SIZE:
        alike = [other.name for other in others if other.file_bytes == row.file_bytes]
        remarks = [f"as small: {', '.join(alike)}"] if alike else []
    if purpose.timed and row.state.flags:
        remarks.append("its timings are doubtful")
    return remarks


def _accuracy_remarks(row: Row, others: Sequence[Row]) -> list[str]:
    alike = [other for other in others if _as_accurate(row, other)]
    if not alike:
        compared = row.role == "junior" or (row.accuracy and row.accuracy.miou_difference_interval)
        return [] if compared or not others else ["how much of this the choice of images explains was not measured"]
    fastest = "; it is the fastest of them" if any(_p50(other) is not None for other in alike) else ""
    return [f"these images do not tell it apart from {', '.join(other.name for other in alike)}{fastest}"]


def _as_accurate(row: Row, other: Row) -> bool:
    """Whether both differ from the same junior by noise alone; of juniors, whether the intervals of mIoU overlap."""
    one, two = row.accuracy, other.accuracy
    if one is None or two is None:
        return False
    if one.miou_difference_interval and two.miou_difference_interval and one.agreement_with == two.agreement_with:
        return all(low <= 0 <= high for low, high in (one.miou_difference_interval, two.miou_difference_interval))
    if row.role == "junior" and one.miou_interval and two.miou_interval:
        return _overlap(one.miou_interval, two.miou_interval)
    return False


def _as_fast(row: Row, other: Row, in_turn: InTurn | None) -> bool:
    """Whether the intervals of the speed overlap where both took turns, else those of the median latency."""
    speeds = {way.name: way.speed_interval for way in in_turn.ways} if in_turn else {}
    one, two = speeds.get(row.name), speeds.get(other.name)
    if one is None or two is None:
        one = row.latency.total.p50_interval if row.latency else None
        two = other.latency.total.p50_interval if other.latency else None
    return one is not None and two is not None and _overlap(one, two)


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
    return text if lack - best < 0.005 else f"{text} ({lack - best:.2f} below the best)"


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


_ACCURACY = _Purpose("accuracy", _lack_of_miou, _miou_text)
_LATENCY = _Purpose("latency", _p50, _latency_text, timed=True)
_SIZE = _Purpose("size", lambda row: row.file_bytes, _size_text)
_ENERGY = _Purpose("energy", _joules, _energy_text, timed=True)
_PURPOSES = (_ACCURACY, _LATENCY, _SIZE, _ENERGY)
