"""Biases that take back what rounding shifts on average, against NumPy."""

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from briefly_trained import briefly_trained
from onnx import NodeProto, TensorProto, helper, numpy_helper

from segkc_deploy.export.deploy_graph import DeployGraph
from segkc_deploy.export.precision.attention import decompose_attention
from segkc_deploy.export.precision.bias_correction import correct_biases, mean_shifts
from segkc_deploy.export.precision.emulation import emulate
from segkc_deploy.export.precision.qdq import INT8, Layer, find_layers, insert_qdq
from segkc_deploy.export.precision.quantize import quantize
from segkc_deploy.export.to_onnx import base_graph

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 6, 8, 3)).astype(np.uint8)
WEIGHT = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
BIAS = np.random.default_rng(2).normal(size=5).astype(np.float32)

#: Kept of the pixels; no pixel lies half way between two of the 127 steps.
CUT = 203.7

#: Ways to write the same product of pixels and weights with a bias: nodes, and constants.
PRODUCTS: dict[str, tuple[list[NodeProto], dict[str, np.ndarray]]] = {
    "conv": (
        [
            helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["planes", "weight", "bias"], ["logits"], "product"),
        ],
        {"weight": WEIGHT[..., None, None], "bias": BIAS},
    ),
    "matmul": (
        [
            helper.make_node("MatMul", ["pixels", "weight"], ["sums"], "product"),
            helper.make_node("Add", ["bias", "sums"], ["rows"], "add"),
            helper.make_node("Transpose", ["rows"], ["logits"], perm=[0, 3, 1, 2]),
        ],
        {"weight": np.ascontiguousarray(WEIGHT.T), "bias": BIAS},
    ),
}


def graph_of(nodes: Sequence[NodeProto], constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", *IMAGES.shape[1:]])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 5, *IMAGES.shape[1:3]])
    cast = helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT)
    tensors = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph([cast, *nodes], "test", [images], [logits], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def cut(layers: Sequence[Layer]) -> dict[str, float]:
    return {layer.activation: CUT for layer in layers}


def rounded_product() -> np.ndarray:
    """The product of rounded pixels and rounded weights, computed in NumPy: (n, h, w, 5)."""
    pixels = np.clip(np.rint(IMAGES / (CUT / 127)), -127, 127) * (CUT / 127)
    scales = np.abs(WEIGHT).max(axis=1, keepdims=True) / 127
    return np.asarray(pixels @ (np.rint(WEIGHT / scales) * scales).T)


@pytest.mark.parametrize("kind", PRODUCTS)
def test_the_shift_is_the_mean_that_rounding_takes_away(kind: str) -> None:
    model = graph_of(*PRODUCTS[kind])
    layers, _ = find_layers(model, INT8)
    (shift,) = mean_shifts(model, layers, cut(layers), INT8, list(IMAGES[:, None])).values()
    expected = (IMAGES.astype(np.float64) @ WEIGHT.T - rounded_product()).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(shift, expected, rtol=1e-3, atol=2e-3)
    assert np.abs(expected).max() > 1


@pytest.mark.parametrize("kind", PRODUCTS)
def test_corrected_channels_have_the_mean_that_they_had(kind: str) -> None:
    model = graph_of(*PRODUCTS[kind])
    layers, _ = find_layers(model, INT8)
    corrected = correct_biases(model, layers, mean_shifts(model, layers, cut(layers), INT8, list(IMAGES[:, None])))
    quantized = insert_qdq(corrected, layers, cut(layers), INT8)
    onnx.checker.check_model(quantized, full_check=True)
    (before,), (after,) = emulate(model)(IMAGES), emulate(quantized)(IMAGES)
    np.testing.assert_allclose(after.mean(axis=(0, 2, 3)), before.mean(axis=(0, 2, 3)), atol=2e-3)
    expected = rounded_product() + BIAS
    expected += (IMAGES.astype(np.float64) @ WEIGHT.T - rounded_product()).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(after, expected.transpose(0, 3, 1, 2), atol=5e-3)


def test_a_convolution_without_a_bias_gets_one_and_a_shared_sum_is_left_alone() -> None:
    nodes, constants = PRODUCTS["conv"]
    without = graph_of([nodes[0], helper.make_node("Conv", ["planes", "weight"], ["logits"], "product")], constants)
    layers, _ = find_layers(without, INT8)
    corrected = correct_biases(without, layers, {"logits": BIAS})
    (got,), (before,) = emulate(corrected)(IMAGES), emulate(without)(IMAGES)
    np.testing.assert_allclose(got - before, np.broadcast_to(BIAS[:, None, None], got.shape), atol=1e-3)

    product, add, turn = PRODUCTS["matmul"][0]
    twice = [product, add, helper.make_node("Add", ["rows", "sums"], ["both"]), turn]
    twice[3] = helper.make_node("Transpose", ["both"], ["logits"], perm=[0, 3, 1, 2])
    model = graph_of(twice, PRODUCTS["matmul"][1])
    same = correct_biases(model, find_layers(model, INT8)[0], {"sums": BIAS})
    np.testing.assert_array_equal(emulate(same)(IMAGES)[0], emulate(model)(IMAGES)[0])


@pytest.mark.parametrize("backbone", ["test_vit", "mobilenetv4_conv_small_035"])
def test_corrected_biases_are_kept_only_where_fewer_pixels_change(backbone: str) -> None:
    network, images = briefly_trained(backbone, (96, 128))
    base = decompose_attention(base_graph(DeployGraph(network, (96, 128)), (96, 128)))
    found = quantize(base, "int8", [images], lambda model: 50.0)
    assert [trial.corrected for trial in found.tried] == [False] * 4 + [True]
    plain = insert_qdq(base, found.layers, found.largest, INT8)
    expected = emulate(base)(images)[0].argmax(axis=1)
    kept, uncorrected = (
        (emulate(model)(images)[0].argmax(axis=1) == expected).mean() for model in (found.model, plain)
    )
    assert kept >= uncorrected
