"""The report of trainings as Markdown, for a README or a pull request."""

from collections.abc import Sequence

from segkc_deploy.benchmarks.report import formatting as f
from segkc_deploy.benchmarks.report.markdown_table import markdown
from segkc_deploy.benchmarks.report.trainings import text as text
from segkc_deploy.benchmarks.report.trainings.rows import TrainingTable
from segkc_deploy.benchmarks.report.trainings.run import NETWORKS, TrainingRun


def report_markdown(table: TrainingTable, runs: Sequence[TrainingRun], command: str) -> str:
    """Return the tables of the report; its curves are in `trainings.json` and on the page."""
    summary = " ".join(map(_plain, text.summary(table, runs)))
    parts = ["# Trainings\n", summary + "\n", text.RULE + "\n", "## Rows\n", _scores(table)]
    if len(table.rows) > 1:
        parts += [f"## Differences to {_plain(table.reference)}\n", _differences(table)]
        parts += ["## What differs in the configurations\n", _configurations(table)]
    parts += ["## Runs\n", _facts(runs), "## Last logged values\n", _last_values(runs)]
    if notes := [f"- {_plain(run.name)}: {note}" for run in runs for note in run.notes]:
        parts += ["## Notes\n", "\n".join(notes) + "\n"]
    return "\n".join([*parts, "## Command\n", f"    {command}\n"])


def _scores(table: TrainingTable) -> str:
    networks = [network for network in NETWORKS if any(network in row.scores for row in table.rows)]
    header = ["row", "method", "runs", *map(text.network_title, networks)]
    header += [f"{text.network_title(network)}, each seed" for network in networks]
    lines = []
    for row in table.rows:
        found = [row.scores.get(network) for network in networks]
        lines.append([row.name, row.method, text.runs_of(row), *map(text.score, found), *map(text.each_seed, found)])
    return markdown(header, lines, right_from=2)


def _differences(table: TrainingTable) -> str:
    networks = [network for network in NETWORKS if any(network in row.differences for row in table.rows)]
    header = ["row", *map(text.network_title, networks)]
    header += [f"{text.network_title(network)}, each seed" for network in networks]
    lines = []
    for row in table.rows:
        if row.name != table.reference:
            found = [row.differences.get(network) for network in networks]
            lines.append([row.name, *map(text.difference, found), *map(text.each_seed, found)])
    return markdown(header, lines, right_from=1)


def _configurations(table: TrainingTable) -> str:
    lines = [
        [key, *(row.differing.get(key, f.MISSING) for row in table.rows)] for key in (*table.keys, *table.partial_keys)
    ]
    return markdown(["key", *(row.name for row in table.rows)], lines, right_from=1)


def _facts(runs: Sequence[TrainingRun]) -> str:
    header = ["run", "state", "seed", "recipe", "method", "networks", "shipped", "images", "device", "precision"]
    header += ["started", "wall time", "version", "last validation"]
    lines = [
        [
            *(run.name, text.state(run), str(run.seed), run.recipe, run.method, text.networks(run), run.shipped),
            *(text.images(run), run.device or f.MISSING, run.precision, run.started or f.MISSING),
            *(text.wall_time(run.seconds), run.version, text.latest(run)),
        ]
        for run in runs
    ]
    return markdown(header, lines, right_from=len(header))


def _last_values(runs: Sequence[TrainingRun]) -> str:
    """The last point of every training curve, one line a run."""
    names = list(dict.fromkeys(name for run in runs for name in run.training.values))
    lines = []
    for run in runs:
        last = run.training.at(run.training.steps[-1]) if run.training.steps else {}
        step = str(run.training.steps[-1]) if run.training.steps else f.MISSING
        lines.append([run.name, step, *(f"{last[name]:.4g}" if name in last else f.MISSING for name in names)])
    return markdown(["run", "step", *names], lines, right_from=1)


def _plain(name: str) -> str:
    return " ".join(name.split())
