"""ONNX files in an older opset: the same numbers, and a refusal where the opset lacks an operator."""

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from segkc_deploy.errors import ConfigError
from segkc_deploy.export.deploy_graph import DeployGraph
from segkc_deploy.export.export_run import export_run
from segkc_deploy.export.older_opset import in_older_opset
from segkc_deploy.export.precision.attention import decompose_attention
from segkc_deploy.export.precision.emulation import emulate
from segkc_deploy.export.settings import ExportSettings
from segkc_deploy.export.to_onnx import base_graph, checked
from segkc_deploy.export.verify import Limits
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.models.spec import NetworkSpec


def opset_of(model: onnx.ModelProto) -> int:
    (opset,) = model.opset_import
    assert opset.domain == ""
    return opset.version


@cache
def traced(backbone: str, size: tuple[int, int], free_size: bool) -> onnx.ModelProto:
    torch.manual_seed(0)
    network = Segmenter(NetworkSpec(backbone=backbone, decoder_channels=16), num_classes=5).eval()
    for parameter in network.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return base_graph(DeployGraph(network, None if free_size else size), size, free_size)


@pytest.mark.parametrize(
    ("backbone", "least", "free_size"),
    [("vit_tiny_patch16_224", 20, False), ("vit_tiny_patch16_224", 20, True), ("mobilenetv4_conv_small_050", 18, True)],
)
def test_an_older_graph_computes_the_same_under_the_same_names(backbone: str, least: int, free_size: bool) -> None:
    model = traced(backbone, (64, 96), free_size)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3)).astype(np.uint8)
    (expected,) = emulate(model)(images)
    apart = decompose_attention(model)
    older = checked(in_older_opset(apart, least))
    assert (opset_of(model), opset_of(older)) == (23, least)
    # The IR versions that came with these opsets.
    assert older.ir_version == {18: 8, 20: 9}[least]
    assert [(node.op_type, *node.input, *node.output) for node in older.graph.node] == [
        (node.op_type, *node.input, *node.output) for node in apart.graph.node
    ]
    np.testing.assert_allclose(emulate(older)(images)[0], expected, atol=2e-5 * np.abs(expected).max())


def test_an_operator_that_an_opset_lacks_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^--opset 19: this network's graph has Gelu; give --opset 20 or more$"):
        in_older_opset(decompose_attention(traced("vit_tiny_patch16_224", (64, 96), False)), 19)


@pytest.mark.usefixtures("graphs_traced_once")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_artifact_of_an_older_opset_passes_the_gate(precision: str, run: Path, data: Path, tmp_path: Path) -> None:
    # The network of twelve steps scores by chance and by thin margins, so looser limits have to do.
    limits = Limits(agreement={"fp16": 0.99, "int8": 0.5}.get(precision))
    exported = export_run(run, data, ExportSettings(precision=precision, opset=20, limits=limits), tmp_path)
    model = onnx.load(exported.path)
    assert (opset_of(model), model.ir_version) == (20, 9)
    onnx.checker.check_model(model, full_check=True)
    assert exported.manifest.verification is not None
    assert exported.manifest.layer_precision is not None
    assert exported.manifest.layer_precision.layers[precision]["Conv"] > 0
