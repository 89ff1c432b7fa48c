"""`segkc-deploy check`: judge a data set before any GPU time is spent on it."""

from pathlib import Path
from typing import Annotated

import typer

from segkc_deploy.cli.app import app


@app.command()
def check(
    data: Annotated[Path, typer.Option("--data", help="The data spec, a YAML file.", metavar="FILE")],
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Threads that read.", show_default="one a core")
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(help="Write pictures of image and mask where an image has an EXIF rotation.", metavar="DIR"),
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write the report here too.", metavar="FILE")] = None,
) -> None:
    """Read every image and mask of a data set once and name everything that is wrong with them.

    Exits with 2 when there are errors, with 0 when there are only warnings.

    Example: `segkc-deploy check --data data.yaml`
    """
    import os

    from rich.console import Console

    from segkc_deploy import atomic
    from segkc_deploy.data.check import check as check_sets
    from segkc_deploy.data.check_pictures import write_turned_pictures
    from segkc_deploy.data.check_tables import print_report, to_json
    from segkc_deploy.data.spec import load_data_spec

    sets = load_data_spec(data).resolve(allow_missing_masks=True)
    report = check_sets(sets, workers or os.cpu_count() or 1)
    print_report(report, Console(highlight=False))
    if pictures is not None:
        written = write_turned_pictures(report.turned, sets, pictures)
        typer.echo(f"{len(written)} pictures written to {pictures}" if written else "no image has an EXIF rotation")
    if json is not None:
        atomic.write_text(json, to_json(report))
    if report.errors:
        raise typer.Exit(2)
