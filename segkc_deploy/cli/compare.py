"""`segkc-deploy compare`."""

from pathlib import Path
from typing import Annotated

import typer

from segkc_deploy.cli.app import app


@app.command()
def compare(
    results: Annotated[
        list[str], typer.Argument(help="Stored benchmark.json of each machine, or NAME=FILE to choose its label.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the report.")],
    without_accuracy: Annotated[
        bool, typer.Option("--without-accuracy", help="Leave the accuracy out, so that the data may differ.")
    ] = False,
) -> None:
    """Join the benchmarks of several machines into one report.

    Example: `segkc-deploy compare server/benchmark.json jetson=orin/benchmark.json --out comparison`
    """
    from segkc_deploy.cli.extras import needs_extra

    with needs_extra("benchmark"):
        from segkc_deploy.benchmarks.regression.compare import compare as join
    from segkc_deploy.benchmarks.report.summary import summary

    joined = join([_labeled(result) for result in results], out, accuracy=not without_accuracy)
    for sentence in summary(joined):
        typer.echo(sentence)
    typer.echo(out / "index.html")


def _labeled(text: str) -> tuple[str | None, Path]:
    label, equals, file = text.partition("=")
    if equals and label and not Path(text).exists():
        return label, Path(file)
    return None, Path(text)
