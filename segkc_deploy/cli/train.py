"""`segkc-deploy train`."""

from pathlib import Path
from typing import Annotated

import typer

from segkc_deploy.cli.app import app


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Run directory.")],
    data: Annotated[Path | None, typer.Option(help="Data spec (YAML).")] = None,
    recipe: Annotated[str | None, typer.Option(help="Name of a shipped recipe, or a .yaml file.")] = None,
    override: Annotated[
        list[str] | None, typer.Option("--override", "-o", help="Recipe value, as key=value; repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the run in --out first.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train a senior and a junior together.

    Example: `segkc-deploy train --data data.yaml --recipe segkc-dinov2-s --out runs/a -o optimizer.lr=1e-5`
    """
    from segkc_deploy.cli.extras import needs_extra

    with needs_extra("train"):
        from segkc_deploy.training.train import train_run

    if resume and overwrite:
        raise typer.BadParameter("--resume and --overwrite exclude each other")
    result = train_run(data, recipe, out, override, resume, overwrite, device)
    typer.echo(f"finished: {result.path} ({result.steps} steps)")
    for name, miou in result.miou.items():
        typer.echo(f"  mIoU {name}: {miou:.2f}")
    typer.echo(f"next: segkc-deploy export {result.path} --engine onnx")
