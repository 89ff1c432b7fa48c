"""Outliers of normalized activations that go into the weights that read them, against NumPy."""

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from briefly_trained import briefly_trained
from onnx import NodeProto, TensorProto, helper, numpy_helper

from segkc_deploy.export.deploy_graph import DeployGraph
from segkc_deploy.export.precision.attention import decompose_attention
from segkc_deploy.export.precision.emulation import emulate
from segkc_deploy.export.precision.qdq import INT8, find_layers, insert_qdq
from segkc_deploy.export.precision.quantize import Trial, quantize
from segkc_deploy.export.precision.smoothing import smooth
from segkc_deploy.export.to_onnx import base_graph

_CHANNELS, _CLASSES = 16, 5
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 6, 8, 3)).astype(np.uint8)
_OUTLIER = 3


def _normal(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


#: A normalization whose scale makes one channel 200 times as large as the others, and its readers' weights, which
#: hardly listen to it: what training makes of vision transformers.
CONSTANTS = {
    "lift": _normal(3, _CHANNELS, seed=1) / 100,
    "scale": np.where(np.arange(_CHANNELS) == _OUTLIER, 200, 1).astype(np.float32),
    "bias": _normal(_CHANNELS, seed=2),
    "first": _normal(_CHANNELS, _CLASSES, seed=3),
    "second": _normal(_CLASSES, _CHANNELS, seed=4),
}
CONSTANTS["first"][_OUTLIER] /= 200
CONSTANTS["second"][:, _OUTLIER] /= 200
NORM = helper.make_node("LayerNormalization", ["stream", "scale", "bias"], ["norm"], "norm", axis=-1)
FIRST = helper.make_node("MatMul", ["norm", "first"], ["left"], "first")
HEAD = [
    helper.make_node("Reshape", ["pixels", "rows"], ["flat"]),
    helper.make_node("MatMul", ["flat", "lift"], ["stream"], "lift"),
]
TAIL = [
    helper.make_node("Add", ["left", "right"], ["both"]),
    helper.make_node("Reshape", ["both", "planes"], ["columns"]),
    helper.make_node("Transpose", ["columns"], ["logits"], perm=[0, 3, 1, 2]),
]
#: Two products with weights read the normalization, one of them with its weight turned around.
PRODUCTS = [FIRST, helper.make_node("Gemm", ["norm", "second"], ["right"], "second", transB=1)]


def graph_of(nodes: Sequence[NodeProto], **more: np.ndarray) -> onnx.ModelProto:
    constants = {**CONSTANTS, **more, "rows": np.array([-1, 3]), "planes": np.array([-1, 6, 8, _CLASSES])}
    cast = helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT)
    graph = helper.make_graph(
        [cast, *HEAD, *nodes, *TAIL],
        "test",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 6, 8, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", _CLASSES, 6, 8])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def smoothed(model: onnx.ModelProto) -> onnx.ModelProto | None:
    return smooth(model, find_layers(model, INT8)[0], list(IMAGES[:, None]))


def values_of(model: onnx.ModelProto, name: str) -> np.ndarray:
    return emulate(model, [name])(IMAGES)[0]


def constant(model: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name))


def test_channels_are_divided_by_what_the_papers_equation_says() -> None:
    before = graph_of([NORM, *PRODUCTS])
    after = smoothed(before)
    assert after is not None
    onnx.checker.check_model(after, full_check=True)
    activation = values_of(before, "norm").astype(np.float64)
    weights = np.maximum(np.abs(CONSTANTS["first"]).max(axis=1), np.abs(CONSTANTS["second"]).max(axis=0))
    factors = np.abs(activation).max(axis=0) ** 0.5 / weights**0.5
    assert factors[_OUTLIER] / np.median(factors) > 50
    np.testing.assert_allclose(values_of(after, "norm/smoothed"), activation / factors, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        constant(after, "left/smoothed_weight"), CONSTANTS["first"] * factors[:, None], rtol=1e-5
    )
    np.testing.assert_allclose(constant(after, "right/smoothed_weight"), CONSTANTS["second"] * factors, rtol=1e-5)
    np.testing.assert_allclose(emulate(after)(IMAGES)[0], emulate(before)(IMAGES)[0], rtol=1e-4, atol=1e-3)
    assert {"scale", "bias", "first", "second"}.isdisjoint(tensor.name for tensor in after.graph.initializer)


def test_normalizations_that_share_their_scale_get_scales_of_their_own() -> None:
    again = helper.make_node("LayerNormalization", ["flat_too", "scale", "bias"], ["norm_too"], "too", axis=-1)
    nodes = [
        NORM,
        FIRST,
        helper.make_node("Mul", ["stream", "stream"], ["flat_too"]),
        again,
        helper.make_node("Gemm", ["norm_too", "second"], ["right"], "second", transB=1),
    ]
    before = graph_of(nodes)
    after = smoothed(before)
    assert after is not None
    np.testing.assert_allclose(emulate(after)(IMAGES)[0], emulate(before)(IMAGES)[0], rtol=1e-4, atol=1e-3)
    assert np.abs(constant(after, "norm/1") - constant(after, "norm_too/1")).max() > 0.01


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param(
            [
                NORM,
                FIRST,
                helper.make_node("Relu", ["norm"], ["other"]),
                helper.make_node("Gemm", ["other", "second"], ["right"], "second", transB=1),
            ],
            id="something else reads it",
        ),
        pytest.param(
            [
                NORM,
                FIRST,
                helper.make_node("Transpose", ["norm"], ["turned"]),
                helper.make_node("MatMul", ["turned", "norm"], ["square"]),
                helper.make_node("MatMul", ["norm", "square"], ["wide"]),
                helper.make_node("Gemm", ["wide", "second"], ["right"], "second", transB=1),
            ],
            id="it is multiplied with activations",
        ),
        pytest.param(
            [helper.make_node("Relu", ["stream"], ["norm"]), *PRODUCTS],
            id="it is not a normalization",
        ),
    ],
)
def test_what_cannot_be_smoothed_stays(nodes: list[NodeProto]) -> None:
    assert smoothed(graph_of(nodes)) is None


def test_a_channel_of_zeros_stays() -> None:
    weight, scale = CONSTANTS["first"].copy(), CONSTANTS["scale"].copy()
    weight[5], scale[6] = 0, 0
    nodes = [
        helper.make_node("LayerNormalization", ["stream", "scale_too"], ["norm"], "norm", axis=-1),
        helper.make_node("MatMul", ["norm", "weight"], ["left"], "first"),
        helper.make_node("Mul", ["left", "left"], ["right"]),
    ]
    before = graph_of(nodes, scale_too=scale, weight=weight)
    after = smoothed(before)
    assert after is not None
    got = emulate(after)(IMAGES)[0]
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, emulate(before)(IMAGES)[0], rtol=1e-4, atol=1e-3)


def test_quantizing_keeps_what_outliers_would_round_away() -> None:
    """With one scale up to the outlier, the other channels have no more than a few of the 127 levels left."""
    model = graph_of([NORM, *PRODUCTS])
    expected = emulate(model)(IMAGES)[0]
    found = quantize(model, "int8", [IMAGES], lambda candidate: 50.0)
    assert [trial.smoothed for trial in found.tried] == [False] * 4 + [True] * 2
    assert {"norm/smoothed"} < {layer.activation for layer in found.layers}
    plain = insert_qdq(model, find_layers(model, INT8)[0], found.largest, INT8)
    errors = [np.abs(emulate(one)(IMAGES)[0] - expected).mean() for one in (found.model, plain)]
    assert errors[0] < errors[1] / 5


@pytest.mark.parametrize(("smoothed_miou", "kept"), [(69.2, False), (69.6, True)])
def test_smoothed_activations_do_not_cost_the_budget(smoothed_miou: float, kept: bool) -> None:
    """Even where fewer pixels change with them: 0.5 points below 70 are allowed."""
    scores = iter([70.0] + [69.8] * 4 + [smoothed_miou, 69.9])
    found = quantize(graph_of([NORM, *PRODUCTS]), "int8", [IMAGES], lambda candidate: next(scores), 0.5)
    assert found.tried[4] == Trial(found.method, 0, smoothed_miou, smoothed=True)
    assert found.tried[5].smoothed is kept


def test_a_transformer_is_smoothed_only_where_fewer_pixels_change() -> None:
    network, images = briefly_trained("test_vit", (96, 128))
    base = decompose_attention(base_graph(DeployGraph(network, (96, 128)), (96, 128)))
    found = quantize(base, "int8", [images], lambda candidate: 50.0)
    smooth_trials = [trial.smoothed for trial in found.tried]
    assert smooth_trials[:5] == [False] * 4 + [True]
    changed = smooth(base, find_layers(base, INT8)[0], list(images[:, None]))
    assert changed is not None
    np.testing.assert_allclose(emulate(changed)(images)[0], emulate(base)(images)[0], rtol=1e-3, atol=1e-3)
