"""What is said of a finished export."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from segkc_deploy.engines import number_formats
from segkc_deploy.invocation import suggested_command
from segkc_deploy.manifest import LayerPrecision, Manifest, Verification


def summary(path: Path, manifest: Manifest) -> Iterator[str]:
    """Yield lines: what was built, how it was proven and which precision its layers have."""
    verification = manifest.verification
    assert verification is not None
    yield f"{path}  ({manifest.bytes / 2**20:.2f} MiB, {manifest.engine}, {manifest.precision})"
    yield from _proof(verification)
    if manifest.layer_precision is not None:
        yield from _layers(manifest.layer_precision)
        yield from _not_in_8_bits(manifest.engine, manifest.precision, manifest.layer_precision)
    if verification.subject == "graph":
        yield (
            f"  NOT VERIFIED AS BUILT: this machine cannot run it in {manifest.precision}, so the graph it was made"
            f" from was verified. On the target: {suggested_command('eval', path, '--data', 'data.yaml')}"
        )


def _proof(verification: Verification) -> Iterator[str]:
    yield (
        f"  agreement with the PyTorch junior: {verification.agreement:.4%} of pixels, {verification.images} images,"
        f" by {verification.ran_on}"
    )
    if verification.graph_agreement is not None:
        images = "" if verification.graph_images is None else f", {verification.graph_images} images"
        yield f"  of its graph, rounded at each tensor: {verification.graph_agreement:.4%}{images}"
    for check in verification.shapes:
        count, height, width = check.shape
        yield f"  {count} image{'s' if count > 1 else ''} of {height}x{width}: {check.agreement:.4%}"
    if verification.max_logit_difference is not None:
        yield f"  largest logit difference: {verification.max_logit_difference:.3g}"
    if verification.miou_network is not None:
        losses = [
            before - after
            for before, after in zip(verification.iou_network, verification.iou_artifact, strict=True)
            if before is not None and after is not None
        ]
        yield (
            f"  mIoU: junior {verification.miou_network:.2f}, artifact {verification.miou_artifact:.2f};"
            f" no class lost more than {max(0.0, *losses):.2f}"
        )


def _not_in_8_bits(engine: str, precision: str, found: LayerPrecision) -> Iterator[str]:
    """Say so where `runners.openvino_int8` keeps OpenVINO from computing in 8 bits."""
    if engine == "openvino" and "int8" in number_formats(precision) and "int8" not in found.layers:
        yield "  no layer runs in 8 bits here: this CPU's 8-bit products are not exact, so it is no faster than fp32"


def _layers(precision: LayerPrecision) -> Iterator[str]:
    for name, layers in sorted(precision.layers.items()):
        yield f"  {name}: {', '.join(f'{count} {operator}' for operator, count in sorted(layers.items()))}"
    kept = Counter(node.precision.upper() for node in precision.fallbacks)
    if kept:
        parts = "; ".join(f"in {name}: {count} layer{'s' if count > 1 else ''}" for name, count in sorted(kept.items()))
        yield f"  kept {parts}, listed in the manifest"
