"""The export and its gate: the artifact agrees with the junior, or it does not get its name."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tiny_data import CLASSES, tiny_recipe, write_recipe, write_tiny_data

import segkc_deploy
from segkc_deploy.data.images import read_image
from segkc_deploy.errors import ConfigError, DataError, RunDirectoryError, VerificationError
from segkc_deploy.export.deploy_graph import DeployGraph
from segkc_deploy.export.export_run import Exported, export_run
from segkc_deploy.export.to_onnx import export_onnx
from segkc_deploy.export.torch_runner import TorchRunner, count_flops, describe_run, load_run_predictor
from segkc_deploy.manifest import read_manifest, sha256_of
from segkc_deploy.runners.onnx_runtime import OnnxRuntimeRunner
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.models.spec import NetworkSpec
from segkc_deploy.training.train import train_run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    recipe = write_recipe(folder / "tiny.yaml", tiny_recipe())
    return train_run(data, str(recipe), folder / "run", ["schedule.steps=12"], device="cpu").path


@pytest.fixture(scope="module")
def exported(run: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_run(run, data, out=tmp_path_factory.mktemp("artifacts"))


def test_the_artifact_keeps_the_contract(exported: Exported) -> None:
    model = onnx.load(exported.path)
    (source,), (masks,) = model.graph.input, model.graph.output
    dims = [dim.dim_value or dim.dim_param for dim in source.type.tensor_type.shape.dim]
    assert (source.name, source.type.tensor_type.elem_type) == ("images", onnx.TensorProto.UINT8)
    assert isinstance(dims[0], str)
    assert dims[1:] == [64, 64, 3]
    assert (masks.name, masks.type.tensor_type.elem_type) == ("masks", onnx.TensorProto.UINT8)
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
    assert abs(verification.miou_network - verification.miou_artifact) <= 0.1
    assert 0 <= verification.max_logit_difference < 1e-3


def test_nothing_of_senior_or_consultation_is_in_the_graph(exported: Exported, run: Path) -> None:
    held = sum(int(np.prod(tensor.dims)) for tensor in onnx.load(exported.path).graph.initializer)
    assert held <= exported.manifest.parameters * 1.01
    assert exported.manifest.parameters == describe_run(run).parameters
    assert describe_run(run, "senior").parameters > 2 * exported.manifest.parameters


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
    export_onnx(graph, size, path)
    images = np.random.default_rng(0).integers(0, 256, (3, *size, 3)).astype(np.uint8)
    with OnnxRuntimeRunner(path, device="cpu") as runner, TorchRunner(graph, device="cpu") as reference:
        for batch in (images, images[:1]):
            agreement = (runner.infer(batch)["masks"] == reference.infer(batch)["masks"]).mean()
            assert agreement >= 0.999


def test_an_artifact_that_disagrees_is_kept_aside(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segkc_deploy.export import export_run as module

    def wrong_colors(graph: DeployGraph, size: tuple[int, int], path: Path) -> None:
        graph.network.mean.fill_(0.9)
        export_onnx(graph, size, path)
        graph.network.mean.fill_(0.45)

    monkeypatch.setattr(module, "export_onnx", wrong_colors)
    with pytest.raises(VerificationError, match="of the pixels agree"):
        export_run(run, data, out=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "junior-fp32.onnx.rejected",
        "junior-fp32.onnx.rejected.json",
    ]


def test_a_failed_export_leaves_the_good_artifact(exported: Exported, run: Path, data: Path) -> None:
    before = sha256_of(exported.path)
    with pytest.raises(VerificationError):
        export_run(run, data, out=exported.path.parent, required_agreement=1.1)
    assert read_manifest(exported.path).sha256 == before


def test_mistakes_are_told(run: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the closest is 64x64"):
        export_run(run, data, size=(60, 64))
    with pytest.raises(ConfigError, match="--engine trt"):
        export_run(run, data, engine="trt")
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
