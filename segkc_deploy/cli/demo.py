"""`segkc-deploy demo`: the whole pipeline on a data set that it draws itself."""

from pathlib import Path
from typing import Annotated, Any

import typer

from segkc_deploy.cli.app import app

_LABELED, _UNLABELED, _VAL = 16, 200, 48
_SECONDS_A_LATENCY = 2.0
_BATCHES = (1, 4)
_SECTIONS = 6
_NOTE = "about.txt"
_TITLES = ("supervised junior", "co-trained junior", "senior", "ONNX artifact")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo makes.")] = Path("demo"),
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimizer steps of each training; by default the recipes' own.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Chooses the scenes and the networks' first weights.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete an earlier demo in --out first.")] = False,
) -> None:
    """Draw a data set, train with and without co-training, export, predict and benchmark. Needs no download.

    Example: `segkc-deploy demo --out demo --overwrite`
    """
    import time

    from segkc_deploy.cli.extras import needs_extra

    with needs_extra("all"):
        from segkc_deploy.benchmarks.options import MeasureOptions
        from segkc_deploy.benchmarks.suite import Benchmark
        from segkc_deploy.export.export_run import export_run
        from segkc_deploy.training.demo_scenes.scenes import write_scenes
        from segkc_deploy.training.train import train_run

    started = time.monotonic()
    _prepare_folder(out, overwrite)
    overrides = [f"seed={seed}"] + ([f"schedule.steps={steps}"] if steps else [])
    options = [word for override in overrides for word in ("-o", override)]
    alone, pair, report = out / "supervised", out / "segkc", out / "report"

    _section(1, f"Drawing {_LABELED} labeled, {_UNLABELED} unlabeled and {_VAL} validation scenes")
    data = write_scenes(out / "data", _LABELED, _UNLABELED, _VAL, seed=seed)
    typer.echo(data)

    _section(2, "Training the junior alone, on the labeled scenes")
    _same_as("train", "--data", data, "--recipe", "demo-supervised", "--out", alone, *options)
    train_run(data, "demo-supervised", alone, overrides)

    _section(3, "Co-training the junior with a senior, on the labeled and the unlabeled scenes")
    _same_as("train", "--data", data, "--recipe", "demo-segkc", "--out", pair, *options)
    train_run(data, "demo-segkc", pair, overrides)

    _section(4, "Exporting the co-trained junior to ONNX")
    _same_as("export", pair, "--engine", "onnx")
    exported = export_run(pair, data)
    verification = exported.manifest.verification
    assert verification is not None
    typer.echo(f"{exported.path} agrees with the PyTorch junior on {verification.agreement:.3%} of the pixels")

    _section(5, "Predicting the validation scenes with the ONNX artifact")
    _same_as("predict", exported.path, "--source", out / "data/images/val", "--out", out / "predicted")
    _predict(exported.path, out / "data/images/val", out / "predicted")

    _section(6, "Benchmarking both runs and the artifact")
    batches = ",".join(map(str, _BATCHES))
    measuring = f"--seconds {_SECONDS_A_LATENCY:g} --batches {batches} --sustained 0 --rounds 0".split()
    _same_as("benchmark", alone, pair, exported.path, "--data", data, "--out", report, *measuring)
    measured = MeasureOptions(batches=_BATCHES, seconds=_SECONDS_A_LATENCY, sustained=0)
    result = Benchmark([alone, pair, exported.path], data, report, measured).run()

    _print_scores({_title(row.role, Path(row.target) == alone): row for row in result.rows})
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    typer.echo(f"done in {minutes} min {seconds} s; the report: {report / 'index.html'}")
    if result.failures:
        raise typer.Exit(1)


def _prepare_folder(out: Path, overwrite: bool) -> None:
    """Make an empty folder with a note in it, by which a later `--overwrite` knows that a demo made the folder."""
    import shutil

    from segkc_deploy.errors import RunDirectoryError

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not (out / _NOTE).is_file():
            raise RunDirectoryError(f"{out}: not empty and not a demo's folder; choose another --out")
        if not overwrite:
            raise RunDirectoryError(f"{out}: holds an earlier demo; add --overwrite to delete it first")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / _NOTE).write_text("Made by `segkc-deploy demo`, which deletes this folder when run with --overwrite.\n")


def _section(number: int, title: str) -> None:
    typer.secho(f"\n[{number}/{_SECTIONS}] {title}", bold=True)


def _same_as(*words: object) -> None:
    from segkc_deploy.invocation import suggested_command

    typer.echo(f"same as: {suggested_command(*words)}")


def _predict(artifact: Path, source: Path, out: Path) -> None:
    from segkc_deploy.prediction_files import predict_files, prepare_folder
    from segkc_deploy.predictor import load
    from segkc_deploy.sources import find_images

    with load(artifact) as predictor:
        images = find_images(str(source))
        prepare_folder(out, overwrite=False)
        predict_files(predictor, images, out)
        typer.echo(f"{len(images)} masks and overlays with {predictor.description}: {out}")


def _print_scores(rows: dict[str, Any]) -> None:
    """Print mIoU, size and latency of the benchmark's rows, by title."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Validation scenes; latency at batch 1, end to end", title_justify="left")
    table.add_column("network")
    for column in ("mIoU %", "parameters", "p50 ms", "p90 ms", "p99 ms"):
        table.add_column(column, justify="right")
    for title in _TITLES:
        if title not in rows:  # its failure was printed when it happened
            continue
        row = rows[title]
        miou = f"{row.accuracy.miou:.2f}" if row.accuracy and row.accuracy.miou is not None else "-"
        size = f"{row.parameters / 1e6:.2f} M" if row.parameters else "-"
        total = row.latency.total if row.latency else None
        latency = [f"{value:.1f}" for value in (total.p50, total.p90, total.p99)] if total else ["-"] * 3
        table.add_row(title, miou, size, *latency)
    typer.echo()
    Console(highlight=False).print(table)


def _title(role: str, is_alone: bool) -> str:
    alone, together, senior, artifact = _TITLES
    return {"junior": alone if is_alone else together, "senior": senior, "artifact": artifact}[role]
