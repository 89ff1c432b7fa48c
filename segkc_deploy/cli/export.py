"""`segkc-deploy export`."""

from pathlib import Path
from typing import Annotated

import typer

from segkc_deploy.cli.app import app


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    engine: Annotated[str, typer.Option(help="onnx")] = "onnx",
    data: Annotated[
        Path | None, typer.Option(help="Data spec whose validation images judge the artifact; by default the run's.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the artifact; by default the run directory.")] = None,
    size: Annotated[
        str | None, typer.Option(help="Input size, 518 or 360x480 (height x width); by default the validated size.")
    ] = None,
    verify: Annotated[int, typer.Option(min=1, help="Validation images to verify on, at most.")] = 200,
) -> None:
    """Export the junior, and only the junior, and prove that the artifact agrees with it.

    Example: `segkc-deploy export runs/a --engine onnx --size 352x480`
    """
    from segkc_deploy.cli.extras import needs_extra

    with needs_extra("export"):
        from segkc_deploy.export.export_run import export_run
        from segkc_deploy.training.run_directory import RunDirectory, read_config

    from segkc_deploy.cli.sizes import parse_size

    data = data or read_config(RunDirectory(run))[1]
    exported = export_run(run, data, engine, out, parse_size(size) if size else None, verify)
    verification = exported.manifest.verification
    assert verification is not None
    typer.echo(f"{exported.path}  ({exported.manifest.bytes / 2**20:.2f} MiB)")
    typer.echo(
        f"  agreement with the PyTorch junior: {verification.agreement:.4%} of pixels, {verification.images} images"
    )
    typer.echo(f"  largest logit difference: {verification.max_logit_difference:.3g}")
    typer.echo(f"  mIoU: junior {verification.miou_network:.2f}, artifact {verification.miou_artifact:.2f}")
