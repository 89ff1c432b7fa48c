"""INT8 and FP8 graphs: scales, rounding and saturation against NumPy; the search for a graph within its budget."""

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from segkc_deploy.errors import VerificationError
from segkc_deploy.export.precision.calibration import Histogram, collect, entropy, percentile
from segkc_deploy.export.precision.emulation import emulate
from segkc_deploy.export.precision.qdq import FP8, INT8, Format, find_layers, insert_qdq
from segkc_deploy.export.precision.quantize import Quantized, _a_few, quantize

_SIZE = 12
_FORMATS = pytest.mark.parametrize("number_format", [INT8, FP8], ids=["int8", "fp8"])


def _graph(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], output: str = "logits", rank: int = 4
) -> onnx.ModelProto:
    """Make a graph of `nodes` behind what makes float32 NCHW `pixels` of uint8 NHWC `images`."""
    head = [
        helper.make_node("Cast", ["images"], ["floats"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["pixels"], "transpose", perm=[0, 3, 1, 2]),
    ]
    graph = helper.make_graph(
        head + nodes,
        "test",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", _SIZE, _SIZE, 3])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None] * rank)],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, _SIZE, _SIZE, 3), dtype=np.uint8)


def _one_conv() -> onnx.ModelProto:
    """A 1x1 convolution with 32 channels between a fixed random lift of the pixels and the logits."""
    constants = {
        "lift": _normal(32, 3, seed=1).T.copy(),
        "weight": _normal(20, 32, 1, 1, seed=2),
        "bias": _normal(20, seed=3),
        "channels_last": np.array([0, 2, 3, 1]),
    }
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["rows"], "rows", perm=[0, 2, 3, 1]),
        helper.make_node("Relu", ["rows"], ["positive"], "positive"),
        helper.make_node("Einsum", ["positive", "lift"], ["lifted"], "lift", equation="nhwc,cd->ndhw"),
        helper.make_node("Conv", ["lifted", "weight", "bias"], ["logits"], "conv"),
    ]
    del constants["channels_last"]
    return _graph(nodes, constants)


def _constant(model: onnx.ModelProto, name: str) -> np.ndarray:
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    return numpy_helper.to_array(tensor)


def _rounded(values: np.ndarray, scales: np.ndarray | float, number_format: Format) -> np.ndarray:
    """Round float64 values as the format does: written from its definition, not from the code under test."""
    scaled = np.asarray(values, dtype=np.float64) / scales
    if number_format is INT8:
        return np.clip(np.round(scaled), -128, 127) * scales
    # E4M3: 3 bits of mantissa, smallest exponent -6, largest value 448; halfway goes to the even mantissa.
    magnitude = np.minimum(np.abs(scaled), 448.0)
    exponent = np.maximum(np.floor(np.log2(np.maximum(magnitude, 2.0**-20))), -6)
    step = 2.0 ** (exponent - 3)
    return np.sign(scaled) * np.minimum(np.round(magnitude / step) * step, 448.0) * scales


@_FORMATS
def test_scales_are_largest_value_over_the_formats_own(number_format: Format) -> None:
    model = _one_conv()
    layers, _ = find_layers(model, number_format)
    images = _images(3)
    histograms = collect(model, [layer.activation for layer in layers], [images[:2], images[2:]])
    quantized = insert_qdq(model, layers, {name: h.largest for name, h in histograms.items()}, number_format)

    lifted = np.einsum("nhwc,cd->ndhw", images.astype(np.float32), _constant(model, "lift"))
    top = {"int8": 127, "fp8": 448}[number_format.name]
    np.testing.assert_allclose(_constant(quantized, "lifted/scale"), np.abs(lifted).max() / top, rtol=1e-5)
    expected = np.abs(_constant(model, "weight")).max(axis=(1, 2, 3)) / top
    np.testing.assert_allclose(_constant(quantized, "weight/axis_0/scale"), expected, rtol=1e-6)


@_FORMATS
def test_a_convolution_gives_what_rounding_by_hand_gives(number_format: Format) -> None:
    model = _one_conv()
    layers, _ = find_layers(model, number_format)
    images = _images(2)
    # Half of the range: the other half has to saturate.
    (lifted,) = emulate(model, ["lifted"])(images)
    cut = float(np.abs(lifted).max() / 2)
    quantized = insert_qdq(model, layers, {"lifted": cut}, number_format)

    top = {"int8": 127, "fp8": 448}[number_format.name]
    weight = _constant(model, "weight")
    scales = (np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / np.float32(top)).astype(np.float64)
    activation = _rounded(lifted, float(np.float32(cut) / np.float32(top)), number_format)
    weight = _rounded(weight, scales, number_format)[:, :, 0, 0]
    expected = np.einsum("nchw,dc->ndhw", activation, weight) + _constant(model, "bias")[None, :, None, None]
    got, got_activation, got_weight = emulate(quantized, ["logits", "logits/activation", "logits/weight"])(images)
    np.testing.assert_allclose(got_activation, activation, rtol=1e-6)
    np.testing.assert_allclose(got_weight[:, :, 0, 0], weight, rtol=1e-6)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3 * np.abs(expected).std())


def test_int8_agrees_with_onnxruntimes_own_kernels() -> None:
    model = _one_conv()
    layers, _ = find_layers(model, INT8)
    images = _images(2)
    (lifted,) = emulate(model, ["lifted"])(images)
    quantized = insert_qdq(model, layers, {"lifted": float(np.abs(lifted).max())}, INT8)
    session = onnxruntime.InferenceSession(quantized.SerializeToString(), providers=["CPUExecutionProvider"])
    (emulated,) = emulate(quantized)(images)
    np.testing.assert_allclose(session.run(None, {"images": images})[0], emulated, rtol=1e-4, atol=1e-2)


@_FORMATS
def test_emulation_is_what_the_nodes_say_bit_by_bit(number_format: Format) -> None:
    """ONNX Runtime rounds biases of quantized layers at its very first level of optimization."""
    constants = {"first": _normal(20, 3, 1, 1), "bias": _normal(20, seed=1), "second": _normal(20, 20, 1, 1, seed=2)}
    nodes = [
        helper.make_node("Conv", ["pixels", "first", "bias"], ["between"], "first"),
        helper.make_node("Conv", ["between", "second", "bias"], ["logits"], "second"),
    ]
    model = _graph(nodes, constants)
    quantized = insert_qdq(model, find_layers(model, INT8)[0], {"pixels": 255.0, "between": 500.0}, number_format)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(quantized.SerializeToString(), options, providers=["CPUExecutionProvider"])
    images = _images(2)
    np.testing.assert_array_equal(emulate(quantized)(images)[0], session.run(None, {"images": images})[0])


@_FORMATS
def test_a_relu_before_the_rounding_is_kept(number_format: Format) -> None:
    """ONNX Runtime's fusions lose it for FP8; the emulation has to be without them."""
    constants = {"weight": _normal(20, 20, 1, 1), "first": _normal(20, 3, 1, 1, seed=1)}
    nodes = [
        helper.make_node("Conv", ["pixels", "first"], ["before"], "first"),
        helper.make_node("Relu", ["before"], ["positive"], "relu"),
        helper.make_node("Conv", ["positive", "weight"], ["logits"], "conv"),
    ]
    model = _graph(nodes, constants)
    layers = [layer for layer in find_layers(model, number_format)[0] if layer.name == "conv"]
    quantized = insert_qdq(model, layers, {"positive": 1000.0}, number_format)
    before, activation = emulate(quantized, ["before", "logits/activation"])(_images(1))
    assert before.min() < -10
    assert activation.min() == 0
    assert activation.max() > 10


def _every_kind() -> onnx.ModelProto:
    """One layer of each kind, on 20 channels: dense, depthwise and transposed convolution, MatMul, Gemm, a product."""
    constants = {
        "stem": _normal(20, 3, 3, 3),
        "depthwise": _normal(20, 1, 3, 3),
        "transposed": _normal(20, 24, 2, 2),
        "matrix": _normal(24, 18),
        "gemm": _normal(30, 18),
        "bias": _normal(30),
        "tokens": np.array([-1, 24], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["pixels", "stem"], ["a"], "stem", pads=[1] * 4),
        helper.make_node("Conv", ["a", "depthwise"], ["b"], "depthwise", pads=[1] * 4, group=20),
        helper.make_node("ConvTranspose", ["b", "transposed"], ["c"], "transposed", strides=[2, 2]),
        helper.make_node("Transpose", ["c"], ["d"], "last", perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["d", "tokens"], ["e"], "flat"),
        helper.make_node("MatMul", ["e", "matrix"], ["f"], "matmul"),
        helper.make_node("Gemm", ["f", "gemm", "bias"], ["g"], "gemm", transB=1),
        helper.make_node("Transpose", ["g"], ["h"], "turned", perm=[1, 0]),
        helper.make_node("MatMul", ["h", "g"], ["logits"], "product"),
    ]
    return _graph(nodes, constants, rank=2)


def test_weights_have_one_scale_for_each_output_channel_and_nothing_has_a_zero_point() -> None:
    model = _every_kind()
    layers, kept = find_layers(model, INT8)
    assert [node.name for node in kept] == ["product"]
    quantized = insert_qdq(model, layers, {layer.activation: 10.0 for layer in layers}, INT8)
    onnx.checker.check_model(quantized, full_check=True)

    axes = {"stem": 0, "depthwise": 0, "transposed": 1, "matrix": 1, "gemm": 0}
    for name, axis in axes.items():
        weight = _constant(model, name)
        scales = np.moveaxis(np.abs(weight), axis, 0).reshape(weight.shape[axis], -1).max(axis=1) / 127
        np.testing.assert_allclose(_constant(quantized, f"{name}/axis_{axis}/scale"), scales, rtol=1e-6)
    readers = {node.input[0]: node for node in quantized.graph.node if node.op_type == "DequantizeLinear"}
    for name, axis in axes.items():
        assert helper.get_attribute_value(readers[f"{name}/axis_{axis}/quantized"].attribute[0]) == axis
    points = [t for t in quantized.graph.initializer if t.name.endswith("zero_point")]
    assert len(points) == 10
    assert all(t.data_type == TensorProto.INT8 and not numpy_helper.to_array(t).any() for t in points)
    (gemm,) = (node for node in quantized.graph.node if node.name == "gemm")
    assert gemm.input[2] == "bias"
    np.testing.assert_array_equal(_constant(quantized, "bias"), _constant(model, "bias"))
    assert not {"stem", "gemm"} & {t.name for t in quantized.graph.initializer}, "the float weights are gone"

    weights = emulate(quantized, ["b/weight", "c/weight", "f/weight"])(_images(1))
    for name, got in zip(("depthwise", "transposed", "matrix"), weights, strict=True):
        others = tuple(axis for axis in range(got.ndim) if axis != axes[name])
        step = np.abs(_constant(model, name)).max(axis=others, keepdims=True) / 127
        assert (np.abs(got - _constant(model, name)) <= 0.501 * step + 1e-7).all()


def test_fp8_leaves_out_what_has_no_kernels_and_says_so() -> None:
    layers, kept = find_layers(_every_kind(), FP8)
    assert [layer.name for layer in layers] == ["matmul", "gemm"]
    assert {node.name: node.reason.split()[0] for node in kept} == {
        "stem": "FP8",
        "depthwise": "grouped",
        "transposed": "transposed",
        "product": "multiplies",
    }
    assert {node.precision for node in kept} == {"fp32"}


def test_layers_on_one_activation_share_its_rounding() -> None:
    constants = {"left": _normal(20, 3, 1, 1), "right": _normal(20, 3, 1, 1, seed=1)}
    nodes = [
        helper.make_node("Conv", ["pixels", "left"], ["a"], "left"),
        helper.make_node("Conv", ["pixels", "right"], ["b"], "right"),
        helper.make_node("Add", ["a", "b"], ["logits"], "add"),
    ]
    model = _graph(nodes, constants)
    quantized = insert_qdq(model, find_layers(model, INT8)[0], {"pixels": 255.0}, INT8)
    onnx.checker.check_model(quantized, full_check=True)
    kinds = [node.op_type for node in quantized.graph.node]
    assert (kinds.count("QuantizeLinear"), kinds.count("DequantizeLinear")) == (1, 4)


def test_a_channel_of_zeros_stays_zero() -> None:
    model = _one_conv()
    weight = _constant(model, "weight").copy()
    weight[4] = 0
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == "weight")
    tensor.CopyFrom(numpy_helper.from_array(weight, "weight"))
    quantized = insert_qdq(model, find_layers(model, FP8)[0], {"lifted": 500.0}, FP8)
    (got,) = emulate(quantized)(_images(1))
    np.testing.assert_array_equal(got[:, 4], _constant(model, "bias")[4])


def test_mixed_graph_gets_scales_of_its_own_type() -> None:
    constants = {"weight": _normal(20, 3, 1, 1).astype(np.float16)}
    nodes = [
        helper.make_node("Cast", ["pixels"], ["half"], "half", to=TensorProto.FLOAT16),
        helper.make_node("Conv", ["half", "weight"], ["out"], "conv"),
        helper.make_node("Cast", ["out"], ["logits"], "full", to=TensorProto.FLOAT),
    ]
    model = _graph(nodes, constants)
    quantized = insert_qdq(model, find_layers(model, INT8)[0], {"half": 255.0}, INT8)
    onnx.checker.check_model(quantized, full_check=True)
    scales = [t for t in quantized.graph.initializer if t.name.endswith("scale")]
    assert [t.data_type for t in scales] == [TensorProto.FLOAT16, TensorProto.FLOAT16]
    (before,), (after,) = emulate(model)(_images(1)), emulate(quantized)(_images(1))
    assert np.abs(before - after).max() < 0.03 * np.abs(before).max()


def test_fp16_weights_near_zero_get_a_scale_that_fp16_holds() -> None:
    weight = _normal(20, 3, 1, 1).astype(np.float16)
    weight[4] = 1e-6  # its own scale, 8e-9, would be 0
    nodes = [
        helper.make_node("Cast", ["pixels"], ["half"], "half", to=TensorProto.FLOAT16),
        helper.make_node("Conv", ["half", "weight"], ["out"], "conv"),
        helper.make_node("Cast", ["out"], ["logits"], "full", to=TensorProto.FLOAT),
    ]
    model = _graph(nodes, {"weight": weight})
    quantized = insert_qdq(model, find_layers(model, INT8)[0], {"half": 255.0}, INT8)
    (before,), (after,) = emulate(model)(_images(1)), emulate(quantized)(_images(1))
    assert np.isfinite(after).all()
    assert np.abs(before[:, 4] - after[:, 4]).max() < 3 * 255 * 2.0**-19


def test_histogram_counts_in_order_and_keeps_the_largest_value() -> None:
    parts = [_normal(5000, seed=seed) * scale for seed, scale in enumerate((1.0, 30.0, 0.1, 400.0))]
    histogram = Histogram()
    for part in parts:
        histogram.add(part)
    values = np.abs(np.concatenate(parts))
    assert histogram.largest == values.max()
    edges = np.arange(len(histogram.counts) + 1) * histogram.width
    assert edges[-1] >= values.max()
    expected, _ = np.histogram(values, edges)
    # A value on an edge may fall to either side of it.
    assert np.abs(np.cumsum(histogram.counts) - np.cumsum(expected)).max() <= 2
    assert histogram.counts.sum() == values.size


def test_histogram_of_zeros_then_values() -> None:
    histogram = Histogram()
    histogram.add(np.zeros(7, np.float32))
    assert (histogram.largest, entropy(histogram), percentile(histogram, 99)) == (0, 0, 0)
    histogram.add(np.array([-2, 1], np.float32))
    assert (histogram.largest, histogram.counts.sum(), histogram.counts[0]) == (2, 9, 7)


def test_histogram_of_values_that_are_nearly_zero() -> None:
    histogram = Histogram()
    for values in ([1e-36, 0], [1e-42, 1e-44], [1, -0.5]):
        histogram.add(np.array(values, np.float32))
    assert (histogram.largest, histogram.counts.sum()) == (1, 6)
    assert percentile(histogram, 99) == 1


def test_every_image_of_a_batch_is_calibrated_on() -> None:
    model, images = _one_conv(), _images(3)
    together, apart = (collect(model, ["lifted"], batches)["lifted"] for batches in ([images], np.split(images, 3)))
    assert together.counts.sum() == images[..., 0].size * 32
    np.testing.assert_array_equal(together.counts, apart.counts)
    assert together.largest == apart.largest


def test_a_few_images_are_spread_over_all_batches() -> None:
    batches = [np.arange(first, first + 5, dtype=np.uint8).reshape(5, 1, 1, 1) for first in (0, 5)]
    assert [image.item() for image in _a_few(batches, 4)] == [0, 3, 6, 9]
    assert [image.item() for image in _a_few(batches, 99)] == list(range(10))


@pytest.mark.parametrize("percent", [90.0, 99.9, 99.99])
def test_percentile_is_numpys_to_within_a_bin(percent: float) -> None:
    values = _normal(200_000)
    histogram = Histogram()
    histogram.add(values)
    expected = np.percentile(np.abs(values), percent)
    assert expected - histogram.width <= percentile(histogram, percent) <= expected + 2 * histogram.width


def test_entropy_cuts_off_a_lonely_outlier_and_keeps_even_values() -> None:
    histogram = Histogram()
    histogram.add(np.concatenate([_normal(200_000), np.array([40], np.float32)]))
    assert 2.5 < entropy(histogram) < 8
    # Half of what comes out of a ReLU is zero, which says nothing about where to cut.
    behind_relu = Histogram()
    behind_relu.add(np.concatenate([_normal(200_000), np.zeros(400_000, np.float32), np.array([40], np.float32)]))
    assert entropy(behind_relu) == entropy(histogram)
    even = Histogram()
    even.add(np.random.default_rng(0).uniform(-3, 3, 500_000).astype(np.float32))
    assert entropy(even) > 2.8


def test_entropy_is_the_smallest_divergence_of_a_plain_computation() -> None:
    histogram = Histogram()
    histogram.add(np.concatenate([_normal(30_000), 5 * _normal(300, seed=1)]))
    counts = histogram.counts.astype(float).tolist()
    counts[0] = counts[1]
    used = max(index for index, count in enumerate(counts) if count) + 1
    best = min(range(used, 127, -8), key=lambda cut: _plain_divergence(counts, cut))
    assert entropy(histogram) == min(best * histogram.width, histogram.largest)


def _plain_divergence(counts: list[float], cut: int) -> float:
    reference = counts[:cut]
    reference[-1] += sum(counts[cut:])
    levels: dict[int, list[int]] = {}
    for index in range(cut):
        if counts[index]:
            levels.setdefault(index * 128 // cut, []).append(index)
    rounded = [0.0] * cut
    for members in levels.values():
        mean = sum(counts[index] for index in members) / len(members)
        for index in members:
            rounded[index] = mean
    if any(p and not q for p, q in zip(reference, rounded, strict=True)):
        return float("inf")
    total, other = sum(reference), sum(rounded)
    return sum(p / total * np.log(p / total * other / q) for p, q in zip(reference, rounded, strict=True) if p)


def test_a_network_that_is_not_finite_is_named() -> None:
    model = _one_conv()
    (lift,) = (tensor for tensor in model.graph.initializer if tensor.name == "lift")
    lift.CopyFrom(numpy_helper.from_array(np.full((3, 32), np.inf, np.float32), "lift"))
    with pytest.raises(VerificationError, match="lifted is not finite"):
        quantize(model, "int8", [_images(1)], lambda _: 50.0)


def _sensitive() -> onnx.ModelProto:
    """A chain of convolutions of which `third` reads one channel of huge values, which it does not need."""
    constants = {name: _normal(20, 20, 1, 1, seed=seed) / 4 for seed, name in enumerate(("w2", "w3", "w4", "w5"))}
    constants["w1"] = _normal(20, 3, 1, 1, seed=9) / 100
    constants["w6"] = _normal(5, 20, 1, 1, seed=10)
    constants["huge"] = np.where(np.arange(20) == 7, 3000, 1).astype(np.float32).reshape(1, 20, 1, 1)
    constants["w3"][:, 7] = 0
    names = ["first", "second", "third", "fourth", "fifth", "sixth"]
    nodes = [helper.make_node("Relu", ["pixels"], ["x0"], "relu")]
    for index, name in enumerate(names, start=1):
        source = f"x{index - 1}"
        if name == "third":
            nodes.append(helper.make_node("Mul", [source, "huge"], ["loud"], "loud"))
            source = "loud"
        output = "logits" if index == len(names) else f"x{index}"
        nodes.append(helper.make_node("Conv", [source, f"w{index}"], [output], name))
    return _graph(nodes, constants)


def _agreement_with(model: onnx.ModelProto, images: np.ndarray) -> Callable[[onnx.ModelProto], float]:
    """Return a stand-in for mIoU: the share of pixels, in percent, that have the class `model` gives them."""
    (truth,) = emulate(model)(images)

    def score(candidate: onnx.ModelProto) -> float:
        (got,) = emulate(candidate)(images)
        return float(100 * (got.argmax(axis=1) == truth.argmax(axis=1)).mean())

    return score


def _quantize_sensitive(budget: float) -> Quantized:
    model = _sensitive()
    return quantize(model, "int8", [_images(4), _images(2, seed=1)], _agreement_with(model, _images(4, seed=2)), budget)


def test_the_sensitive_layer_is_found_left_out_and_named() -> None:
    result = _quantize_sensitive(budget=5.0)
    assert [node.name for node in result.fallbacks] == ["third"]
    assert "changes" in result.fallbacks[0].reason
    everything = [trial for trial in result.tried if not trial.left_out]
    assert {trial.method for trial in everything} == {"max", "percentile-99.999", "percentile-99.99", "entropy"}
    assert max(trial.miou for trial in everything) < 95 <= result.miou
    readers = {node.name: node.input[0] for node in result.model.graph.node if node.op_type == "Conv"}
    assert readers["third"] == "loud"
    assert readers["fourth"] == "x4/activation"
    onnx.checker.check_model(result.model, full_check=True)
    assert [value.name for value in result.model.graph.output] == ["logits"]


def test_a_budget_that_is_met_leaves_nothing_out() -> None:
    result = _quantize_sensitive(budget=100.0)
    assert result.fallbacks == ()
    *plain, corrected = result.tried
    assert [trial.corrected for trial in result.tried] == [False] * 4 + [True]
    assert result.miou in (max(trial.miou for trial in plain), corrected.miou)


@pytest.mark.parametrize(("corrected_miou", "expected"), [(69.2, 69.8), (69.6, 69.6)])
def test_corrected_biases_do_not_cost_the_budget(corrected_miou: float, expected: float) -> None:
    """Even where fewer pixels change with them: 0.5 points below 70 are allowed."""
    scores = iter([70.0] + [69.8] * 4 + [corrected_miou])
    model = _one_conv()
    result = quantize(model, "int8", [_images(4)], lambda candidate: next(scores), 0.5)
    assert (result.miou, result.fallbacks) == (expected, ())
    assert len(result.tried) == 5


def test_a_budget_that_cannot_be_met_gives_the_best_and_keeps_half_quantized() -> None:
    result = _quantize_sensitive(budget=-1.0)
    assert max(trial.left_out for trial in result.tried) == 3
    assert len(result.fallbacks) <= 3
    assert result.miou == max(trial.miou for trial in result.tried)
    assert result.miou_before == 100.0


def test_quantizing_twice_gives_the_same_bytes() -> None:
    first, second = _quantize_sensitive(5.0), _quantize_sensitive(5.0)
    assert first.model.SerializeToString(deterministic=True) == second.model.SerializeToString(deterministic=True)
    assert first.tried == second.tried


def test_fp8_values_are_what_ml_dtypes_rounds_to() -> None:
    values = np.linspace(-500, 500, 20_001)
    expected = np.clip(values, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float64)
    np.testing.assert_array_equal(_rounded(values, 1.0, FP8), expected)
