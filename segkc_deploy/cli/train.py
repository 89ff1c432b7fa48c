"""`segkc-deploy train`."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from segkc_deploy.cli.app import app


@app.command()
def train(
    out: Annotated[Path | None, typer.Option(help="Run directory.")] = None,
    data: Annotated[Path | None, typer.Option(help="Data spec (YAML).")] = None,
    recipe: Annotated[str | None, typer.Option(help="Name of a shipped recipe, or a .yaml file.")] = None,
    override: Annotated[
        list[str] | None, typer.Option("--override", "-o", help="Recipe value, as key=value; repeatable.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps; for -o schedule.steps.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs over the unlabeled set.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Labeled, and as many unlabeled, images a step.")] = None,
    size: Annotated[str | None, typer.Option(help="Crop, 518 or 360x480 (height x width).")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Data loading processes.")] = None,
    cache: Annotated[
        float | None, typer.Option(min=0, help="GiB of decoded images kept on disk; for -o cache.size_gib.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Chooses first weights, order and augmentation.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the run in --out first, with its artifacts.")
    ] = False,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where it runs.")] = "auto",
    devices: Annotated[
        int, typer.Option(min=1, help="GPUs of this machine that share each step; not under torchrun or SLURM.")
    ] = 1,
    track: Annotated[
        list[str] | None, typer.Option(help="Send the curves to mlflow or wandb as well; repeatable.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print parameters, memory and the largest batch; write nothing.")
    ] = False,
) -> None:
    """Train a senior and a junior together.

    Example: `segkc-deploy train --data data.yaml --recipe own-data-16gb --out runs/a -o optimizer.lr=1e-5`
    """
    from segkc_deploy.cli.extras import needs_extra

    # Read when torch is loaded: a rank that dies would else have the others print pages of warnings.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    with needs_extra("train"):
        from segkc_deploy.training.launched_ranks import launched_ranks
        from segkc_deploy.training.summary import summary
        from segkc_deploy.training.train import estimate_run, train_run

    if resume and overwrite:
        raise typer.BadParameter("--resume and --overwrite exclude each other")
    overrides = _overrides(steps, epochs, batch, size, workers, cache, seed) + (override or [])
    if dry_run:
        for line in estimate_run(data, recipe, overrides, device, devices):
            typer.echo(line)
        return
    if out is None:
        raise typer.BadParameter("give --out, the run directory")
    result = train_run(data, recipe, out, overrides, resume, overwrite, device, devices, track or ())
    launched = launched_ranks()
    if launched is None or launched.rank == 0:
        for line in summary(result):
            typer.echo(line)


def _overrides(
    steps: int | None,
    epochs: int | None,
    batch: int | None,
    size: str | None,
    workers: int | None,
    cache: float | None,
    seed: int | None,
) -> list[str]:
    """The options that most runs change, as the recipe values they stand for."""
    from segkc_deploy.cli.sizes import parse_size

    values: dict[str, object] = {}
    if steps is not None or epochs is not None:
        values |= {"schedule.steps": steps, "schedule.epochs": epochs}
    if batch is not None:
        values |= {"batch.labeled": batch, "batch.unlabeled": batch}
    if size is not None:
        values["crop_size"] = list(parse_size(size))
    others = {"workers": workers, "cache.size_gib": cache, "seed": seed}
    values |= {name: value for name, value in others.items() if value is not None}
    return [f"{name}={'null' if value is None else value}" for name, value in values.items()]
