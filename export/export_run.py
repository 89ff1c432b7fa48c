"""`segkc-deploy export`: from a run directory to an artifact that is proven to agree with its junior."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from segkc_deploy.data.masks import read_sample
from segkc_deploy.errors import ConfigError
from segkc_deploy.export.candidate import Candidate
from segkc_deploy.export.contract import contract_of
from segkc_deploy.export.deploy_graph import LOGITS, MASKS, DeployGraph
from segkc_deploy.export.engines.base import BuildRequest, Engine, Range
from segkc_deploy.export.engines.registry import find_engine
from segkc_deploy.export.graph_activations import graph_activation_peak
from segkc_deploy.export.graph_runner import GraphRunner
from segkc_deploy.export.layer_comparison import compare_layers, first_divergence, write_differences
from segkc_deploy.export.layer_precision import layer_precision_of
from segkc_deploy.export.mask_head import attach_mask_head
from segkc_deploy.export.older_opset import in_older_opset
from segkc_deploy.export.precision.attention import decompose_attention
from segkc_deploy.export.precision.convert import ConvertedGraph, convert_precision, formats_of
from segkc_deploy.export.precision.emulation import emulate
from segkc_deploy.export.real_images import RealImages, real_images
from segkc_deploy.export.remembering_runner import RememberingRunner
from segkc_deploy.export.settings import ExportSettings
from segkc_deploy.export.to_onnx import OPSET, add_metadata, base_graph, checked, fix_batch
from segkc_deploy.export.torch_activations import torch_activation_peak
from segkc_deploy.export.torch_runner import TorchRunner, count_flops
from segkc_deploy.export.verify import failure_reason, other_shapes, usual_images, verify
from segkc_deploy.invocation import command_line
from segkc_deploy.machine import describe_machine
from segkc_deploy.manifest import Contract, Manifest, Normalization, Source, Verification, sha256_of
from segkc_deploy.pixel_format import PixelFormat
from segkc_deploy.predictor import Predictor, used_outputs
from segkc_deploy.preprocess import resize_image
from segkc_deploy.progress import console
from segkc_deploy.runners.base import Runner
from segkc_deploy.runners.factory import create_runner
from segkc_deploy.training.files.network_file import NetworkMetadata, load_network
from segkc_deploy.training.models.fixed_size import check_size
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.models.size_refusal import size_in_words, size_refusal, takes_every_multiple
from segkc_deploy.validation import require_text

#: Batch sizes for an engine that has to be told some.
_USUAL_BATCH = Range(1, 1, 8)


@dataclass(frozen=True)
class Exported:
    """A finished export: the artifact's path and everything known about it."""

    path: Path
    manifest: Manifest


@dataclass
class SharedWork:
    """What exports of one run with the same data and sizes have in common; the first one fills it."""

    base: onnx.ModelProto | None = None
    converted: dict[tuple[str, bool], ConvertedGraph] = field(default_factory=dict)
    networks: dict[frozenset[str], RememberingRunner] = field(default_factory=dict)


def export_run(
    run: Path,
    data: Path | None = None,
    settings: ExportSettings | None = None,
    out: Path | None = None,
    verify_source: str | None = None,
    shared: SharedWork | None = None,
) -> Exported:
    """Export the junior of a run and verify the artifact on real images.

    Args:
        run: the run directory.
        data: the data spec: its validation images verify the artifact, its training images calibrate.
        settings: engine, precision, sizes, limits.
        out: folder of the artifact; by default the run directory.
        verify_source: an image, a folder or a glob pattern of images, without masks, that verify instead.
        shared: graphs of earlier exports that differ in engine and precision alone.

    Raises:
        UserError: the run, the data, the engine or a setting cannot be used.
        BuildError: the engine's builder refused the graph.
        VerificationError: the artifact does not agree with the junior. It is renamed `<name>.rejected`.
    """
    settings = settings or ExportSettings()
    require_text(out or run, "--out")
    engine = find_engine(settings.engine)
    if settings.precision not in engine.precisions:
        raise ConfigError(
            f"--engine {engine.name} --precision {settings.precision}: this engine takes {', '.join(engine.precisions)}"
        )
    if settings.upsampling not in (None, *engine.upsampling):
        raise ConfigError(
            f"--engine {engine.name} --upsampling {settings.upsampling}: this engine takes"
            f" {', '.join(engine.upsampling)}"
        )
    if settings.opset != OPSET and engine.name != "onnx":
        raise ConfigError(f"--opset {settings.opset}: --engine {engine.name} writes no ONNX file; leave --opset out")
    engine.check(settings.options, settings.precision)
    network, metadata = load_network(run / "junior.safetensors")
    _check_format(network.pixels, engine.name, settings.precision)
    check_size(settings.size or metadata.input_size, network.size_multiple)
    verify_images = settings.verify_images or usual_images(settings.size or metadata.input_size)
    images = real_images(metadata, data, verify_source, verify_images, settings.calibration_images)
    limits = settings.effective_limits
    if limits.miou_loss is not None and not images.masks:
        raise ConfigError(
            f"--precision {settings.precision} is judged by its loss of mIoU, which needs masks:"
            " leave --verify out, or give --min-agreement to go by agreement alone"
        )
    export = _Export(run, network, metadata, engine, settings, images, shared or SharedWork())
    candidate = Candidate(engine, (out or run) / f"junior-{settings.precision}{engine.suffix}")
    candidate.artifact.parent.mkdir(parents=True, exist_ok=True)
    candidate.tidy()
    try:
        return export.make(candidate)
    finally:
        candidate.discard()


def _check_format(pixels: PixelFormat, engine: str, precision: str) -> None:
    """Refuse what has not been shown to work: half precisions cannot hold 16-bit values, nor TensorRT take them."""
    if pixels.bits == 16 and (engine, precision) != ("onnx", "fp32"):
        raise ConfigError(
            f"--engine {engine} --precision {precision}: images of 16 bits are exported with --engine"
            " onnx --precision fp32 alone"
        )


def _require_size(network: Segmenter, size: tuple[int, int], free_size: bool) -> None:
    """Refuse a size that the backbone does not take, which would end in an error of the tracer."""
    if reason := size_refusal(network, size):
        raise ConfigError(
            f"size {size_in_words(size)}: {network.spec.backbone} cannot take it: {reason}; export with a --size that"
            " it takes, such as that of the training's crops"
        )
    if free_size and not takes_every_multiple(network, size):
        raise ConfigError(
            f"--dynamic: {network.spec.backbone} does not take every multiple of {network.size_multiple}; export one"
            " file for each --size"
        )


class _Export:
    """One export; what its steps share."""

    def __init__(
        self,
        run: Path,
        network: Segmenter,
        metadata: NetworkMetadata,
        engine: Engine,
        settings: ExportSettings,
        images: RealImages,
        shared: SharedWork,
    ) -> None:
        self.run, self.network, self.metadata = run, network, metadata
        self.engine, self.settings, self.images, self.shared = engine, settings, images, shared
        self.size = settings.size or metadata.input_size
        self.outputs = tuple(settings.outputs or engine.default_outputs)
        self.smallest, self.largest = settings.size_range(self.size, network.size_multiple)
        _require_size(network, self.size, settings.free_size)
        self.graph = DeployGraph(network, None if settings.free_size else self.size, self.outputs)
        self.contract = self._contract()

    def make(self, candidate: Candidate) -> Exported:
        settings = self.settings
        converted = self._converted()
        hinted = settings.precision in self.engine.hinted_precisions
        model = self._with_mask_head(converted.without_16_bits if hinted else converted.model)
        manifest = self._manifest(candidate.artifact, self._activation_peak(model))
        model = self._complete(model, manifest)
        built = self.engine.build(self._request(model, candidate.path, converted))
        manifest = manifest.model_copy(
            update=candidate.fingerprint()
            | {
                "build": built.build,
                "layer_precision": (built.layer_precision or layer_precision_of(model)).model_copy(
                    update={"fallbacks": converted.fallbacks, "calibration": converted.method}
                ),
            }
        )
        verification = self._verify(candidate, manifest, model, converted)
        manifest = manifest.model_copy(update={"verification": verification})
        if reason := failure_reason(verification):
            differences = compare_layers(converted.reference, converted.model, self._an_image())
            error = candidate.reject(manifest, f"{reason}; {first_divergence(differences)}")
            write_differences(candidate.layers, differences)
            raise error
        candidate.accept(manifest)
        return Exported(candidate.artifact, manifest)

    def _converted(self) -> ConvertedGraph:
        """Return the graph of logits in the precision asked for."""
        settings, shared = self.settings, self.shared
        if shared.base is None:
            shared.base = base_graph(self.graph, self.size, settings.free_size)
            if settings.opset != OPSET:
                shared.base = checked(in_older_opset(decompose_attention(shared.base), settings.opset))
        key = (settings.precision, self.engine.fused_attention)
        if key not in shared.converted:
            before = shared.converted.get((formats_of(settings.precision)[0] or "", self.engine.fused_attention))
            shared.converted[key] = convert_precision(
                shared.base,
                settings.precision,
                self.engine.fused_attention,
                self.size,
                self.contract.align_corners,
                self.images,
                settings.effective_limits.miou_loss,
                before.quantized if before else None,
            )
        return shared.converted[key]

    def _with_mask_head(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Return a graph of logits with the contract's outputs, for any batch."""
        size = None if self.settings.free_size else self.size
        kind = "dense" if size is None else self.settings.upsampling or self.engine.upsampling[0]
        return checked(attach_mask_head(model, self.outputs, size, self.contract.align_corners, kind))

    def _activation_peak(self, model: onnx.ModelProto) -> int:
        """Return the peak for one image of what the engine is made from."""
        if self.engine.from_onnx:
            return graph_activation_peak(model, self._an_image())
        return torch_activation_peak(self.graph.eval(), self.size)

    def _complete(self, model: onnx.ModelProto, manifest: Manifest) -> onnx.ModelProto:
        """Fix the batch where it is fixed, and add the description of the junior."""
        complete = fix_batch(model, self.contract.batch) if self.contract.batch > 0 else model
        add_metadata(complete, manifest)
        return complete

    def _contract(self) -> Contract:
        settings = self.settings
        batch = settings.batch
        if batch is None and not self.engine.any_batch:
            batch = _USUAL_BATCH
        fixed = batch is not None and batch.min == batch.max
        return contract_of(
            self.network,
            self.size,
            self.outputs,
            batch=batch.max if batch is not None and fixed else -1,
            max_batch=batch.max if batch is not None and not fixed else None,
            free_size=settings.free_size,
            min_size=self.smallest if settings.free_size else None,
            max_size=self.largest if settings.free_size else None,
        )

    def _request(self, model: onnx.ModelProto, path: Path, converted: ConvertedGraph) -> BuildRequest:
        heights, widths = zip(self.smallest, self.size, self.largest, strict=True)
        return BuildRequest(
            model=model,
            network=self.graph,
            contract=self.contract,
            precision=self.settings.precision,
            batch=self.settings.batch or _USUAL_BATCH,
            heights=Range(*heights),
            widths=Range(*widths),
            path=path,
            options=self.settings.options,
            fallbacks=converted.fallbacks,
        )

    def _verify(
        self, candidate: Candidate, manifest: Manifest, model: onnx.ModelProto, converted: ConvertedGraph
    ) -> Verification:
        """Run the artifact, or where this machine cannot, its graph."""
        device = self.engine.verification_device(self.settings.precision, self.settings.options)
        logits = emulate(converted.model) if self.engine.from_onnx else None
        with self._runner(candidate.path, manifest, device, model) as runner, self._network() as network:
            verification = verify(
                Predictor(runner, self.metadata.labels, self.contract),
                Predictor(network, self.metadata.labels, self.contract),
                (lambda batch: logits(batch)[0]) if logits else None,
                self.images,
            )
            subject: Literal["artifact", "graph"] = "graph" if isinstance(runner, GraphRunner) else "artifact"
            # What `load` opens gives some of the outputs, for which an engine may join layers otherwise.
            used = used_outputs(self.contract)
            opens_others = subject == "artifact" and used != self.outputs
            others = (
                self._runner(candidate.path, manifest, device, model, used) if opens_others else nullcontext(runner)
            )
            with others as opened:
                artifact, reference = (Predictor(one, self.metadata.labels, self.contract) for one in (opened, network))
                shapes = tuple(other_shapes(artifact, reference, self.images))
        limits = self.settings.effective_limits
        facts = {"subject": subject, "required_agreement": limits.agreement, "max_miou_loss": limits.miou_loss}
        return verification.model_copy(update=facts | {"shapes": shapes})

    def _network(self) -> RememberingRunner:
        """Return what runs the network as it was trained, not the copy with baked positions that was exported.

        On the CPU: its own rounding is then the same on every machine.
        """
        outputs = frozenset((*self.outputs, LOGITS))
        if outputs not in self.shared.networks:
            graph = DeployGraph(self.network, None, tuple(sorted(outputs)))
            self.shared.networks[outputs] = RememberingRunner(TorchRunner(graph, device="cpu"))
        return self.shared.networks[outputs]

    @contextmanager
    def _runner(
        self,
        path: Path,
        manifest: Manifest,
        device: str,
        model: onnx.ModelProto,
        outputs: tuple[str, ...] | None = None,
    ) -> Iterator[Runner]:
        """Yield what runs the artifact, or its graph where this machine cannot, activated."""
        runner: Runner = create_runner(path, manifest, device, outputs=outputs) if device else GraphRunner(model)
        try:
            runner.activate()
        except ConfigError as error:
            # A driver without the libraries that the engine needs, for instance.
            console.print(f"the graph is verified instead of the artifact: {error}", soft_wrap=True, markup=False)
            runner = GraphRunner(model)
            runner.activate()
        try:
            yield runner
        finally:
            runner.deactivate()

    def _an_image(self) -> np.ndarray:
        image, _ = read_sample(self.images.verification[0], self.images.sets)
        return resize_image(image, self.size)[None]

    def _manifest(self, artifact: Path, activation_peak: int) -> Manifest:
        network, metadata = self.network, self.metadata
        flops_graph = self.graph if not self.settings.free_size else DeployGraph(network, self.size, (MASKS,))
        return Manifest(
            artifact=artifact.name,
            sha256="",
            bytes=0,
            engine=self.engine.name,
            precision=self.settings.precision,
            contract=self.contract,
            labels=metadata.labels,
            normalization=Normalization(mean=network.backbone.mean, std=network.backbone.std),
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            flops=count_flops(flops_graph, self.size),
            activation_peak_bytes=activation_peak,
            source=Source(
                run=str(self.run),
                weights_sha256=sha256_of(self.run / "junior.safetensors"),
                recipe=metadata.recipe,
                method=metadata.method,
                step=metadata.step,
                backbone=metadata.network.backbone,
                decoder=type(network.decoder).__name__.removesuffix("Decoder").lower(),
            ),
            machine=describe_machine(),
            command=command_line(),
            created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        )
