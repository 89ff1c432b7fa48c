"""`segkc-deploy report`."""

from pathlib import Path
from typing import Annotated

import typer

from segkc_deploy.cli.app import app


@app.command()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run directories, finished or still training; or one benchmark.json to render again."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the report.")],
    reference: Annotated[
        str | None,
        typer.Option(help="Row to compare the others with. [default: a supervised one if there is one, or the first]"),
    ] = None,
    watch: Annotated[
        int | None,
        typer.Option(min=1, help="Write it again every so many seconds until all runs are finished; Ctrl-C ends it."),
    ] = None,
) -> None:
    """Draw the curves of trainings and compare them over their seeds, or render the report of a benchmark again.

    Example: `segkc-deploy report runs/a runs/b --out report-trainings`
    """
    from segkc_deploy.cli.extras import needs_extra

    with needs_extra("benchmark"):
        from segkc_deploy.benchmarks.report.report_files import render_stored
        from segkc_deploy.benchmarks.report.trainings.report import report_trainings, watch_trainings
    if len(runs) == 1 and runs[0].suffix == ".json":
        typer.echo(render_stored(runs[0], out))
        return
    from segkc_deploy.benchmarks.report.trainings.text import summary

    if watch is None:
        written = report_trainings(runs, out, reference)
    else:
        typer.echo(f"{out / 'index.html'}, every {watch} s")
        written = watch_trainings(runs, out, reference, watch)
    for sentence in summary(written.table, written.runs):
        typer.echo(sentence)
    typer.echo(out / "index.html")
