"""The report of trainings: `index.html` (one page, nothing fetched), `trainings.md` and `trainings.json`."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import BaseModel

from segkc_deploy import atomic
from segkc_deploy.benchmarks.report.page_file import render_page
from segkc_deploy.benchmarks.report.trainings import text as text
from segkc_deploy.benchmarks.report.trainings.charts import chart_sections
from segkc_deploy.benchmarks.report.trainings.markdown import report_markdown
from segkc_deploy.benchmarks.report.trainings.rows import TrainingTable, training_table
from segkc_deploy.benchmarks.report.trainings.run import NETWORKS, TrainingRun, read_runs
from segkc_deploy.errors import ConfigError
from segkc_deploy.invocation import command_line

FORMAT = "segkc-deploy-trainings/1"


class TrainingReport(BaseModel):
    """Everything that the page shows, as `trainings.json` holds it."""

    format: str = FORMAT
    created: str
    command: str
    rule: str = text.RULE
    table: TrainingTable
    runs: list[TrainingRun]


def report_trainings(
    paths: Sequence[Path], out: Path, reference: str | None = None, refresh_s: int | None = None
) -> TrainingReport:
    """Read run directories and write their report into `out`.

    Args:
        paths: run directories, of trainings that are finished or go on.
        out: the report's folder, made when missing.
        reference: name of the row that the others are compared with; see `training_table`.
        refresh_s: seconds after which an open page of unfinished runs loads itself again, if it is to.

    Raises:
        UserError: a folder is no run, `reference` names none, or `out` holds something else.
    """
    _check_place(out)
    runs = read_runs(paths)
    report = TrainingReport(
        created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        command=command_line(),
        table=training_table(runs, reference),
        runs=runs,
    )
    atomic.write_text(out / "trainings.json", report.model_dump_json(indent=1) + "\n")
    atomic.write_text(out / "trainings.md", report_markdown(report.table, report.runs, report.command))
    atomic.write_text(out / "index.html", report_html(report, refresh_s if unfinished_runs(runs) else None))
    return report


def watch_trainings(
    paths: Sequence[Path], out: Path, reference: str | None, seconds: int, sleep: Callable[[float], None] = time.sleep
) -> TrainingReport:
    """Write the report again every `seconds` until all runs are finished, or until Ctrl-C; return the last one.

    An open page loads itself again as often. The page that is left behind does not.
    """
    try:
        report = report_trainings(paths, out, reference, seconds)
        while unfinished_runs(report.runs):
            sleep(seconds)
            report = report_trainings(paths, out, reference, seconds)
    except KeyboardInterrupt:
        return report_trainings(paths, out, reference)
    return report


def unfinished_runs(runs: Sequence[TrainingRun]) -> list[TrainingRun]:
    """Return the runs that have not scored their last step."""
    return [run for run in runs if run.state != "finished"]


def report_html(report: TrainingReport, refresh_s: int | None = None) -> str:
    """Return the page of `report`, which a browser loads again every `refresh_s` seconds, if at all."""
    table, sections = report.table, chart_sections(report.runs)
    row_of = {run: place for place, row in enumerate(table.rows) for run in row.runs}
    data = {
        "runs": [
            run.model_dump(include={"name", "training", "validation"}) | {"row": row_of[run.name]}
            for run in report.runs
        ],
        "charts": [asdict(chart) for section in sections for chart in section.charts],
    }
    return render_page(
        "training_report.html",
        "Trainings",
        data,
        refresh_s,
        report=report,
        text=text,
        summary=text.summary(table, report.runs),
        unfinished=unfinished_runs(report.runs),
        reference=next(row for row in table.rows if row.name == table.reference),
        networks=[network for network in NETWORKS if any(network in row.scores for row in table.rows)],
        compared=[network for network in NETWORKS if any(network in row.differences for row in table.rows)],
        order={run.name: place for place, run in enumerate(report.runs)},
        sections=sections,
    )


def _check_place(out: Path) -> None:
    """Refuse a folder whose files the report would replace or be taken for."""
    for name, what in (("config.yaml", "is a run directory"), ("benchmark.json", "holds the report of a benchmark")):
        if (out / name).exists():
            raise ConfigError(f"{out}: {what}; give another --out")
