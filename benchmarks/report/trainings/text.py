"""How the figures of trainings are written, on the page and in Markdown."""

from collections.abc import Mapping, Sequence

from segkc_deploy.benchmarks.report import formatting as f
from segkc_deploy.benchmarks.report.seeds import FEWEST_SEEDS_TO_JUDGE
from segkc_deploy.benchmarks.report.trainings.rows import Difference, Score, TrainingRow, TrainingTable
from segkc_deploy.benchmarks.report.trainings.run import TrainingRun

RULE = (
    "mIoU in percent on the validation images at the last step (never the best one): mean ± sample standard deviation"
    " over the seeds. Runs are one row when their configurations, data and package version are the same but for the"
    " seed; unfinished runs are not counted. Differences are paired by seed: their mean, with the 95% interval by"
    f" Student's t. A difference is called outside the seeds' spread if there are at least {FEWEST_SEEDS_TO_JUDGE}"
    " seeds, all differences have the same sign, and the interval does not hold 0; with fewer seeds it is not judged."
)

_TITLES = {"junior": "junior", "junior_ema": "junior EMA", "senior": "senior", "senior_ema": "senior EMA"}


def network_title(network: str) -> str:
    """Return how a scored network is called: junior EMA."""
    return _TITLES[network]


def summary(table: TrainingTable, runs: Sequence[TrainingRun]) -> list[str]:
    """Return what the report says first: how many runs there are, and the best of the networks that are shipped."""
    unfinished = sum(run.state != "finished" for run in runs)
    sentences = [
        f"{len(runs)} {_plural('run', len(runs))} in {len(table.rows)} {_plural('row', len(table.rows))}"
        + (f"; {unfinished} unfinished, not counted in the scores." if unfinished else ".")
    ]
    shipped = {row.name: found for row in table.rows if (found := row.scores.get(row.shipped))}
    if len(shipped) > 1:
        best = max((row for row in table.rows if row.name in shipped), key=lambda row: shipped[row.name].mean)
        seeds = len(shipped[best.name].by_seed)
        sentences.append(
            f"Best shipped junior: {best.name}, {score(shipped[best.name])} mIoU"
            f" ({network_title(best.shipped)}, {seeds} {_plural('seed', seeds)})."
        )
        if apart := best.differences.get(best.shipped):
            compared = f"{table.reference}{_on_other_data(best, table)}, {network_title(best.shipped)} too"
            sentences.append(f"Against {compared}: {difference(apart)}.")
    return sentences


def score(found: Score | None) -> str:
    """Return the mean ± sample standard deviation: 61.20 ± 0.35."""
    if found is None:
        return f.MISSING
    return f"{found.mean:.2f}" + (f" ± {found.deviation:.2f}" if found.deviation is not None else "")


def each_seed(found: Score | Difference | None) -> str:
    """Return the values by seed, with signs if they are differences: 0: 61.20, 1: 60.95."""
    if found is None:
        return f.MISSING
    written = _signed if isinstance(found, Difference) else "{:.2f}".format
    return ", ".join(f"{seed}: {written(value)}" for seed, value in found.by_seed.items())


def difference(found: Difference | None) -> str:
    """Return a difference with its interval and the significance: +1.20 (+0.31 to +2.09: outside)."""
    if found is None:
        return f.MISSING
    inside = found.significance if found.interval is None else f"{_ends(found.interval)}: {found.significance}"
    return f"{_signed(found.mean)} ({inside})"


def runs_of(row: TrainingRow) -> str:
    """Return how many runs a row has, and how many of them are not finished: 3 (1 unfinished)."""
    return f"{len(row.runs)}" + (f" ({row.unfinished} unfinished)" if row.unfinished else "")


def state(run: TrainingRun) -> str:
    """Return how far a run has come: finished, 800 steps."""
    if run.state == "finished":
        return f"finished, {run.steps_done} steps"
    of_all = f" of {run.steps}" if run.steps is not None else ""
    written = f", last written {run.written}" if run.written else ""
    return f"{run.state} at step {run.steps_done}{of_all}{written}"


def networks(run: TrainingRun) -> str:
    """Return backbones and their parameters: junior mobilenetv4_conv_small (3.77M)."""
    return "; ".join(
        f"{role} {backbone}" + (f" ({f.quantity(size)})" if (size := run.parameters.get(role)) else "")
        for role, backbone in run.networks.items()
    )


def images(run: TrainingRun) -> str:
    """Return the images of a run: 46 labeled, 321 unlabeled, 101 validation."""
    if run.images is None:
        return f.MISSING
    names = {"labeled": "labeled", "unlabeled": "unlabeled", "val": "validation"}
    return ", ".join(f"{run.images[key]} {name}" for key, name in names.items())


def wall_time(seconds: float | None) -> str:
    """Return a time as people say it: 7 min 31 s, 2 h 05 min."""
    if seconds is None:
        return f.MISSING
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def latest(run: TrainingRun) -> str:
    """Return the scores of a run's last validation and its step: junior 61.20, junior EMA 61.85 at step 800."""
    if run.latest_step is None:
        return f.MISSING
    return f"{_scores(run.latest)} at step {run.latest_step}"


def _scores(values: Mapping[str, float]) -> str:
    return ", ".join(f"{network_title(network)} {value:.2f}" for network, value in values.items())


def _on_other_data(row: TrainingRow, table: TrainingTable) -> str:
    reference = next(other for other in table.rows if other.name == table.reference)
    return "" if row.differing.get("data") == reference.differing.get("data") else " (which has other data)"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def _ends(interval: tuple[float, float]) -> str:
    return " to ".join(map(_signed, interval))


def _signed(points: float) -> str:
    return f.difference(points, None)
