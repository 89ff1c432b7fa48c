"""FP16 and BF16 in the graph: what would overflow or vanish is found on images and kept, and nothing else changes."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from small_graphs import (
    SmallGraph,
    attention_graph,
    attention_in_float64,
    convolution_graph,
    convolutions_in_float64,
    images,
)
from torch.nn import functional

from segkc_deploy.errors import ConfigError
from segkc_deploy.export.deploy_graph import DeployGraph
from segkc_deploy.export.precision.attention import decompose_attention
from segkc_deploy.export.precision.casting import cast_graph
from segkc_deploy.export.precision.emulation import emulate, emulated
from segkc_deploy.export.precision.formats import FORMATS
from segkc_deploy.export.precision.mixed import MixedPrecision, to_mixed_precision
from segkc_deploy.export.precision.ranges import measure_ranges
from segkc_deploy.export.to_onnx import base_graph
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.models.spec import NetworkSpec

Reference = Callable[[dict[str, np.ndarray], np.ndarray], np.ndarray]

PRECISIONS = ["fp16", "bf16"]
#: Error of the logits relative to the largest of them: a few roundings of 11 or 8 binary digits.
TOLERANCE = {"fp16": 4e-3, "bf16": 3e-2}
ONNX_TYPE = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
TORCH_TYPE = {"fp16": torch.float16, "bf16": torch.bfloat16}
FLOATING = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
#: What a cast by operator types alone would keep; it looks at no value.
USUALLY_KEPT = {"Cast", "LayerNormalization", "Softmax"}


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    values = [*graph.input, *graph.output, *graph.value_info]
    return {value.name: value.type.tensor_type.elem_type for value in values} | {
        tensor.name: tensor.data_type for tensor in graph.initializer
    }


def check_well_formed(model: onnx.ModelProto) -> None:
    """No operator sees two floating-point types, no conversion is undone or done twice, nothing is unused."""
    onnx.checker.check_model(model, full_check=True)
    types = types_of(model)
    conversions: Counter[tuple[str, int]] = Counter()
    converted: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "Cast":
            if types[node.input[0]] in FLOATING:
                assert node.input[0] not in converted, f"{node.input[0]} is converted twice in a row"
                assert types[node.input[0]] != types[node.output[0]]
                converted.update(node.output)
            conversions[node.input[0], types[node.output[0]]] += 1
            continue
        names = [*(name for name in node.input if name), *node.output]
        assert len({types[name] for name in names if types[name] in FLOATING}) <= 1, node.name
    assert set(conversions.values()) <= {1}
    read = {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}
    made = {name for node in model.graph.node for name in node.output} | {w.name for w in model.graph.initializer}
    assert made <= read


def naively_cast(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    model = decompose_attention(model)
    kept = [node.output[0] for node in model.graph.node if node.op_type in USUALLY_KEPT]
    return cast_graph(model, FORMATS[precision], kept)


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def numeric(mixed: MixedPrecision) -> dict[str, str]:
    """Return the kept nodes whose reason is what their values are: output's name to reason."""
    words = ("reaches", "stays below", "would change", "sums terms")
    return {node.name: node.reason for node in mixed.fallbacks if any(word in node.reason for word in words)}


# --- the formats -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_are_rounded_as_pytorch_rounds(precision: str) -> None:
    rng = np.random.default_rng(3)
    values = np.concatenate(
        [rng.normal(0, 1, 999) * 10.0 ** rng.integers(-12, 9, 999), [0.0, 1 + 2**-8, 1 + 3 * 2**-8]]
    )
    values = values.astype(np.float32)
    stored = FORMATS[precision].stored(numpy_helper.from_array(values, "w"), "rounded")
    expected = torch.from_numpy(values).to(TORCH_TYPE[precision])
    assert (stored.name, stored.data_type) == ("rounded", ONNX_TYPE[precision])
    assert len(stored.raw_data) == 2 * len(values)
    np.testing.assert_array_equal(numpy_helper.to_array(stored).astype(np.float64), expected.double().numpy())


def test_rounding_errors_tell_vanished_weights_from_rounded_ones() -> None:
    values = np.random.default_rng(4).normal(0, 1, 1000).astype(np.float32)
    assert 1e-4 < FORMATS["fp16"].rounding_error(values) < 3e-4
    assert 1e-3 < FORMATS["bf16"].rounding_error(values) < 3e-3
    assert FORMATS["fp16"].rounding_error(values * 1e-9) == pytest.approx(1)
    assert FORMATS["bf16"].rounding_error(values * 1e-9) < 3e-3
    assert FORMATS["fp16"].rounding_error(np.zeros(3, np.float32)) == 0


# --- the parts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("scale", [None, 0.7])
def test_attention_taken_apart_is_the_formula(scale: float | None, biased: bool) -> None:
    graph = attention_graph(biased)
    if scale is not None:
        graph.text = graph.text.replace("Attention (", f"Attention <scale = {scale}> (")
        graph.weights["query"] = graph.weights["query"] / (scale * 2)  # the formula's own scale is 1 / sqrt(4)
    apart = decompose_attention(graph.model())
    onnx.checker.check_model(apart, full_check=True)
    assert not any(node.op_type == "Attention" for node in apart.graph.node)
    names = [node.name for node in apart.graph.node if "/" in node.name]
    parts = ["scale", "keys", "scores", *(["bias"] if biased else []), "softmax", "context"]
    assert names == [f"attended/{part}" for part in parts]
    expected = attention_in_float64(attention_graph(biased).weights, images(2))
    np.testing.assert_allclose(emulate(apart)(images(2))[0], expected, atol=1e-4)


def test_attention_with_more_to_it_is_refused() -> None:
    graph = attention_graph()
    graph.text = graph.text.replace("Attention (", "Attention <is_causal = 1> (")
    with pytest.raises(ConfigError, match="is_causal"):
        decompose_attention(graph.model())


def test_ranges_are_those_of_the_formulas() -> None:
    graph, batches = convolution_graph(), [images(2, seed=5), images(1, seed=6)]
    ranges = measure_ranges(graph.model(), batches)
    batch = np.concatenate(batches)
    pixels = batch.transpose(0, 3, 1, 2) / 255.0
    weights = graph.weights["first"][..., 0, 0]
    stem = np.einsum("nchw,dc->ndhw", pixels, weights)
    assert ranges.peaks["numbers"] == batch.max()
    assert ranges.peaks["stem"] == pytest.approx(np.abs(stem).max(), rel=1e-5)
    assert ranges.sums["stem"] == pytest.approx(np.einsum("nchw,dc->ndhw", pixels, np.abs(weights)).max(), rel=1e-5)
    edges = np.maximum(stem, 0)
    terms = np.einsum("nchw,dc->ndhw", edges, np.abs(graph.weights["second"][..., 0, 0]))
    bias = np.abs(graph.weights["second_bias"])[:, None, None]
    assert ranges.sums["wide"] == pytest.approx((terms + bias).max(), rel=1e-5)
    logits = np.abs(convolutions_in_float64(graph.weights, batch)).max()
    assert ranges.peaks["logits"] == pytest.approx(logits, rel=1e-5)
    assert set(ranges.sums) == {"stem", "wide", "narrow", "logits"}


@pytest.mark.parametrize("operator", ["GlobalAveragePool", "ReduceMean <keepdims = 1>"])
def test_the_sum_below_an_average_counts(operator: str) -> None:
    axes = "" if operator == "GlobalAveragePool" else ", axes"
    graph = convolution_graph()
    graph.text = graph.text.replace("wide = Conv", f"mean = {operator} (edges{axes})\n    wide = Conv")
    graph.text = graph.text.replace("(edges, second", "(mean, second").replace("batch, 5, 16, 24", "batch, 5, 1, 1")
    graph.weights["axes"] = np.array([2, 3])
    graph.weights["first"] *= 400
    stem = np.einsum("nchw,dc->ndhw", images(2).transpose(0, 3, 1, 2) / 255.0, graph.weights["first"][..., 0, 0])
    expected = np.maximum(stem, 0).sum((2, 3)).max()
    assert expected > 65504 > 4 * stem.max()
    assert measure_ranges(graph.model(), [images(2)]).sums["mean"] == pytest.approx(expected, rel=1e-4)
    assert "sums terms" in numeric(to_mixed_precision(graph.model(), "fp16", [images(2)]))["mean"]


# --- what is kept ----------------------------------------------------------------------------------------------------


def rescaled_values(graph: SmallGraph) -> None:
    graph.weights["value"] *= 1e5
    graph.weights["projection"] /= 1e5


def rescaled_scores(graph: SmallGraph) -> None:
    graph.weights["query"] *= 1e6
    graph.weights["key"] /= 1e6


def massive_residual(graph: SmallGraph) -> None:
    graph.weights["position"][..., 3] += 1e5
    others = np.arange(8) != 3
    graph.weights["gain"] = np.where(others, 3e4, 1.0)
    graph.weights["shift"] = np.where(others, 3e4 / np.sqrt(7), 0.0)  # what their distance from the mean became


def rescaled_convolutions(graph: SmallGraph) -> None:
    graph.weights["second"] *= 1e6
    graph.weights["second_bias"] *= 1e6
    graph.weights["third"] /= 1e6


def vanishing_convolutions(graph: SmallGraph) -> None:
    graph.weights["second"] /= 1e9
    graph.weights["second_bias"] /= 1e9
    graph.weights["third"] *= 1e9


def canceling_sums(graph: SmallGraph) -> None:
    """Sums whose terms overflow, though inputs, weights and the result do not."""
    graph.weights["second"][:, 1] = graph.weights["second"][:, 0]
    graph.weights["first"][:2] = [[[[3e3]], [[0.0]], [[0.0]]]] * 2
    graph.weights["second"][:, :2] = np.array([100, -100])[None, :, None, None]


@pytest.mark.parametrize(
    ("make", "reference", "change", "kept", "naive_is_wrong"),
    [
        (attention_graph, attention_in_float64, rescaled_values, {"v_all", "attended/context", "projected"}, True),
        (
            attention_graph,
            attention_in_float64,
            rescaled_scores,
            {"q_all", "k_all", "attended/scale", "attended/scores"},
            True,
        ),
        (attention_graph, attention_in_float64, massive_residual, {"stream", "deeper"}, True),
        (convolution_graph, convolutions_in_float64, rescaled_convolutions, {"wide", "rectified", "narrow"}, True),
        (convolution_graph, convolutions_in_float64, vanishing_convolutions, {"wide", "rectified", "narrow"}, True),
        (convolution_graph, convolutions_in_float64, canceling_sums, {"wide"}, False),
    ],
)
def test_what_fp16_cannot_hold_is_found_and_kept(
    make: Callable[[], SmallGraph],
    reference: Reference,
    change: Callable[[SmallGraph], None],
    kept: set[str],
    naive_is_wrong: bool,
) -> None:
    graph = make()
    change(graph)
    model, held_out = graph.model(), images(4, seed=9)
    expected = reference(graph.weights, held_out)
    mixed = to_mixed_precision(model, "fp16", [images(3), images(2, seed=1)])
    check_well_formed(mixed.model)
    assert numeric(mixed).keys() == kept
    assert relative_error(emulate(mixed.model)(held_out)[0], expected) < TOLERANCE["fp16"]
    assert {node.precision for node in mixed.fallbacks} == {"fp32"}
    if naive_is_wrong:
        naive = emulate(naively_cast(model, "fp16"))(held_out)[0]
        assert not np.isfinite(naive).all() or (naive.argmax(1) == expected.argmax(1)).mean() < 0.9


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_bias_of_attention_is_converted_with_it(precision: Any) -> None:
    graph = attention_graph(biased=True)
    mixed = to_mixed_precision(graph.model(), precision, [images(3)])
    check_well_formed(mixed.model)
    assert numeric(mixed) == {}
    expected = attention_in_float64(graph.weights, images(4, seed=9))
    assert relative_error(emulate(mixed.model)(images(4, seed=9))[0], expected) < TOLERANCE[precision]


@pytest.mark.parametrize("change", [rescaled_values, rescaled_scores])
def test_bf16_has_the_range_and_keeps_nothing_for_it(change: Callable[[SmallGraph], None]) -> None:
    graph = attention_graph()
    change(graph)
    mixed = to_mixed_precision(graph.model(), "bf16", [images(3)])
    assert numeric(mixed) == {}
    expected = attention_in_float64(graph.weights, images(4, seed=9))
    assert relative_error(emulate(mixed.model)(images(4, seed=9))[0], expected) < TOLERANCE["bf16"]


def test_a_margin_is_left_for_other_images() -> None:
    graph = convolution_graph()
    factor = 20000 / measure_ranges(graph.model(), [images(3)]).peaks["rectified"]
    for name in ("second", "second_bias"):
        graph.weights[name] *= factor
    graph.weights["third"] /= factor
    assert "rectified" in numeric(to_mixed_precision(graph.model(), "fp16", [images(3)]))
    for name in ("second", "second_bias"):
        graph.weights[name] *= 0.1
    assert numeric(to_mixed_precision(graph.model(), "fp16", [images(3)])) == {}


def test_what_is_always_kept_says_why() -> None:
    for precision, extra in (("fp16", {}), ("bf16", {"patches": "reads pixels", "scores": "gives the logits"})):
        mixed = to_mixed_precision(attention_graph().model(), precision, [images(2)])
        reasons = {node.name: node.reason for node in mixed.fallbacks}
        expected = {
            "pixels": "normalizes the pixels",
            "normal": "squares",
            "last_normal": "squares",
            "attended/softmax": "exponentials",
            **extra,
        }
        assert reasons.keys() == expected.keys()
        assert all(words in reasons[name] for name, words in expected.items())


def test_operators_between_float32_layers_are_not_cast_for_nothing() -> None:
    graph = convolution_graph()
    rescaled_convolutions(graph)
    graph.text = graph.text.replace("rectified = Relu (wide)", "small = Mul (wide, tiny)\n    rectified = Relu (small)")
    graph.text = graph.text.replace("Conv <kernel_shape = [1, 1]> (rectified", "Softmax <axis = 1> (rectified")
    graph.text = graph.text.replace(", third)", ")")
    graph.weights |= {"tiny": np.array(1e-6)}
    del graph.weights["third"]
    mixed = to_mixed_precision(graph.model(), "fp16", [images(2)])
    reasons = {node.name: node.reason for node in mixed.fallbacks}
    assert "between float32 layers" in reasons["rectified"]
    check_well_formed(mixed.model)


def test_weights_read_in_both_precisions_are_stored_in_both() -> None:
    graph = attention_graph()
    graph.weights["gain"] = np.linspace(0.5, 1.5, 8)
    graph.text = graph.text.replace(
        "projected = MatMul (merged", "louder = Mul (merged, gain)\n    projected = MatMul (louder"
    )
    mixed = to_mixed_precision(graph.model(), "fp16", [images(2)])
    check_well_formed(mixed.model)
    types = {tensor.name: tensor.data_type for tensor in mixed.model.graph.initializer}
    assert types["gain"] == TensorProto.FLOAT
    assert types["gain/fp16"] == TensorProto.FLOAT16


# --- emulation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
def test_emulation_rounds_every_tensor_as_pytorch_does(precision: str) -> None:
    """Bit by bit, through overflow to infinity, ties and numbers below the smallest normal one."""
    low, dtype = ONNX_TYPE[precision], TORCH_TYPE[precision]
    rng = np.random.default_rng(8)
    spread = 10.0 ** rng.integers(-6, 4, (40, 64))
    factor = torch.from_numpy(rng.normal(0, 1, 64) * spread[0]).to(dtype)
    nodes = [
        helper.make_node("Cast", ["x"], ["x_low"], to=low),
        helper.make_node("Mul", ["x_low", "factor"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["turned"], perm=[1, 0]),
        helper.make_node("Transpose", ["turned"], ["back"], perm=[1, 0]),
        helper.make_node("Add", ["back", "x_low"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["wide", "wide"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [40, 64]) for name in ("x", "y")]
    raw = factor.view(torch.int16).numpy().tobytes()
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [helper.make_tensor("factor", low, [64], raw, raw=True)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    x = (rng.normal(0, 1, (40, 64)) * spread.T.reshape(40, 64)).astype(np.float32)
    x_low = torch.from_numpy(x).to(dtype)
    wide = (x_low * factor + x_low).float()
    got = emulate(model)(x)[0]
    np.testing.assert_array_equal(got, (wide * wide).numpy())
    if precision == "fp16":
        assert np.isinf(got).any()
        # The reason for emulating FP16 too: run directly, the overflow stays hidden in float32.
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        assert not np.array_equal(session.run(None, {"x": x})[0], got)


def test_a_float32_graph_is_emulated_by_itself() -> None:
    model = convolution_graph().model()
    assert emulated(model) == model


# --- whole networks --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def networks() -> dict[str, tuple[onnx.ModelProto, np.ndarray]]:
    """Base graphs of random networks of every family, with images of their size; made when first asked for."""
    return {}


def network_of(
    made: dict[str, tuple[onnx.ModelProto, np.ndarray]], backbone: str, free_size: bool
) -> tuple[onnx.ModelProto, np.ndarray]:
    key = f"{backbone} {free_size}"
    if key not in made:
        torch.manual_seed(0)
        network = Segmenter(NetworkSpec(backbone=backbone, decoder_channels=16), num_classes=5).eval()
        for parameter in network.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)
        size = (2 * network.size_multiple, 3 * network.size_multiple)
        graph = DeployGraph(network, None if free_size else size)
        pixels = np.random.default_rng(0).integers(0, 256, (3, *size, 3)).astype(np.uint8)
        made[key] = base_graph(graph, size, free_size=free_size), pixels
    return made[key]


FAMILIES = [
    ("vit_tiny_patch16_224", True),
    ("vit_small_patch16_dinov3", False),
    ("convnext_atto", False),
    ("mobilenetv4_conv_small_035", False),
]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("backbone", "free_size"), FAMILIES)
def test_networks_of_every_family(
    backbone: str,
    free_size: bool,
    precision: str,
    networks: dict[str, tuple[onnx.ModelProto, np.ndarray]],
) -> None:
    base, pixels = network_of(networks, backbone, free_size)
    mixed = to_mixed_precision(base, precision, [pixels[:2]])
    check_well_formed(mixed.model)
    assert numeric(mixed) == {}
    assert [value.SerializeToString() for value in (*mixed.model.graph.input, *mixed.model.graph.output)] == [
        value.SerializeToString() for value in (*base.graph.input, *base.graph.output)
    ]

    types = types_of(mixed.model)
    counts = Counter(node.op_type for node in mixed.model.graph.node)
    norms = [node for node in mixed.model.graph.node if node.op_type in ("LayerNormalization", "Softmax")]
    assert all(types[name] == TensorProto.FLOAT for node in norms for name in (*node.input, *node.output))
    assert counts["LayerNormalization"] == sum(node.op_type == "LayerNormalization" for node in base.graph.node)
    products = [node for node in mixed.model.graph.node if node.op_type in ("Conv", "MatMul")]
    assert sum(types[node.input[0]] == ONNX_TYPE[precision] for node in products) >= len(products) - 2
    assert mixed.model.ByteSize() < (0.52 if precision == "fp16" else 0.75) * base.ByteSize()

    (expected,) = emulate(base)(pixels)
    (got,) = emulate(mixed.model)(pixels)
    assert got.dtype == np.float32
    assert relative_error(got, expected) < TOLERANCE[precision]
    size = pixels.shape[1:3]
    masks = [functional.interpolate(torch.from_numpy(x), size, mode="bilinear").argmax(1) for x in (got, expected)]
    # A random network has pixels between two classes everywhere; a trained one agrees on ten times as many.
    assert (masks[0] == masks[1]).float().mean() >= (0.995 if precision == "fp16" else 0.98)


@pytest.mark.openvino
def test_fp16_runs_on_openvino_and_onnxruntime(networks: dict[str, tuple[onnx.ModelProto, np.ndarray]]) -> None:
    openvino = pytest.importorskip("openvino")
    from segkc_deploy.runners.openvino_runner import compile_for_cpu

    base, pixels = network_of(networks, "mobilenetv4_conv_small_035", free_size=False)
    (expected,) = emulate(base)(pixels)
    for precision in PRECISIONS:
        model = to_mixed_precision(base, precision, [pixels]).model
        read = openvino.Core().read_model(model.SerializeToString())
        # Without the graph's own precision, CPUs with BF16 or AMX instructions would compute FP16 graphs in BF16.
        compiled = compile_for_cpu(openvino, read, threads=None)
        assert relative_error(compiled(pixels)[0], expected) < TOLERANCE[precision]
    session = onnxruntime.InferenceSession(
        to_mixed_precision(base, "fp16", [pixels]).model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    assert relative_error(session.run(None, {"images": pixels})[0], expected) < TOLERANCE["fp16"]
