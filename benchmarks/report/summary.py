"""The report's first sentences, computed from its rows."""

from collections.abc import Mapping

from segkc_deploy.benchmarks.report.formatting import agreement, difference, percent, quantity, ratio, significant
from segkc_deploy.benchmarks.report.recommendations import recommendations
from segkc_deploy.benchmarks.schema import BenchmarkResult, InterleavedTiming, Row


def summary(result: BenchmarkResult) -> list[str]:
    """Return what the rows say, machine by machine: `_of_one_machine`, and which rows are incomplete."""
    machines = dict.fromkeys(row.machine for row in result.rows)
    shipped = {one.row.name for one in recommendations(result)}
    speeds = {way.name: way.speed for way in result.interleaved.contenders if way.speed} if result.interleaved else {}
    sentences = []
    for name in machines:
        rows = [row for row in result.rows if row.machine == name]
        # Recommended rows come first, since the summary mentions only some.
        sentences += _of_one_machine(sorted(rows, key=lambda row: row.name not in shipped), speeds)
    if unreliable := [row.name for row in result.rows if row.state.flags]:
        sentences.append(
            f"The timings of {', '.join(unreliable)} are unreliable: the state of the machine changed meanwhile."
        )
    if result.failures:
        names = ", ".join(failure.name for failure in result.failures)
        sentences.append(f"Not measured in full: {names} (see the errors below).")
    return sentences or ["Nothing could be measured."]


def _of_one_machine(rows: list[Row], speeds: Mapping[str, float]) -> list[str]:
    """Compare juniors with one another, each junior with its senior, then tell of up to three artifacts.

    Args:
        rows: the ones to tell of first come first.
        speeds: of rows that took turns, against one reference.
    """
    seniors, juniors, artifacts = ([row for row in rows if row.role == role] for role in _ROLES)
    sentences = _gains(juniors)
    for junior in juniors:
        senior = next((row for row in seniors if row.target == junior.target), None)
        sentences.append(_junior(junior, senior))
    for artifact in artifacts[:_MOST_ARTIFACTS]:
        twin = _twin(artifact, juniors)
        sentences.append(_artifact(artifact, twin, speeds))
    if not juniors and not artifacts:
        sentences += [_row_alone(row) for row in seniors]
    return sentences


_ROLES = ("senior", "junior", "artifact")
_MOST_ARTIFACTS = 3


def _gains(juniors: list[Row]) -> list[str]:
    """How far the best junior is above each other junior of the same size, as after another method of training."""
    scored = [(row.accuracy.miou, row) for row in juniors if row.accuracy and row.accuracy.miou is not None]
    if not scored:
        return []
    best_miou, best = max(scored, key=lambda item: item[0])
    return [
        f"{best.name} is {significant(best_miou - miou)} points of mIoU above {row.name}, with the same number of"
        f" parameters{_certainty(best, row)}."
        for miou, row in scored
        if row is not best and row.parameters and row.parameters == best.parameters and best_miou - miou >= 0.005
    ]


def _certainty(best: Row, row: Row) -> str:
    """Say where the choice of images may explain a difference between two trainings."""
    one, two = (one.accuracy.miou_interval if one.accuracy else None for one in (best, row))
    return "; their 95% intervals over images overlap" if one and two and one[0] <= two[1] else ""


def _twin(artifact: Row, juniors: list[Row]) -> Row | None:
    """The PyTorch junior that the artifact was compared with."""
    compared_with = artifact.accuracy.agreement_with if artifact.accuracy else None
    return next((row for row in juniors if row.name == compared_with), None)


def _row_alone(row: Row) -> str:
    parts = [_miou(row)]
    if row.parameters:
        parts.append(f"{quantity(row.parameters)} parameters")
    return f"{row.name}: {', '.join(parts)}{_speed(row, ', ')}."


def _junior(junior: Row, senior: Row | None) -> str:
    if senior is None:
        return _row_alone(junior)
    text = f"{junior.name} reaches {_miou(junior)}"
    if junior.parameters and senior.parameters:
        fewer = ratio(senior.parameters / junior.parameters)
        text += f" with {quantity(junior.parameters)} parameters, {fewer} fewer than {senior.name}"
        text += f" ({_miou(senior)}, {quantity(senior.parameters)})"
    else:
        text += f"; {senior.name}: {_miou(senior)}"
    return text + "."


def _artifact(artifact: Row, twin: Row | None, speeds: Mapping[str, float]) -> str:
    text = f"{artifact.name} scores {_miou(artifact)}"
    if artifact.accuracy and artifact.accuracy.miou_difference_interval:
        scores = artifact.accuracy
        points = difference(scores.miou_difference, scores.miou_difference_interval)
        text += f", {points} against {scores.agreement_with}"
    if artifact.accuracy and artifact.accuracy.agreement is not None:
        text += f", gives the class of {artifact.accuracy.agreement_with} on {_agreement(artifact)} of the pixels"
    text += _speed(artifact, " and answers in ")
    if twin and twin.latency and artifact.latency:
        interleaved = artifact.name in speeds and twin.name in speeds
        gain = twin.latency.total.p50 / artifact.latency.total.p50
        if interleaved:
            gain = speeds[artifact.name] / speeds[twin.name]
        compared = f"{ratio(gain)} as fast as" if gain >= 1 else f"taking {ratio(1 / gain)} as long as"
        text += f", {compared} {twin.name} ({twin.engine}{', interleaved timing' if interleaved else ''})"
    return text + "."


def _agreement(row: Row) -> str:
    assert row.accuracy is not None
    return f"{agreement(row.accuracy.agreement)}%"


def _miou(row: Row) -> str:
    if row.accuracy is None or row.accuracy.miou is None:
        return "an unmeasured mIoU"
    return f"{percent(row.accuracy.miou)}% mIoU"


def _speed(row: Row, lead: str) -> str:
    if row.latency is None:
        return ""
    total = row.latency.total
    return f"{lead}{significant(total.p50)} ms at the median, {significant(total.p99)} ms at p99 (batch 1, end to end)"


def interleaved_lines(timing: InterleavedTiming) -> list[str]:
    """Return a title and one line for each contender, for the console."""
    lines = [
        f"Interleaved, {timing.rounds} rounds of {timing.runs} runs:"
        f" median, and times faster than {timing.reference} (95% interval)"
    ]
    for contender in timing.contenders:
        if contender.total is None or contender.speed is None:
            lines.append(f"{'':12}{contender.name}: {contender.error}")
            continue
        gain = f"{contender.speed:.2f}×"
        if contender.speed_interval:  # fewer than six rounds have none
            gain += " ({:.2f} to {:.2f})".format(*contender.speed_interval)
        lines.append(f"{significant(contender.total.p50):>8} ms  {gain}  {contender.name}, {contender.engine}")
    return lines
