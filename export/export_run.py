"""`segkc-deploy export`: from a run directory to an artifact that is proven to agree with its junior."""

import time
from dataclasses import dataclass
from pathlib import Path

from segkc_deploy.data.samples import ImageSets
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import ConfigError, DataError, VerificationError
from segkc_deploy.export.deploy_graph import DeployGraph
from segkc_deploy.export.to_onnx import add_metadata, export_onnx
from segkc_deploy.export.torch_runner import TorchRunner, contract, count_flops
from segkc_deploy.export.verify import verify
from segkc_deploy.invocation import command_line
from segkc_deploy.machine import describe_machine
from segkc_deploy.manifest import (
    Manifest,
    Normalization,
    Source,
    Verification,
    manifest_path,
    sha256_of,
    write_manifest,
)
from segkc_deploy.predictor import Predictor
from segkc_deploy.runners.onnx_runtime import OnnxRuntimeRunner
from segkc_deploy.training.models.fixed_size import check_size
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.network_file import NetworkCard, load_network

#: Share of pixels that has to agree with the PyTorch junior, by precision.
REQUIRED_AGREEMENT = {"fp32": 0.999}


@dataclass(frozen=True)
class Exported:
    """A finished export: the artifact's path and everything known about it."""

    path: Path
    manifest: Manifest


def export_run(
    run: Path,
    data: Path,
    engine: str = "onnx",
    out: Path | None = None,
    size: tuple[int, int] | None = None,
    images: int = 200,
    required_agreement: float | None = None,
) -> Exported:
    """Export the junior of a run and verify the artifact on real images.

    Args:
        run: the run directory.
        data: the data spec whose validation images judge the artifact.
        engine: `onnx`.
        out: folder of the artifact; by default the run directory.
        size: (height, width) of the input; by default the size at which the run was validated.
        images: validation images used, at most.
        required_agreement: share of pixels (0-1) that has to agree; by default 0.999 for FP32.

    Raises:
        UserError: the run, the data, the engine or the size cannot be used.
        VerificationError: the artifact does not agree with the junior. It is kept as `<name>.rejected`.
    """
    if engine != "onnx":
        raise ConfigError(
            f"--engine {engine}: this version builds onnx; TensorRT's own trtexec builds an engine from that file"
            " (trtexec --onnx=junior-fp32.onnx --saveEngine=junior.engine)"
        )
    precision = "fp32"
    network, card = load_network(run / "junior.safetensors")
    size = size or card.input_size
    check_size(size, network.size_multiple)
    sets = load_data_spec(data).resolve()
    _check_data(sets, card, data)

    artifact = (out or run) / f"junior-{precision}.onnx"
    candidate = artifact.with_name(f".{artifact.name}.unverified")
    try:
        graph = DeployGraph(network, size)
        export_onnx(graph, size, candidate)
        manifest = _manifest(artifact, run, card, network, graph, size, precision)
        add_metadata(candidate, manifest)
        required = REQUIRED_AGREEMENT[precision] if required_agreement is None else required_agreement
        verification = _verify(candidate, graph, card, size, sets, images, required)
        facts = {"sha256": sha256_of(candidate), "bytes": candidate.stat().st_size, "verification": verification}
        return _judge(candidate, artifact, manifest.model_copy(update=facts))
    finally:
        candidate.unlink(missing_ok=True)


def _judge(candidate: Path, artifact: Path, manifest: Manifest) -> Exported:
    """Give a verified candidate its name, or the name of a rejected one."""
    verification = manifest.verification
    assert verification is not None
    rejected = artifact.with_name(artifact.name + ".rejected")
    finite = verification.max_logit_difference != float("inf")
    if not finite or verification.agreement < verification.required_agreement:
        candidate.replace(rejected)
        write_manifest(rejected, manifest)
        reason = (
            f"only {verification.agreement:.4%} of the pixels agree with the PyTorch junior"
            f" ({verification.required_agreement:.4%} are required;"
            f" largest logit difference {verification.max_logit_difference:.3g})"
            if finite
            else "logits are NaN or infinite"
        )
        raise VerificationError(f"{rejected}: {reason}; it is kept under this name and must not be deployed")
    # Interrupted between the two, an older artifact and the new manifest do not match, and loading refuses the pair.
    write_manifest(artifact, manifest)
    candidate.replace(artifact)
    for leftover in (rejected, manifest_path(rejected)):
        leftover.unlink(missing_ok=True)
    return Exported(artifact, manifest)


def _check_data(sets: ImageSets, card: NetworkCard, data: Path) -> None:
    if not sets.val:
        raise DataError(f"{data}: no validation images, and an artifact is verified on them (section `val:`)")
    if sets.labels.names != card.labels.names:
        raise DataError(f"{data}: its classes ({', '.join(sets.labels.names)}) are not those the junior was trained on")


def _verify(
    path: Path,
    graph: DeployGraph,
    card: NetworkCard,
    size: tuple[int, int],
    sets: ImageSets,
    images: int,
    required: float,
) -> Verification:
    # Both on the CPU: the gate judges the graph, not a GPU's rounding.
    with OnnxRuntimeRunner(path, device="cpu") as runner, TorchRunner(graph, device="cpu") as reference:
        artifact = Predictor(runner, card.labels, contract(size))
        return verify(artifact, reference, path, sets, images, required)


def _manifest(
    artifact: Path,
    run: Path,
    card: NetworkCard,
    network: Segmenter,
    graph: DeployGraph,
    size: tuple[int, int],
    precision: str,
) -> Manifest:
    return Manifest(
        artifact=artifact.name,
        sha256="",
        bytes=0,
        engine="onnx",
        precision=precision,
        contract=contract(size),
        labels=card.labels,
        normalization=Normalization(mean=network.backbone.mean, std=network.backbone.std),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        flops=count_flops(graph, size),
        source=Source(
            run=str(run),
            weights_sha256=sha256_of(run / "junior.safetensors"),
            recipe=card.recipe,
            method=card.method,
            step=card.step,
            backbone=card.network.backbone,
            decoder=type(network.decoder).__name__.removesuffix("Decoder").lower(),
        ),
        machine=describe_machine(),
        command=command_line(),
        created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )
