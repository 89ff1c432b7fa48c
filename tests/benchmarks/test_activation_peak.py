"""The activation peak: against counts by hand, and liveness against a search through every step."""

import random

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from segkc_deploy.export.deploy_graph import DeployGraph
from segkc_deploy.export.graph_activations import graph_activation_peak
from segkc_deploy.export.liveness import Step, most_live
from segkc_deploy.export.mask_head import attach_mask_head
from segkc_deploy.export.to_onnx import base_graph
from segkc_deploy.export.torch_activations import torch_activation_peak
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.models.spec import NetworkSpec

_HEIGHT, _WIDTH = 4, 6
_PIXELS = _HEIGHT * _WIDTH

_SKIP = """
<ir_version: 10, opset_import: ["": 23]>
skip (uint8[batch, 4, 6, 3] images) => (float[batch, 2, 4, 6] logits) {
    numbers = Cast <to = 1> (images)
    planes = Transpose <perm = [0, 3, 1, 2]> (numbers)
    stem = Conv <kernel_shape = [1, 1]> (planes, first)
    wide = Conv <kernel_shape = [1, 1]> (stem, second)
    edges = Relu (wide)
    narrow = Conv <kernel_shape = [1, 1]> (edges, third)
    both = Add (stem, narrow)
    logits = Conv <kernel_shape = [1, 1]> (both, fourth)
}
"""
_SKIP_WEIGHTS = {"first": (8, 3), "second": (16, 8), "third": (8, 16), "fourth": (2, 8)}


def graph(text: str, shapes: dict[str, tuple[int, int]]) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    for name, shape in shapes.items():
        model.graph.initializer.append(numpy_helper.from_array(np.ones((*shape, 1, 1), np.float32), name))
    onnx.checker.check_model(model, full_check=True)
    return model


def image(seed: int = 0, size: tuple[int, int] = (_HEIGHT, _WIDTH)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, *size, 3)).astype(np.uint8)


class Skip(nn.Module):
    """The graph above."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(read, made, 1) for made, read in _SKIP_WEIGHTS.values())

    def forward(self, images: Tensor) -> Tensor:
        first, second, third, fourth = self.layers
        stem = first(images.float().permute(0, 3, 1, 2))
        result: Tensor = fourth(stem + third(second(stem).relu()))
        return result


#: While the rectifier runs: `stem` (8 channels, read again by the sum), what it reads and what it writes (16 each).
_SKIP_PEAK = 4 * _PIXELS * (8 + 16 + 16)


def test_a_tensor_that_is_skipped_around_layers_lives_on() -> None:
    assert graph_activation_peak(graph(_SKIP, _SKIP_WEIGHTS), image()) == _SKIP_PEAK
    assert torch_activation_peak(Skip(), (_HEIGHT, _WIDTH)) == _SKIP_PEAK


class InPlace(Skip):
    def forward(self, images: Tensor) -> Tensor:
        first, second, third, fourth = self.layers
        stem = first(images.float().permute(0, 3, 1, 2))
        result: Tensor = fourth(stem + third(second(stem).relu_()))
        return result


def test_what_is_written_in_place_or_only_viewed_takes_no_more() -> None:
    assert torch_activation_peak(InPlace(), (_HEIGHT, _WIDTH)) == 4 * _PIXELS * (8 + 16 + 8)  # the third convolution
    text = _SKIP.replace("edges = Relu (wide)", "flat = Flatten (wide)\n edges = Reshape (flat, shape)")
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 16, _HEIGHT, _WIDTH]), "shape"))
    for name, shape in _SKIP_WEIGHTS.items():
        model.graph.initializer.append(numpy_helper.from_array(np.ones((*shape, 1, 1), np.float32), name))
    assert graph_activation_peak(model, image()) == 4 * _PIXELS * (8 + 16 + 8)


def test_weights_and_what_is_made_of_them_do_not_count() -> None:
    text = (
        _SKIP.replace("stem = Conv <kernel_shape = [1, 1]> (planes, first)", "")
        .replace(
            "numbers = Cast",
            "half = Cast <to = 10> (first)\n whole = Cast <to = 1> (half)\n numbers = Cast",
        )
        .replace("wide = Conv", "stem = Conv <kernel_shape = [1, 1]> (planes, whole)\n wide = Conv")
    )
    assert graph_activation_peak(graph(text, _SKIP_WEIGHTS), image()) == _SKIP_PEAK


def test_a_quantized_tensor_has_8_bits() -> None:
    text = _SKIP.replace(
        "narrow = Conv <kernel_shape = [1, 1]> (edges, third)",
        """eight = QuantizeLinear (edges, scale, zero)
        back = DequantizeLinear (eight, scale, zero)
        narrow = Conv <kernel_shape = [1, 1]> (back, third)""",
    )
    model = onnx.parser.parse_model(text)
    constants = {"scale": np.array(0.1, np.float32), "zero": np.array(0, np.int8)}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    for name, shape in _SKIP_WEIGHTS.items():
        model.graph.initializer.append(numpy_helper.from_array(np.ones((*shape, 1, 1), np.float32), name))
    # The rectifier writes bytes: stem and wide in float, edges in 8 bits.
    assert graph_activation_peak(model, image()) == _PIXELS * (4 * 8 + 4 * 16 + 16)


def test_input_and_outputs_count() -> None:
    text = """
    <ir_version: 10, opset_import: ["": 23]>
    ends (uint8[batch, 4, 6, 3] images) => (uint8[batch, 4, 6, 3] copy, float[batch, 4, 6, 3] numbers) {
        copy = Transpose <perm = [0, 1, 2, 3]> (images)
        numbers = Cast <to = 1> (images)
    }
    """
    assert graph_activation_peak(graph(text, {}), image()) == _PIXELS * 3 * (1 + 1 + 4)


@pytest.mark.parametrize("seed", range(20))
def test_liveness_is_that_of_a_search_through_every_step(seed: int) -> None:
    rng = random.Random(seed)
    names: list[str] = ["given"]
    steps: list[Step] = []
    for index in range(rng.randint(1, 25)):
        reads = rng.sample(names, rng.randint(0, min(3, len(names)))) + ["a weight"] * rng.randint(0, 1)
        writes = [f"{index}.{output}" for output in range(rng.randint(1, 2))]
        if rng.random() < 0.2:
            writes.append(rng.choice(names))  # in place
        steps.append(Step(tuple(reads), tuple(writes)))
        names += [name for name in writes if name not in names]
    sizes = {name: rng.randint(1, 1000) for name in names}
    kept = rng.sample(names, min(2, len(names)))

    def is_there(name: str, now: int) -> bool:
        born = -1 if name == "given" else min(i for i, step in enumerate(steps) if name in step.writes)
        used = [i for i, step in enumerate(steps) if name in (*step.reads, *step.writes)]
        if name in kept:
            return born <= now
        return born <= now <= max(used, default=-1)  # what is given is there until the first step

    expected = max(sum(size for name, size in sizes.items() if is_there(name, now)) for now in range(-1, len(steps)))
    assert most_live(steps, sizes, given=["given"], kept=kept) == expected


@pytest.fixture(scope="module")
def network() -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(NetworkSpec(backbone="resnet10t", decoder_channels=16, pretrained=False), num_classes=5).eval()


def test_pytorch_and_the_exported_graph_agree(network: Segmenter) -> None:
    """Two independent ways to the same figure: operations as they run, and nodes with inferred shapes."""
    size = (64, 96)
    deployed = DeployGraph(network, size)
    model = attach_mask_head(base_graph(deployed, size), ("masks",), size, align_corners=False)
    largest = max(
        np.prod([dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]) for value in model.graph.value_info
    )
    peak = graph_activation_peak(model, image(size=size))
    assert torch_activation_peak(deployed.eval(), size) == peak
    assert 4 * largest < peak <= 4 * 4 * largest


def test_shapes_that_depend_on_the_image_are_those_of_the_image() -> None:
    """Sparse upsampling computes only where classes meet, which in an even picture is nowhere."""
    size = (8 * _HEIGHT, 8 * _WIDTH)
    base = onnx.parser.parse_model(f"""
    <ir_version: 10, opset_import: ["": 23]>
    colors (uint8[batch, {size[0]}, {size[1]}, 3] images) => (float[batch, 3, 4, 6] logits) {{
        numbers = Cast <to = 1> (images)
        planes = Transpose <perm = [0, 3, 1, 2]> (numbers)
        logits = AveragePool <kernel_shape = [8, 8], strides = [8, 8]> (planes)
    }}
    """)
    model = attach_mask_head(base, ("masks",), size, False, "sparse")
    even = graph_activation_peak(model, np.full((1, *size, 3), 7, np.uint8))
    # Pixels and their planes in float, before the mask head: all that the even picture needs at once.
    assert even == 2 * 4 * 3 * size[0] * size[1]
    assert graph_activation_peak(model, image(size=size)) > 1.2 * even
