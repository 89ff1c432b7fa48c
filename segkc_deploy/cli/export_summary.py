"""What `segkc-deploy export` says of a finished artifact."""

from pathlib import Path

import typer

from segkc_deploy.manifest import LayerPrecision, Manifest


def tell(path: Path, manifest: Manifest) -> None:
    """Print what was built, how it was proven and which precision its layers have."""
    verification = manifest.verification
    assert verification is not None
    typer.echo(f"{path}  ({manifest.bytes / 2**20:.2f} MiB, {manifest.engine}, {manifest.precision})")
    typer.echo(
        f"  agreement with the PyTorch junior: {verification.agreement:.4%} of pixels, {verification.images} images,"
        f" by {verification.ran_on}"
    )
    if verification.max_logit_difference is not None:
        typer.echo(f"  largest logit difference: {verification.max_logit_difference:.3g}")
    if verification.miou_network is not None:
        typer.echo(f"  mIoU: junior {verification.miou_network:.2f}, artifact {verification.miou_artifact:.2f}")
    if manifest.layer_precision is not None:
        _tell_layers(manifest.layer_precision)
    if verification.subject == "graph":
        typer.echo(
            "  NOT VERIFIED AS BUILT: this machine cannot run it, so the graph that it was made from was verified."
            f" On the target: segkc-deploy eval {path} --data data.yaml"
        )


def _tell_layers(precision: LayerPrecision) -> None:
    for name, layers in sorted(precision.layers.items()):
        counted = ", ".join(f"{count} {operator}" for operator, count in sorted(layers.items()))
        typer.echo(f"  {name}: {counted}")
    if precision.kept:
        typer.echo(f"  kept in a higher precision: {len(precision.kept)} layers, listed in the manifest")
