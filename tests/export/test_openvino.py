"""OpenVINO artifacts: the same masks as PyTorch's, in the precision that the graph has, and clear words when not."""

import hashlib
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tiny_artifact import expected_mask, manifest_of, network
from torch import nn

from segkc_deploy.errors import ArtifactError, BuildError, ConfigError, MissingDependencyError
from segkc_deploy.export.deploy_graph import OUTPUT_NAMES, DeployGraph
from segkc_deploy.export.engines.base import BuildOptions, BuildRequest, Built, Range
from segkc_deploy.export.engines.openvino_biases import add_missing_biases
from segkc_deploy.export.engines.openvino_engine import OpenVINOEngine
from segkc_deploy.export.engines.openvino_precision import tensors_in_fp32
from segkc_deploy.export.mask_head import attach_mask_head
from segkc_deploy.export.precision.attention import decompose_attention
from segkc_deploy.export.precision.calibration import collect
from segkc_deploy.export.precision.emulation import emulate
from segkc_deploy.export.precision.fp32_fallback import TYPED_ENGINES_ONLY
from segkc_deploy.export.precision.qdq import INT8, find_layers, insert_qdq
from segkc_deploy.export.to_onnx import base_graph
from segkc_deploy.manifest import Contract, FallbackNode, TensorContract, companion_path
from segkc_deploy.runners import openvino_runner
from segkc_deploy.runners.openvino_int8 import multiplies_8_bits_exactly
from segkc_deploy.runners.openvino_runner import (
    OpenVINORunner,
    compile_for_cpu,
    import_openvino,
    layer_precisions,
    precision_hint,
)
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.models.spec import NetworkSpec

pytest.importorskip("openvino")

pytestmark = pytest.mark.openvino

#: Of images whose every pixel is random, which is also the input of `tiny_artifact`'s network.
SIZE = (8, 12)


def build(model: onnx.ModelProto, path: Path, **changes: Any) -> Built:
    outputs = tuple(TensorContract(name=output.name, dtype="", layout="") for output in model.graph.output)
    contract = Contract(input=TensorContract(name="images", dtype="uint8", layout="NHWC"), outputs=outputs, size=SIZE)
    fields: dict[str, Any] = {"network": nn.Identity(), "contract": contract, "precision": "fp32"}
    fields |= {"batch": Range(1, 1, 8), "heights": Range(8, 8, 8), "widths": Range(12, 12, 12), "path": path}
    return OpenVINOEngine().build(BuildRequest(model=model, **(fields | changes)))


def random_images(count: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.xml"
    build(network(SIZE, -1), path)
    return path


def half_precision() -> onnx.ModelProto:
    """`tiny_artifact`'s network with its convolution in FP16, where its integers are exact as well."""
    model = network(SIZE, -1)
    cast = model.graph.node[0]
    assert cast.op_type == "Cast"
    cast.attribute[0].i = TensorProto.FLOAT16
    for weights in model.graph.initializer:
        weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights).astype(np.float16), weights.name))
    return model


def quantized() -> onnx.ModelProto:
    """`tiny_artifact`'s network with Q/DQ around the operands of its convolution; pixels lose their last bit."""
    model = network(SIZE, -1)
    graph = model.graph
    scales = {"planes": 2.0, "weights": 3 / 127}
    for name, scale in scales.items():
        graph.initializer.append(numpy_helper.from_array(np.array(scale, np.float32), f"{name}_scale"))
        graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), f"{name}_zero"))
        for kind, source, result in (("QuantizeLinear", name, "q"), ("DequantizeLinear", f"{name}_q", "dq")):
            inputs = [source, f"{name}_scale", f"{name}_zero"]
            graph.node.append(helper.make_node(kind, inputs, [f"{name}_{result}"]))
    (convolution,) = (node for node in graph.node if node.op_type == "Conv")
    convolution.input[0], convolution.input[1] = "planes_dq", "weights_dq"
    order = ["Cast", "Transpose", "QuantizeLinear", "DequantizeLinear", "Conv", "ArgMax"]
    nodes = sorted(graph.node[:-5] + graph.node[-4:], key=lambda node: order.index(node.op_type))
    last = graph.node[-5]
    del graph.node[:]
    graph.node.extend([*nodes, last])
    onnx.checker.check_model(model, full_check=True)
    return model


def masks_of(path: Path, images: np.ndarray) -> np.ndarray:
    with OpenVINORunner(path, threads=1) as runner:
        return runner.infer(images)["masks"]


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "mobilenetv4_conv_small_035"])
def test_outputs_are_those_of_pytorch_for_any_batch(tmp_path: Path, backbone: str) -> None:
    torch.manual_seed(0)
    segmenter = Segmenter(NetworkSpec(backbone=backbone, decoder_channels=16), num_classes=4).eval()
    size = (2 * segmenter.size_multiple, 3 * segmenter.size_multiple)
    graph = DeployGraph(segmenter, size, OUTPUT_NAMES).eval()
    base = decompose_attention(base_graph(graph, size))
    align_corners = segmenter.decoder.align_corners
    build(attach_mask_head(base, OUTPUT_NAMES, size, align_corners), tmp_path / "junior.xml")
    build(attach_mask_head(base, ["masks"], size, align_corners, OpenVINOEngine.upsampling[0]), tmp_path / "masks.xml")

    with (
        OpenVINORunner(tmp_path / "junior.xml", threads=1) as runner,
        OpenVINORunner(tmp_path / "masks.xml", threads=1) as masks_runner,
    ):
        for count in (1, 3, 1):
            images = random_images(count, size)
            outputs = runner.infer(images)
            with torch.inference_mode():
                masks, confidence, logits = (value.numpy() for value in graph(torch.from_numpy(images)))
            assert list(outputs) == list(OUTPUT_NAMES)
            assert outputs["masks"].dtype == np.uint8
            assert (outputs["masks"] == masks).mean() >= 0.999
            assert (masks_runner.infer(images)["masks"] == masks).mean() >= 0.999
            np.testing.assert_allclose(outputs["confidence"], confidence, atol=1e-4)
            np.testing.assert_allclose(outputs["logits"], logits, atol=1e-3 * np.abs(logits).max())


def test_an_artifact_is_two_files_whatever_they_are_called(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".junior-fp32.xml.unverified"
    build(network(SIZE, -1), path)
    weights = companion_path(path, ".bin")
    assert sorted(path.parent.iterdir()) == sorted([path, weights])
    images = random_images(2)
    np.testing.assert_array_equal(masks_of(path, images), expected_mask(images))

    verified = tmp_path / "junior-fp32.xml"
    path.replace(verified)
    weights.replace(companion_path(verified, ".bin"))
    assert (tmp_path / "junior-fp32.bin").is_file(), "where other users of OpenVINO look for it"
    np.testing.assert_array_equal(masks_of(verified, images), expected_mask(images))


def test_the_build_says_what_built_it_and_the_precision_that_layers_have(tmp_path: Path) -> None:
    import openvino

    model = network(SIZE, -1)
    built = build(model, tmp_path / "tiny.xml")
    assert built.build is not None and built.layer_precision is not None
    assert (built.build.builder, built.build.version) == ("openvino", openvino.__version__)
    assert built.build.onnx_sha256 == hashlib.sha256(model.SerializeToString()).hexdigest()
    assert built.layer_precision.source == "inspector"
    assert built.layer_precision.layers == {"fp32": {"Convolution": 1, "TopK": 1}}


def test_weights_are_stored_with_all_their_digits(tmp_path: Path) -> None:
    model = network(SIZE, -1, ("logits",))
    (weights,) = (tensor for tensor in model.graph.initializer if tensor.name == "weights")
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) + np.float32(0.1), "weights"))
    build(model, tmp_path / "tiny.xml")
    images = random_images(2)
    with OpenVINORunner(tmp_path / "tiny.xml", threads=1) as runner:
        logits = runner.infer(images)["logits"]
    np.testing.assert_allclose(logits, emulate(model)(images)[0], atol=1e-3)  # half the digits would give 0.02


def test_half_precision_is_kept_where_the_cpu_has_it_and_told_where_not(tmp_path: Path) -> None:
    built = build(half_precision(), tmp_path / "half.xml", precision="fp16")
    assert built.layer_precision is not None
    (precision,) = (name for name, layers in built.layer_precision.layers.items() if "Convolution" in layers)
    assert precision in ("fp16", "fp32")
    images = random_images(2)
    with OpenVINORunner(tmp_path / "half.xml", threads=1) as runner:
        np.testing.assert_array_equal(runner.infer(images)["masks"], expected_mask(images))
        assert precision in runner.description


def test_a_quantized_graph_runs_in_8_bits_where_these_are_exact(tmp_path: Path) -> None:
    built = build(quantized(), tmp_path / "quantized.xml", precision="int8")
    assert built.layer_precision is not None
    precision = "int8" if multiplies_8_bits_exactly(import_openvino()) else "fp32"
    convolutions = {name: layers.get("Convolution", 0) for name, layers in built.layer_precision.layers.items()}
    assert {name: count for name, count in convolutions.items() if count} == {precision: 1}
    images = random_images(8)
    assert (masks_of(tmp_path / "quantized.xml", images) == expected_mask(images)).mean() > 0.95


def test_8_bits_are_exact_on_cpus_with_vnni_alone() -> None:
    information = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not information.is_file():
        pytest.skip("what this CPU has is not known")
    has_vnni = bool({"avx512_vnni", "avx_vnni"} & set(information.read_text().split()))
    assert multiplies_8_bits_exactly(import_openvino()) == has_vnni


@pytest.mark.parametrize("exact", [False, True])
def test_where_8_bits_are_not_exact_the_graph_runs_in_fp32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exact: bool
) -> None:
    monkeypatch.setattr(openvino_runner, "multiplies_8_bits_exactly", lambda openvino: exact)
    model, images = shared_convolution("Relu", bias=True), random_images(2)
    built = build(model, tmp_path / "shared.xml", precision="int8")
    assert built.layer_precision is not None
    assert ("int8" in built.layer_precision.layers) == exact
    with OpenVINORunner(tmp_path / "shared.xml", threads=1, inference_precision="f32") as runner:
        assert ("int8" in runner.description) == exact
        outputs = runner.infer(images)
    if not exact:
        for name, expected in zip(("conv", "second"), emulate(model)(images), strict=True):
            assert relative_rms(outputs[name], expected) < 1e-5, name


def test_weights_that_are_only_stored_in_8_bits_do_not_make_a_layer_one_of_8_bits() -> None:
    openvino = import_openvino()
    ops, rng = openvino.opset13, np.random.default_rng(0)
    numbers = ops.parameter([1, 16, 64], np.float32)
    stored = ops.convert(ops.constant(rng.integers(-127, 128, (64, 64), np.int8)), "f32")
    weight = ops.multiply(stored, ops.constant(rng.uniform(0.01, 0.02, (64, 1)).astype(np.float32)))
    model = openvino.Model([ops.matmul(numbers, weight, False, True)], [numbers])
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert layer_precisions(compiled) == {"fp32": {"FullyConnected": 1}}


def three_convolutions() -> onnx.ModelProto:
    """`images` through convolutions `first`, `second` (with a bias) and `third` to logits and a mask."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (8, 3, 1, 1), "w2": (8, 8, 3, 3), "b2": (8,), "w3": (4, 8, 1, 1)}
    constants = [
        numpy_helper.from_array(rng.normal(0, 0.1, shape).astype(np.float32), name) for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Cast", ["images"], ["numbers"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["numbers"], ["planes"], "turn", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "w1"], ["x1"], "first"),
        helper.make_node("Softmax", ["x1"], ["attention"], "softmax", axis=1),
        helper.make_node("Conv", ["attention", "w2", "b2"], ["x2"], "second", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["x2", "w3"], ["logits"], "third"),
    ]
    graph = helper.make_graph(
        nodes,
        "three",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *SIZE, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4, *SIZE])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    return attach_mask_head(onnx.shape_inference.infer_shapes(model, strict_mode=True), ["masks"], SIZE, False)


def fallback(name: str, op_type: str, reason: str) -> FallbackNode:
    return FallbackNode(name=name, op_type=op_type, precision="fp32", reason=reason)


def test_bf16_is_a_hint_and_fallbacks_are_marked_in_the_graph(tmp_path: Path) -> None:
    model, path = three_convolutions(), tmp_path / "three.xml"
    (exponentials,) = (reason for reason in TYPED_ENGINES_ONLY if "exponentials" in reason)
    fallbacks = (fallback("second", "Conv", "x2 reaches 6e+04"), fallback("softmax", "Softmax", exponentials))
    built = build(model, path, precision="bf16", fallbacks=fallbacks)
    assert built.build is not None and built.build.options == {"inference_precision": "bf16"}
    layers = ElementTree.parse(path).getroot().iterfind("./layers/layer")
    marked = [layer for layer in layers if layer.find("rt_info/attribute[@name='precise']") is not None]
    names = {name for layer in marked for port in layer.iterfind("output/port") for name in [port.get("names", "")]}
    assert "x2" in names and not {"x1", "attention", "planes"} & names
    # The convolution itself, whose result has no name before its bias is added.
    assert sum(layer.get("type") == "Convolution" for layer in marked) == 1
    images = random_images(2)
    with OpenVINORunner(path, threads=1, inference_precision="bf16") as runner:
        masks = runner.infer(images)["masks"]
    assert (masks == emulate(model)(images)[0]).mean() > 0.9


def test_the_mask_head_compares_in_fp32_whatever_the_hint() -> None:
    model = three_convolutions()
    (exponentials,) = (reason for reason in TYPED_ENGINES_ONLY if "exponentials" in reason)
    fallbacks = (fallback("second", "Conv", "x2 reaches 6e+04"), fallback("softmax", "Softmax", exponentials))
    head = {name for node in model.graph.node if node.name.startswith("mask_head/") for name in node.output}
    assert "masks" in head
    assert tensors_in_fp32(model, fallbacks) == head | {"x2"}


def shared_convolution(reader: str, bias: bool) -> onnx.ModelProto:
    """A quantized convolution whose result is an output and is read by a second operator as well."""
    rng = np.random.default_rng(0)
    constants = {
        "lift": rng.normal(size=(16, 3, 1, 1)).astype(np.float32) / 100,
        "weight": rng.normal(size=(8, 16, 3, 3)).astype(np.float32),
        "bias": rng.normal(size=8).astype(np.float32),
        "twice": np.array([1, 1, 2, 2], np.float32),
        "rows": np.array([0, 8, -1]),
    }
    second = {
        "Relu": helper.make_node("Relu", ["conv"], ["second"]),
        "MaxPool": helper.make_node("MaxPool", ["conv"], ["second"], kernel_shape=[2, 2]),
        "Resize": helper.make_node("Resize", ["conv", "", "twice"], ["second"], mode="nearest"),
        "Reshape": helper.make_node("Reshape", ["conv", "rows"], ["second"]),
    }[reader]
    nodes = [
        helper.make_node("Cast", ["images"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["numbers"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "lift"], ["lifted"], "lift"),
        helper.make_node("Conv", ["lifted", "weight", *(["bias"] if bias else [])], ["conv"], "shared"),
        second,
    ]
    read = {name for node in nodes for name in node.input}
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "shared",
            [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *SIZE, 3])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("conv", "second")],
            [numpy_helper.from_array(values, name) for name, values in constants.items() if name in read],
        ),
        opset_imports=[helper.make_opsetid("", 23)],
        ir_version=10,
    )
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    layers = [layer for layer in find_layers(model, INT8)[0] if layer.name == "shared"]
    (lifted,) = emulate(model, ["lifted"])(random_images(2))
    return insert_qdq(model, layers, {"lifted": float(np.abs(lifted).max())}, INT8)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("reader", ["Relu", "MaxPool", "Resize", "Reshape"])
def test_a_quantized_convolution_with_two_readers_is_scaled_once(tmp_path: Path, reader: str, bias: bool) -> None:
    model, images = shared_convolution(reader, bias), random_images(2)
    build(model, tmp_path / "shared.xml", precision="int8")
    with OpenVINORunner(tmp_path / "shared.xml", threads=1, inference_precision="f32") as runner:
        outputs = runner.infer(images)
    for name, expected in zip(("conv", "second"), emulate(model)(images), strict=True):
        # A value halfway between two integers may be rounded either way.
        assert relative_rms(outputs[name], expected) < 2e-3, name


def test_only_a_quantized_convolution_that_is_read_twice_gets_a_bias() -> None:
    """On CPUs whose 8-bit products are not exact the test above cannot fail: they run the graph in FP32."""

    def inputs_of(model: onnx.ModelProto) -> list[str]:
        (convolution,) = (node for node in add_missing_biases(model).graph.node if node.name == "shared")
        return list(convolution.input)

    given = shared_convolution("Relu", bias=False)
    assert inputs_of(given)[2:] == ["conv/bias"]
    (bias,) = (tensor for tensor in add_missing_biases(given).graph.initializer if tensor.name == "conv/bias")
    assert list(bias.dims) == [8]
    assert 0 < np.abs(numpy_helper.to_array(bias)).max() < 1e-20
    assert inputs_of(shared_convolution("Relu", bias=True))[2:] == ["bias"]
    del given.graph.output[0]
    assert len(inputs_of(given)) == 2


def test_a_grouped_transposed_convolution_gets_a_bias_for_every_channel() -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["integers", "scales"], ["weight"], axis=1),
        helper.make_node("ConvTranspose", ["planes", "weight"], ["conv"], group=4),
        helper.make_node("Relu", ["conv"], ["second"]),
    ]
    constants = {"integers": np.ones((4, 2, 3, 3), np.int8), "scales": np.ones(2, np.float32)}
    graph = helper.make_graph(
        nodes,
        "grouped",
        [helper.make_tensor_value_info("planes", TensorProto.FLOAT, [1, 4, 5, 5])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8, 7, 7]) for name in ("conv", "second")],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = add_missing_biases(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10))
    onnx.checker.check_model(model, full_check=True)
    assert list(model.graph.initializer[-1].dims) == [8]


def relative_rms(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(np.mean((got - expected) ** 2)) / expected.std())


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "mobilenetv4_conv_small_035"])
def test_int8_differs_from_the_emulated_graph_by_less_than_quantization_costs(tmp_path: Path, backbone: str) -> None:
    torch.manual_seed(0)
    segmenter = Segmenter(NetworkSpec(backbone=backbone, decoder_channels=16), num_classes=4).eval()
    size = (4 * segmenter.size_multiple, 5 * segmenter.size_multiple)
    base = decompose_attention(base_graph(DeployGraph(segmenter, size), size))
    coarse = random_images(2, (4, 5))
    images = np.stack([cv2.resize(image, size[::-1], interpolation=cv2.INTER_CUBIC) for image in coarse])
    layers, _ = find_layers(base, INT8)
    histograms = collect(base, {layer.activation for layer in layers}, [images])
    quantized = insert_qdq(base, layers, {name: found.largest for name, found in histograms.items()}, INT8)

    logits = attach_mask_head(quantized, ["logits"], None, segmenter.decoder.align_corners)
    build(logits, tmp_path / "junior.xml", precision="int8")
    with OpenVINORunner(tmp_path / "junior.xml", threads=1, inference_precision="f32") as runner:
        got = runner.infer(images)["logits"]
    (exact,), (expected,) = (np.moveaxis(emulate(model)(images), 2, -1) for model in (base, quantized))
    # Values halfway between two integers are rounded either way, and each such step moves those behind it.
    assert relative_rms(got, expected) < 1.5 * relative_rms(exact, expected)
    assert (got.argmax(-1) == expected.argmax(-1)).mean() > 0.95


HINTS = {"fp32": "f32", "int8": "f32", "fp16": "dynamic", "bf16": "bf16"}


@pytest.mark.parametrize(("precision", "hint"), HINTS.items())
def test_the_build_records_the_precision_hint_that_the_runner_sets(tmp_path: Path, precision: str, hint: str) -> None:
    """Which precision OpenVINO would choose without a hint depends on the CPU, so the hint itself is checked."""
    import openvino

    path = tmp_path / "tiny.xml"
    built = build(network(SIZE, -1), path, precision=precision)
    assert built.build is not None and built.build.options == {"inference_precision": hint}
    manifest = manifest_of(path, engine="openvino", precision=precision, build=built.build)
    assert precision_hint(manifest) == hint
    compiled = compile_for_cpu(openvino, openvino.Core().read_model(path), 1, precision_hint(manifest))
    assert compiled.get_property("EXECUTION_MODE_HINT") == openvino.properties.hint.ExecutionMode.ACCURACY
    # A CPU without BF16 follows that hint in FP32.
    possible = {hint, "f32"} if hint == "bf16" else {hint}
    assert compiled.get_property("INFERENCE_PRECISION_HINT") in {getattr(openvino.Type, name) for name in possible}
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1


def test_an_artifact_of_an_older_version_keeps_its_graphs_precision(artifact: Path) -> None:
    assert precision_hint(manifest_of(artifact, engine="openvino", build=None)) == "dynamic"


def test_a_batch_of_another_size_is_refused(artifact: Path) -> None:
    with OpenVINORunner(artifact, threads=1) as runner, pytest.raises(ArtifactError, match=r"batch of shape \(1, 4"):
        runner.infer(random_images(1, (4, 12)))


def test_threads_share_its_streams(artifact: Path) -> None:
    """More threads than streams wait for one; each gets the masks of its own images."""
    batches = [np.random.default_rng(seed).integers(0, 256, (2, *SIZE, 3), np.uint8) for seed in range(12)]
    with OpenVINORunner(artifact, streams=2) as runner, ThreadPoolExecutor(4) as threads:
        assert runner.streams == 2
        for images, outputs in zip(batches, threads.map(runner.infer, batches), strict=True):
            assert np.array_equal(outputs["masks"], np.stack([expected_mask(image) for image in images]))


@pytest.mark.parametrize("suffix", [".xml", ".bin"])
@pytest.mark.parametrize("kept", [0, 0.5, None])
def test_damaged_files_get_one_line(artifact: Path, suffix: str, kept: float | None) -> None:
    file = artifact.with_suffix(suffix)
    content = file.read_bytes()
    file.unlink()
    if kept is not None:
        file.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ArtifactError, match=r"tiny\.xml: openvino cannot load it: .*; copy it again") as refused:
        OpenVINORunner(artifact).activate()
    assert "\n" not in str(refused.value)


def test_another_networks_files_are_refused(tmp_path: Path) -> None:
    import openvino

    model = network(SIZE, -1)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    openvino.save_model(openvino.Core().read_model(model.SerializeToString()), tmp_path / "other.xml")
    with pytest.raises(ArtifactError, match="takes images f32, not uint8 images"):
        OpenVINORunner(tmp_path / "other.xml").activate()


@pytest.mark.parametrize("arguments", [{"device": "cuda"}, {"device": "gpu"}, {"threads": 0}])
def test_what_openvino_has_not_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="use "):
        OpenVINORunner("tiny.xml", **arguments)


def test_options_of_other_builders_are_refused() -> None:
    OpenVINOEngine().check(BuildOptions(), "fp32")
    with pytest.raises(ConfigError, match="--engine openvino"):
        OpenVINOEngine().check(BuildOptions(workspace_mib=1), "fp32")


def test_the_missing_package_is_named(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependencyError, match=r"pip install \"segkc-deploy\[openvino\]\""):
        OpenVINORunner(artifact).activate()
    with pytest.raises(MissingDependencyError):
        OpenVINOEngine().check(BuildOptions(), "fp32")


def test_a_graph_that_is_refused_leaves_nothing_behind(tmp_path: Path) -> None:
    model = network(SIZE, -1)
    model.graph.node[2].op_type = "Unknown"
    with pytest.raises(BuildError, match=r"openvino refused the graph: .*operations: Unknown") as refused:
        build(model, tmp_path / "tiny.xml")
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


#: In a process of its own: the limit would also hit the log that the tests' output may go to.
_ON_A_FULL_DISK = """
import resource, sys
from pathlib import Path
from test_openvino import SIZE, BuildError, build, network

resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
try:
    build(network(SIZE, -1), Path(sys.argv[1], "tiny.xml"))
except BuildError as error:
    print("refused:", error)
"""


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _ON_A_FULL_DISK, tmp_path]
    # The tests' own helper modules are on pytest's path alone.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    finished = subprocess.run(
        command, cwd=Path(__file__).parent, env=environment, capture_output=True, text=True, check=False
    )
    assert finished.stdout.startswith("refused: "), finished.stderr
    assert list(tmp_path.iterdir()) == []
