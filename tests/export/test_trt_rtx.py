"""NVIDIA's own parser and builder on the graphs of every family in every precision: TensorRT for RTX needs no GPU."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from strict_api import Api
from trt_request import SIZE, build_request

from segkc_deploy.cuda_probe import Gpu
from segkc_deploy.errors import BuildError, ConfigError
from segkc_deploy.export.deploy_graph import DeployGraph
from segkc_deploy.export.engines import trt_rtx_engine
from segkc_deploy.export.engines.base import BuildOptions, Range
from segkc_deploy.export.engines.trt_rtx_engine import TensorRTRTXEngine
from segkc_deploy.export.mask_head import attach_mask_head
from segkc_deploy.export.precision.attention import decompose_attention
from segkc_deploy.export.precision.mixed import to_mixed_precision
from segkc_deploy.export.precision.quantize import FORMATS, Quantized, quantize
from segkc_deploy.export.precision.quantized_mixed import quantize_mixed
from segkc_deploy.export.to_onnx import base_graph
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.models.spec import NetworkSpec

library = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")

pytestmark = pytest.mark.trt_rtx

Transform = Callable[[onnx.ModelProto, Sequence[np.ndarray]], onnx.ModelProto]

FAMILIES = {"vit+dpt": "test_vit", "cnn+fpn": "resnet10t"}

PRECISIONS: dict[str, Transform] = {
    "fp32": lambda model, batches: model,
    "fp16": lambda model, batches: to_mixed_precision(model, "fp16", batches).model,
    "bf16": lambda model, batches: to_mixed_precision(model, "bf16", batches).model,
    "int8": lambda model, batches: quantized(model, "int8", batches).model,
    "fp8": lambda model, batches: quantized(model, "fp8", batches).model,
    "int8-fp16": lambda model, batches: with_16_bits(model, "int8", batches),
    "fp8-fp16": lambda model, batches: with_16_bits(model, "fp8", batches),
}


def quantized(model: onnx.ModelProto, precision: Literal["int8", "fp8"], batches: Sequence[np.ndarray]) -> Quantized:
    # Every candidate is as good as the other: what is tried here is the graph, not its masks.
    return quantize(model, precision, batches, lambda candidate: 50.0)


def with_16_bits(
    model: onnx.ModelProto, precision: Literal["int8", "fp8"], batches: Sequence[np.ndarray]
) -> onnx.ModelProto:
    chosen = quantized(model, precision, batches)
    mixed = to_mixed_precision(chosen.unquantized, "fp16", batches)
    return quantize_mixed(mixed, chosen, FORMATS[precision])[0]


OUTPUTS = ("masks", "confidence", "logits")


@dataclass(frozen=True)
class Family:
    """A tiny random network, its base graph, and images of its size."""

    network: Segmenter
    base: onnx.ModelProto
    size: tuple[int, int]
    batches: list[np.ndarray]


def random_network(backbone: str) -> Segmenter:
    torch.manual_seed(0)
    network = Segmenter(NetworkSpec(backbone=backbone, decoder_channels=16), num_classes=5).eval()
    for parameter in network.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return network


@cache
def family_of(backbone: str) -> Family:
    network = random_network(backbone)
    size = (2 * network.size_multiple, 3 * network.size_multiple)
    images = np.random.default_rng(0).integers(0, 256, (2, *size, 3)).astype(np.uint8)
    return Family(network, base_graph(DeployGraph(network, size), size), size, [images])


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES.keys())
def family(request: pytest.FixtureRequest) -> Family:
    return family_of(request.param)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_family_builds_in_every_precision(family: Family, precision: str, tmp_path: Path) -> None:
    model = PRECISIONS[precision](decompose_attention(family.base), family.batches)
    model = attach_mask_head(model, OUTPUTS, family.size, family.network.decoder.align_corners)
    request = build_request(
        tmp_path / "junior.rtx", model, precision, family.size, compute_capabilities=("8.9",), optimization_level=0
    )
    built = TensorRTRTXEngine().build(request)
    plan = request.path.read_bytes()
    assert plan[:4] == b"vtrt"
    assert int.from_bytes(plan[16:24], "little") == len(plan)
    assert built.build is not None
    assert ".".join(map(str, plan[24:28])) == built.build.version == library.__version__
    assert built.build.options["builder_optimization_level"] == 0


@pytest.mark.parametrize(("precision", "named"), [("fp8", "8.6"), ("bf16", "7.5")])
def test_the_builder_itself_refuses_gpus_without_the_number_format(
    precision: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the engine refuses before any work is refused by NVIDIA's builder too, only late."""
    cnn = family_of("resnet10t")
    model = PRECISIONS[precision](cnn.base, cnn.batches)
    model = attach_mask_head(model, ("masks",), cnn.size, cnn.network.decoder.align_corners)
    request = build_request(tmp_path / "junior.rtx", model, precision, cnn.size, compute_capabilities=(named,))
    with pytest.raises(ConfigError, match=precision):
        TensorRTRTXEngine().build(request)
    monkeypatch.setattr(trt_rtx_engine, "check_precision", lambda *arguments: None)
    with pytest.raises(BuildError, match="HW-specific datatypes"):
        TensorRTRTXEngine().build(request)


@pytest.mark.parametrize(
    ("here", "named", "device"),
    [("7.5", (), ""), ("8.6", (), "cuda"), ("8.6", ("8.9",), ""), ("7.5", ("7.5",), "cuda")],
)
def test_it_is_verified_where_it_can_run(
    monkeypatch: pytest.MonkeyPatch, here: str, named: tuple[str, ...], device: str
) -> None:
    monkeypatch.setattr(trt_rtx_engine, "cuda_obstacle", lambda: "")
    monkeypatch.setattr(trt_rtx_engine, "find_gpu", lambda: Gpu("a GPU", here, "580.1"))
    options = BuildOptions(compute_capabilities=named)
    assert TensorRTRTXEngine().verification_device("fp16", options) == device


def test_images_may_have_other_bands_than_three(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["images"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("ArgMax", ["values"], ["classes"], axis=3, keepdims=0),
        helper.make_node("Cast", ["classes"], ["masks"], to=TensorProto.UINT8),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *SIZE, 4])
    masks = helper.make_tensor_value_info("masks", TensorProto.UINT8, ["N", *SIZE])
    graph = helper.make_graph(nodes, "bands", [images], [masks])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    request = build_request(tmp_path / "junior.rtx", model, compute_capabilities=("8.9",), optimization_level=0)
    request = changed(request, contract=request.contract.model_copy(update={"bands": 4, "color": "bands"}))
    built = TensorRTRTXEngine().build(request)
    assert built.build is not None
    assert built.build.options["profile"] == {"images": [[1, *SIZE, 4], [2, *SIZE, 4], [4, *SIZE, 4]]}


def test_height_and_width_may_be_free(tmp_path: Path) -> None:
    network = random_network("resnet10t")
    base = base_graph(DeployGraph(network, None), (64, 96), free_size=True)
    model = attach_mask_head(base, ("masks",), None, network.decoder.align_corners)
    request = build_request(tmp_path / "junior.rtx", model, size=(64, 96))
    request = changed(request, heights=Range(64, 96, 160), widths=Range(64, 128, 256))
    built = TensorRTRTXEngine().build(request)
    assert built.build is not None
    assert built.build.options["profile"] == {"images": [[1, 64, 64, 3], [2, 96, 128, 3], [4, 160, 256, 3]]}


def test_the_real_parser_names_the_node_it_refuses(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Transpose", ["images"], ["masks"], name="pixels_first", perm=[0, 3, 1, 2])],
        "uint8 transpose",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 8, 12, 3])],
        [helper.make_tensor_value_info("masks", TensorProto.UINT8, ["batch", 3, 8, 12])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with pytest.raises(BuildError) as caught:
        TensorRTRTXEngine().build(build_request(tmp_path / "junior.rtx", model))
    assert "\n" not in str(caught.value)
    assert "UINT8" in str(caught.value).upper()
    assert list(tmp_path.iterdir()) == []


def test_the_stand_ins_description_is_of_the_real_bindings() -> None:
    api = Api("trt-rtx-1.7", "tensorrt_rtx")
    for name, made in api.classes.items():
        real = getattr(library, name)
        description = api.description(name)
        for member, value in description.get("enum", {}).items():
            assert int(real.__members__[member]) == value == int(made[member])
        for member in (*description.get("methods", ()), *description.get("properties", ())):
            assert hasattr(real, member), f"{name}.{member}"
    assert library.__version__ == api.version
