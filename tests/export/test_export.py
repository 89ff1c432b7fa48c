"""The export and its verification: the artifact agrees with the junior, or it does not get its name."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from tiny_data import CLASSES

import segkc_deploy
from segkc_deploy.data.images import read_image
from segkc_deploy.errors import ConfigError, DataError, RunDirectoryError, VerificationError
from segkc_deploy.export.deploy_graph import DeployGraph
from segkc_deploy.export.engines.base import BuildOptions, Range
from segkc_deploy.export.export_run import Exported, SharedWork, export_run
from segkc_deploy.export.mask_head import attach_mask_head
from segkc_deploy.export.precision.convert import ConvertedGraph
from segkc_deploy.export.precision.emulation import emulate
from segkc_deploy.export.settings import ExportSettings
from segkc_deploy.export.to_onnx import base_graph
from segkc_deploy.export.torch_activations import run_activation_peak
from segkc_deploy.export.torch_runner import TorchRunner, count_flops, describe_run, load_run_predictor
from segkc_deploy.export.verify import Limits, failure_reason, usual_images
from segkc_deploy.manifest import ShapeCheck, Verification, companion_path, read_manifest, sha256_of
from segkc_deploy.runners.onnx_runner import OnnxRuntimeRunner
from segkc_deploy.training.files.network_file import load_network
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.models.spec import NetworkSpec

pytestmark = pytest.mark.usefixtures("graphs_traced_once")


@pytest.fixture(scope="module")
def exported(run: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_run(run, data, out=tmp_path_factory.mktemp("artifacts"))


def test_the_artifact_keeps_the_contract(exported: Exported) -> None:
    model = onnx.load(exported.path)
    (source,), (masks, logits) = model.graph.input, model.graph.output
    dims = [dim.dim_value or dim.dim_param for dim in source.type.tensor_type.shape.dim]
    assert (source.name, source.type.tensor_type.elem_type) == ("images", onnx.TensorProto.UINT8)
    assert isinstance(dims[0], str)
    assert dims[1:] == [64, 64, 3]
    assert (masks.name, masks.type.tensor_type.elem_type) == ("masks", onnx.TensorProto.UINT8)
    assert (logits.name, logits.type.tensor_type.elem_type) == ("logits", onnx.TensorProto.FLOAT)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["names"]) == dict(zip("012", CLASSES, strict=True))
    assert json.loads(metadata["normalization"])["mean"] == [0.5, 0.5, 0.5]  # what timm says of this backbone
    assert json.loads(metadata["size"]) == [64, 64]
    assert json.loads(metadata["source"])["method"] == "segkc"


def test_the_manifest_tells_where_it_came_from_and_how_well_it_agrees(exported: Exported, run: Path) -> None:
    manifest = read_manifest(exported.path)
    assert manifest == exported.manifest
    assert manifest.sha256 == sha256_of(exported.path)
    assert manifest.source.weights_sha256 == sha256_of(run / "junior.safetensors")
    verification = manifest.verification
    assert verification is not None
    assert verification.images == 3
    assert verification.agreement >= 0.999
    assert verification.miou_network is not None
    assert verification.miou_artifact is not None
    assert abs(verification.miou_network - verification.miou_artifact) <= 0.1
    assert verification.finite
    assert verification.max_logit_difference is not None
    assert 0 <= verification.max_logit_difference < 1e-3


def test_nothing_of_senior_or_consultation_is_in_the_graph(exported: Exported, run: Path) -> None:
    held = sum(int(np.prod(tensor.dims)) for tensor in onnx.load(exported.path).graph.initializer)
    assert held <= exported.manifest.parameters * 1.01
    assert exported.manifest.parameters == describe_run(run).parameters
    assert describe_run(run, "senior").parameters > 2 * exported.manifest.parameters


def test_the_manifest_tells_how_much_memory_the_tensors_take(exported: Exported, run: Path) -> None:
    """The same as of the operations of the PyTorch network, whose widest part is far from the differing ends."""
    assert exported.manifest.activation_peak_bytes == run_activation_peak(run, "junior")


def test_masks_equal_the_eager_networks(exported: Exported, run: Path, data: Path) -> None:
    images = [read_image(path) for path in sorted((data.parent / "images" / "val").iterdir())]
    with segkc_deploy.load(exported.path, device="cpu") as artifact:
        reference = load_run_predictor(run, device="cpu")
        for got, expected, image in zip(
            artifact.predict(images, batch_size=2), reference.predict(images), images, strict=True
        ):
            assert got.shape == image.shape[:2]
            assert (got == expected).mean() >= 0.999


@pytest.mark.parametrize(
    ("backbone", "cells"),
    [
        ("vit_tiny_patch16_224", (2, 2)),
        ("vit_tiny_patch16_224", (2, 3)),
        ("vit_small_patch16_dinov3", (3, 2)),
        ("convnext_atto", (2, 3)),
    ],
)
def test_other_families_export_at_square_and_other_sizes(backbone: str, cells: tuple[int, int], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Segmenter(NetworkSpec(backbone=backbone, decoder_channels=16), num_classes=5).eval()
    for parameter in network.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    size = (cells[0] * network.size_multiple, cells[1] * network.size_multiple)
    path = tmp_path / "network.onnx"
    graph = DeployGraph(network, size)
    onnx.save(attach_mask_head(base_graph(graph, size), ["masks"], size, graph.network.decoder.align_corners), path)
    images = np.random.default_rng(0).integers(0, 256, (3, *size, 3)).astype(np.uint8)
    with OnnxRuntimeRunner(path, device="cpu") as runner, TorchRunner(graph, device="cpu") as reference:
        for batch in (images, images[:1]):
            agreement = (runner.infer(batch)["masks"] == reference.infer(batch)["masks"]).mean()
            assert agreement >= 0.999


def test_an_artifact_that_disagrees_is_kept_aside_with_the_layer_that_diverged(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segkc_deploy.export import export_run as module

    diverged = ""

    def with_a_wrong_layer(base: onnx.ModelProto, *rest: Any) -> ConvertedGraph:
        nonlocal diverged
        wrong = onnx.ModelProto()
        wrong.CopyFrom(base)
        layer = [node for node in wrong.graph.node if node.op_type == "Conv"][2]
        diverged = layer.output[0]
        (weights,) = (tensor for tensor in wrong.graph.initializer if tensor.name == layer.input[1])
        values = -numpy_helper.to_array(weights)
        weights.CopyFrom(numpy_helper.from_array(values, weights.name))
        return ConvertedGraph(wrong, base)

    monkeypatch.setattr(module, "convert_precision", with_a_wrong_layer)
    with pytest.raises(VerificationError, match="of the pixels agree") as raised:
        export_run(run, data, out=tmp_path)
    assert f"the first layer that diverges is {diverged}" in str(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "junior-fp32.onnx.rejected",
        "junior-fp32.onnx.rejected.json",
        "junior-fp32.onnx.rejected.layers.json",
    ]
    layers = json.loads((tmp_path / "junior-fp32.onnx.rejected.layers.json").read_text())
    assert next(layer["name"] for layer in layers if layer["diverged"]) == diverged
    assert not layers[0]["diverged"]


def test_a_failed_export_leaves_the_good_artifact(exported: Exported, run: Path, data: Path) -> None:
    before = sha256_of(exported.path)
    with pytest.raises(VerificationError):
        export_run(run, data, ExportSettings(limits=Limits(agreement=1.1)), out=exported.path.parent)
    assert read_manifest(exported.path).sha256 == before


def test_outputs_are_those_asked_for(run: Path, data: Path, tmp_path: Path) -> None:
    settings = ExportSettings(outputs=("logits", "confidence", "masks"), batch=Range(2, 2, 2))
    exported = export_run(run, data, settings, tmp_path)
    contract = exported.manifest.contract
    assert [output.name for output in contract.outputs] == ["logits", "confidence", "masks"]
    assert contract.batch == 2
    image = read_image(sorted((data.parent / "images" / "val").iterdir())[0])
    network, _ = load_network(run / "junior.safetensors")
    graph = DeployGraph(network, contract.size, settings.outputs)
    with (
        segkc_deploy.load(exported.path, device="cpu") as artifact,
        TorchRunner(graph, device="cpu") as reference,
    ):
        batch = artifact.preprocess([image, image])
        got, expected = artifact.infer(batch), reference.infer(batch)
    for name in ("logits", "confidence"):
        assert got[name].shape == expected[name].shape
        np.testing.assert_allclose(got[name], expected[name], atol=1e-4)
    probability = np.exp(expected["logits"].max(axis=-1)) / np.exp(expected["logits"]).sum(axis=-1)
    assert 0.3 < probability.min() <= got["confidence"].max() <= 1


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "vit_small_patch16_dinov3", "mobilenetv4_conv_small_050"])
def test_a_free_size_is_free_in_both_directions(backbone: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Segmenter(NetworkSpec(backbone=backbone, decoder_channels=16), num_classes=5).eval()
    for parameter in network.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    multiple = network.size_multiple
    model = base_graph(DeployGraph(network, None), (2 * multiple, 2 * multiple), free_size=True)
    infer = emulate(model)
    # Fixed-size networks are the reference: in them timm itself has resampled the positions.
    for height, width in ((2, 3), (5, 2), (15, 4), (3, 15)):
        size = (height * multiple, width * multiple)
        images = np.random.default_rng(height).integers(0, 256, (2, *size, 3)).astype(np.uint8)
        with TorchRunner(DeployGraph(network, size, ("logits",)), device="cpu") as reference:
            expected = np.moveaxis(reference.infer(images)["logits"], -1, 1)
        np.testing.assert_allclose(infer(images)[0], expected, atol=2e-5 * np.abs(expected).max() + 1e-6)


def test_attention_and_normalization_are_single_operators(tmp_path: Path) -> None:
    network = Segmenter(NetworkSpec(backbone="vit_tiny_patch16_224", decoder_channels=16), num_classes=3).eval()
    operators = Counter(node.op_type for node in base_graph(DeployGraph(network, (32, 48)), (32, 48)).graph.node)
    assert operators["Attention"] == 12
    assert operators["LayerNormalization"] >= 25
    assert operators["Gelu"] == 12
    assert operators["Softmax"] == operators["Erf"] == operators["ReduceMean"] == 0


def test_the_gate_by_images_alone(run: Path, data: Path, tmp_path: Path) -> None:
    exported = export_run(run, None, ExportSettings(precision="fp16"), tmp_path, str(data.parent / "images" / "val"))
    verification = exported.manifest.verification
    assert verification is not None
    assert verification.miou_network is None
    assert verification.agreement >= 0.995
    with pytest.raises(ConfigError, match="needs masks"):
        export_run(run, None, ExportSettings(precision="int8"), tmp_path, str(data.parent / "images" / "val"))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_precisions_pass_the_gate_and_say_what_they_are(
    precision: str, run: Path, data: Path, tmp_path: Path
) -> None:
    # The network of twelve steps scores by chance and by thin margins, so looser limits have to do.
    limits = Limits(agreement={"fp16": 0.99}.get(precision, 0.5))
    exported = export_run(run, data, ExportSettings(precision=precision, limits=limits), tmp_path)
    manifest = read_manifest(exported.path)
    layers = manifest.layer_precision
    assert layers is not None
    assert layers.source == "graph"
    assert layers.layers[precision]["Conv"] > 0
    verification = manifest.verification
    assert verification is not None
    assert verification.subject == ("artifact" if precision == "int8" else "graph")
    assert exported.path.stat().st_size < 0.8 * 4 * manifest.parameters


def test_mistakes_are_told(run: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the closest is 64x64"):
        export_run(run, data, ExportSettings(size=(60, 64)))
    with pytest.raises(ConfigError, match="did you mean trt"):
        export_run(run, data, ExportSettings(engine="trtt"))
    with pytest.raises(ConfigError, match="this engine takes fp32, fp16, int8"):
        export_run(run, data, ExportSettings(precision="fp8"))
    with pytest.raises(ConfigError, match="this engine takes dense"):
        export_run(run, data, ExportSettings(engine="aoti", upsampling="sparse"))
    with pytest.raises(ConfigError, match="without confidence"):
        ExportSettings(upsampling="sparse", outputs=("masks", "confidence"))
    with pytest.raises(ConfigError, match="masks or logits have to be among them"):
        ExportSettings(outputs=("confidence",))
    with pytest.raises(ConfigError, match="a range begins at 1"):
        ExportSettings(batch=Range(2, 4, 8))
    with pytest.raises(ConfigError, match="limits nothing"):
        ExportSettings(limits=Limits(agreement=float("nan")))
    with pytest.raises(ConfigError, match="there is no such precision"):
        ExportSettings(precision="fp4")
    with pytest.raises(ConfigError, match="name each once"):
        ExportSettings(outputs=("masks", "depth"))
    with pytest.raises(ConfigError, match="add --dynamic"):
        ExportSettings(min_size=(32, 32))
    with pytest.raises(ConfigError, match="takes no build options"):
        export_run(run, data, ExportSettings(options=BuildOptions(strip_weights=True)))
    with pytest.raises(ConfigError, match="--verify FOLDER"):
        export_run(run, None, out=tmp_path)
    with pytest.raises(RunDirectoryError, match="no such file"):
        export_run(tmp_path, data)
    other = tmp_path / "other.yaml"
    other.write_text(data.read_text().replace("- disk", "- ball").replace("root: .", f"root: {data.parent}"))
    with pytest.raises(DataError, match="ball"):
        export_run(run, other)


def test_flops_are_two_per_multiply_add() -> None:
    """Against a count by hand of every convolution's multiply-adds, from shapes seen in a forward pass."""
    network = Segmenter(NetworkSpec(backbone="resnet10t", decoder_channels=16), num_classes=5).eval()
    graph = DeployGraph(network, (64, 96))
    total = 0

    def count(module: torch.nn.Module, arguments: object, output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(module, torch.nn.Conv2d)
        total += 2 * output.numel() * module.in_channels // module.groups * int(np.prod(module.kernel_size))

    for module in graph.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    with torch.inference_mode():
        graph(torch.zeros(1, 64, 96, 3, dtype=torch.uint8))
    by_hand = total  # the hooks go on counting in the next pass
    assert count_flops(graph, (64, 96)) == by_hand


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, ""),
        ({"agreement": 0.9989}, "only 99.8900% of the pixels agree"),
        ({"graph_agreement": 0.9991}, ""),
        ({"graph_agreement": 0.9989}, "99.8900% of its graph's"),
        ({"confidence_difference": 0.04}, ""),
        ({"confidence_difference": 0.06}, "the confidence differs by 0.06"),
        ({"confidence_difference": float("nan")}, "the confidence differs by nan"),
        ({"finite": True}, ""),
        ({"finite": False}, "logits are NaN or infinite"),
        ({"shapes": (ShapeCheck(shape=(4, 32, 64), agreement=0.96),)}, ""),
        ({"shapes": (ShapeCheck(shape=(4, 32, 64), agreement=0.94),)}, "for 4 images of 32x64 (height x width)"),
        ({"miou_artifact": 69.6}, ""),
        ({"miou_artifact": 69.4}, "mIoU fell by 0.60, from 70.00 to 69.40"),
        ({"miou_artifact": 90.0}, ""),
        ({"miou_artifact": float("nan")}, "mIoU fell by nan"),
    ],
)
def test_the_gate_draws_its_lines_where_it_says(changes: dict[str, Any], told: str) -> None:
    facts = {"images": 3, "agreement": 0.9995, "required_agreement": 0.999}
    facts |= {"miou_network": 70.0, "miou_artifact": 70.0, "max_miou_loss": 0.5}
    reason = failure_reason(Verification(**(facts | changes)))
    assert told in reason
    assert bool(reason) == bool(told)


def test_limits_are_the_precisions_own_unless_named() -> None:
    assert ExportSettings().effective_limits == Limits(0.999, None)
    assert ExportSettings(precision="bf16").effective_limits == Limits(0.995, None)
    assert ExportSettings(precision="fp16").effective_limits == Limits(0.995, None)
    assert ExportSettings(precision="fp16", limits=Limits(miou_loss=1.0)).effective_limits == Limits(0.995, 1.0)
    assert ExportSettings(precision="int8").effective_limits == Limits(None, 0.5)
    assert ExportSettings(precision="int8", limits=Limits(agreement=0.9)).effective_limits == Limits(0.9, None)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ArgMax": "ArgMin"}, "of the pixels agree"),
        ({"Reciprocal": "Log"}, "the confidence differs"),
    ],
)
def test_each_output_is_judged_by_itself(
    changes: dict[str, str], told: str, run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks can be made from the logits, but programs without this package read the outputs as they are."""
    from segkc_deploy.export import export_run as module

    def wrong_mask_head(*arguments: Any) -> onnx.ModelProto:
        model = attach_mask_head(*arguments)
        for node in model.graph.node:
            if (
                node.name.startswith("mask_head/")
                or node.output[0] in ("masks", "confidence")
                or "mask_head/" in node.output[0]
            ):
                node.op_type = changes.get(node.op_type, node.op_type)
        return model

    monkeypatch.setattr(module, "attach_mask_head", wrong_mask_head)
    with pytest.raises(VerificationError, match=told):
        export_run(run, data, ExportSettings(outputs=("masks", "confidence", "logits")), tmp_path)


def test_the_reference_is_the_network_as_it_was_trained(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in the copy with baked positions must not be in the reference as well."""
    from segkc_deploy.export import deploy_graph
    from segkc_deploy.training.models.fixed_size import at_fixed_size

    def with_wrong_bias(network: Segmenter, size: tuple[int, int]) -> Segmenter:
        fixed = at_fixed_size(network, size)
        classifier = next(
            layer for layer in reversed(list(fixed.decoder.modules())) if isinstance(layer, torch.nn.Conv2d)
        )
        assert classifier.bias is not None
        classifier.bias.data[0] += 100
        return fixed

    monkeypatch.setattr(deploy_graph, "at_fixed_size", with_wrong_bias)
    with pytest.raises(VerificationError, match="of the pixels agree"):
        export_run(run, data, out=tmp_path)


@pytest.mark.parametrize("outputs", [("masks",), ("confidence", "masks"), ("logits", "masks")])
def test_the_gate_runs_the_network_once_for_each_image(
    outputs: tuple[str, ...], run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segkc_deploy.export import export_run as module

    passes: list[int] = []
    network, verify = DeployGraph.low_resolution_logits, module.verify

    def counted(graph: DeployGraph, images: torch.Tensor) -> torch.Tensor:
        passes.append(len(images))
        return network(graph, images)

    def watched(*arguments: Any) -> Verification:
        monkeypatch.setattr(DeployGraph, "low_resolution_logits", counted)
        return verify(*arguments)

    monkeypatch.setattr(module, "verify", watched)
    verification = export_run(run, data, ExportSettings(outputs=outputs), tmp_path).manifest.verification
    assert passes == [1, 1, 1]  # three validation images, which are known when they come as one batch
    assert verification is not None
    assert verification.agreement >= 0.999
    assert verification.graph_agreement is not None
    assert verification.graph_agreement >= 0.999


def test_further_precisions_do_not_run_the_network_again(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = SharedWork()
    first = export_run(run, data, ExportSettings(precision="fp16"), tmp_path, shared=shared).manifest.verification
    monkeypatch.setattr(TorchRunner, "infer", lambda self, images: pytest.fail("the network ran again"))
    second = export_run(run, data, ExportSettings(), tmp_path, shared=shared).manifest.verification
    assert first is not None
    assert second is not None
    assert first.images == second.images
    assert second.agreement >= first.agreement


def test_fewer_large_images_verify_than_small_ones() -> None:
    assert [usual_images(size) for size in ((64, 64), (288, 384), (518, 518), (1024, 2048))] == [200, 151, 62, 32]


def test_other_batches_and_sizes_are_tried(run: Path, data: Path, tmp_path: Path) -> None:
    free = ExportSettings(free_size=True, max_size=(96, 160), batch=Range(1, 1, 4))
    verification = export_run(run, data, free, tmp_path).manifest.verification
    assert verification is not None
    assert [check.shape for check in verification.shapes] == [(4, 64, 64), (1, 96, 160), (1, 64, 160), (1, 96, 64)]
    assert min(check.agreement for check in verification.shapes) >= 0.999
    worse = verification.shapes[2].model_copy(update={"agreement": 0.5})
    assert "64x160" in failure_reason(verification.model_copy(update={"shapes": (worse,)}))


def test_two_exports_into_one_folder_do_not_meet(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segkc_deploy.export import export_run as module

    verify = module.verify

    def while_another_is_exported(*arguments: Any) -> Verification:
        monkeypatch.setattr(module, "verify", verify)
        other = export_run(run, data, out=tmp_path)
        assert read_manifest(other.path) == other.manifest
        return verify(*arguments)

    monkeypatch.setattr(module, "verify", while_another_is_exported)
    exported = export_run(run, data, out=tmp_path)
    assert read_manifest(exported.path) == exported.manifest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["junior-fp32.onnx", "junior-fp32.onnx.json"]


def test_what_a_killed_build_left_is_no_part_of_the_next_and_goes_after_a_day(tmp_path: Path) -> None:
    from segkc_deploy.export.candidate import Candidate
    from segkc_deploy.export.engines.trt_engine import TensorRTEngine

    artifact = tmp_path / "junior-fp16.engine"
    killed, running = (Candidate(TensorRTEngine(), artifact) for _ in range(2))
    for candidate in (killed, running):
        candidate.path.write_bytes(b"plan")
        companion_path(candidate.path, ".weights.onnx").write_bytes(b"weights")
    for path in (killed.path, companion_path(killed.path, ".weights.onnx")):
        day_before = path.stat().st_mtime - 25 * 3600
        os.utime(path, (day_before, day_before))
    candidate = Candidate(TensorRTEngine(), artifact)
    candidate.tidy()
    assert set(tmp_path.iterdir()) == {running.path, companion_path(running.path, ".weights.onnx")}
    candidate.path.write_bytes(b"plan")
    assert candidate.fingerprint()["companions"] == {}
    candidate.discard()
    running.discard()
    assert not list(tmp_path.iterdir())
