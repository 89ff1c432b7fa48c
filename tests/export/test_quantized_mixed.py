"""8-bit products with 16 bits around them: what is in the graph, and that it says what the 8-bit graph says."""

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
from briefly_trained import briefly_trained
from onnx import TensorProto

from segkc_deploy.export.contract import contract_of
from segkc_deploy.export.deploy_graph import DeployGraph
from segkc_deploy.export.engines.base import BuildRequest, Range
from segkc_deploy.export.engines.registry import find_engine
from segkc_deploy.export.layer_precision import layer_precision_of
from segkc_deploy.export.mask_head import attach_mask_head
from segkc_deploy.export.precision.attention import decompose_attention
from segkc_deploy.export.precision.convert import formats_of
from segkc_deploy.export.precision.emulation import emulate
from segkc_deploy.export.precision.mixed import MixedPrecision, to_mixed_precision
from segkc_deploy.export.precision.qdq import INT8
from segkc_deploy.export.precision.quantize import Quantized, quantize
from segkc_deploy.export.precision.quantized_mixed import quantize_mixed
from segkc_deploy.export.to_onnx import base_graph
from segkc_deploy.manifest import FallbackNode
from segkc_deploy.runners.openvino_int8 import multiplies_8_bits_exactly
from segkc_deploy.runners.openvino_runner import OpenVINORunner

SIZE = (96, 128)


class Case:
    """A network that has learned a little, its FP32 graph, the same in INT8, and images."""

    def __init__(self, backbone: str) -> None:
        self.network, self.images = briefly_trained(backbone, SIZE)
        self.graph = DeployGraph(self.network, SIZE)
        self.base = decompose_attention(base_graph(self.graph, SIZE))
        self.calibration = [self.images[:4]]
        self.quantized: Quantized = quantize(self.base, "int8", self.calibration, lambda model: 50.0)

    def mixed(self, precision: Literal["fp16", "bf16"]) -> MixedPrecision:
        return to_mixed_precision(self.quantized.unquantized, precision, self.calibration)

    def with_16_bits(self, precision: Literal["fp16", "bf16"]) -> tuple[onnx.ModelProto, tuple[FallbackNode, ...]]:
        return quantize_mixed(self.mixed(precision), self.quantized, INT8)

    def masks(self, model: onnx.ModelProto) -> np.ndarray:
        run = emulate(attach_mask_head(model, ["masks"], SIZE, self.network.decoder.align_corners))
        return np.concatenate([run(self.images[place : place + 1])[0] for place in range(len(self.images))])


@pytest.fixture(scope="module", params=["test_vit", "mobilenetv4_conv_small_035"])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_products_are_8_bit_and_the_rest_is_what_it_was(case: Case, precision: Literal["fp16", "bf16"]) -> None:
    model, fallbacks = case.with_16_bits(precision)
    onnx.checker.check_model(model)
    found, without = layer_precision_of(model).layers, layer_precision_of(case.mixed(precision).model).layers
    quantized = layer_precision_of(case.quantized.model).layers["int8"]
    assert found["int8"] == quantized
    for kind in {*without[precision], *without["fp32"]}:
        before = without[precision].get(kind, 0) + without["fp32"].get(kind, 0)
        after = found[precision].get(kind, 0) + found["fp32"].get(kind, 0)
        assert after == before - quantized.get(kind, 0), kind
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer if tensor.name.endswith("/scale")}
    assert set(stored.values()) <= {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
    names = [node.name for node in fallbacks]
    assert len(set(names)) == len(names)
    assert not {layer.name for layer in case.quantized.layers}.intersection(names)


def test_a_product_of_activations_is_left_in_16_bits_and_said_to_be(case: Case) -> None:
    _, fallbacks = case.with_16_bits("fp16")
    products = [node for node in fallbacks if node.reason.startswith("multiplies two activations")]
    assert {node.precision for node in products} <= {"fp16"}
    assert bool(products) == any(node.op_type == "Softmax" for node in case.base.graph.node)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_masks_are_those_of_the_8_bit_graph(case: Case, precision: Literal["fp16", "bf16"]) -> None:
    expected, got = case.masks(case.quantized.model), case.masks(case.with_16_bits(precision)[0])
    assert np.unique(expected).size == 3
    assert (got == expected).mean() >= 0.98


@pytest.mark.openvino
def test_openvino_gives_the_masks_of_the_graph(case: Case, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    model, fallbacks = case.with_16_bits("bf16")
    contract = contract_of(case.network, SIZE)
    request = BuildRequest(
        model=attach_mask_head(case.quantized.model, ["masks"], SIZE, contract.align_corners),
        network=case.graph,
        contract=contract,
        precision="int8-bf16",
        batch=Range(1, 1, 8),
        heights=Range(*[SIZE[0]] * 3),
        widths=Range(*[SIZE[1]] * 3),
        path=tmp_path / "junior.xml",
        fallbacks=fallbacks,
    )
    built = find_engine("openvino").build(request)
    assert built.build is not None and built.layer_precision is not None
    assert built.build.options == {"inference_precision": "bf16"}
    # Where 8-bit products are not exact, these layers compute in FP32.
    in_8_bits = sum(built.layer_precision.layers.get("int8", {}).values())
    assert (in_8_bits > 0) == multiplies_8_bits_exactly(openvino)
    with OpenVINORunner(request.path, "cpu", 1, inference_precision="bf16") as runner:
        got = np.concatenate([runner.infer(image[None])["masks"] for image in case.images])
    assert (got == case.masks(model)).mean() >= 0.97  # rounded at other places


def test_formats_are_read_from_the_precisions_name() -> None:
    named = {name: formats_of(name) for name in ("fp32", "fp16", "int8", "int8-bf16", "fp8-fp16")}
    assert named == {
        "fp32": (None, None),
        "fp16": (None, "fp16"),
        "int8": ("int8", None),
        "int8-bf16": ("int8", "bf16"),
        "fp8-fp16": ("fp8", "fp16"),
    }
