"""INT8 on every engine of a CPU: at least 98% of the pixels as the graph says, of networks that have learned."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from briefly_trained import briefly_trained

from segkc_deploy.export.contract import contract_of
from segkc_deploy.export.deploy_graph import DeployGraph
from segkc_deploy.export.engines.base import BuildRequest, Range
from segkc_deploy.export.engines.registry import find_engine
from segkc_deploy.export.mask_head import attach_mask_head
from segkc_deploy.export.precision.attention import decompose_attention
from segkc_deploy.export.precision.calibration import collect
from segkc_deploy.export.precision.emulation import emulate
from segkc_deploy.export.precision.qdq import INT8, find_layers, insert_qdq
from segkc_deploy.export.to_onnx import base_graph
from segkc_deploy.runners.base import Runner
from segkc_deploy.runners.onnx_runner import OnnxRuntimeRunner
from segkc_deploy.runners.openvino_runner import OpenVINORunner

SIZE = (96, 128)


@pytest.fixture(scope="module", params=["test_vit", "mobilenetv4_conv_small_035"])
def quantized(request: pytest.FixtureRequest) -> tuple[BuildRequest, np.ndarray]:
    """What to build in INT8 from a ViT with DPT and from a convolutional network with FPN, and images."""
    network, images = briefly_trained(request.param, SIZE)
    graph = DeployGraph(network, SIZE)
    base = decompose_attention(base_graph(graph, SIZE))
    layers, _ = find_layers(base, INT8)
    histograms = collect(base, {layer.activation for layer in layers}, [images[:4]])
    model = insert_qdq(base, layers, {name: found.largest for name, found in histograms.items()}, INT8)
    contract = contract_of(network, SIZE)
    request_ = BuildRequest(
        model=attach_mask_head(model, ["masks"], SIZE, contract.align_corners),
        network=graph,
        contract=contract,
        precision="int8",
        batch=Range(1, 1, 8),
        heights=Range(*[SIZE[0]] * 3),
        widths=Range(*[SIZE[1]] * 3),
        path=Path(),
    )
    return request_, images


def masks_of(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    run = emulate(model)
    return np.concatenate([run(images[place : place + 1])[0] for place in range(len(images))])


@pytest.mark.parametrize("engine", ["onnx", pytest.param("openvino", marks=pytest.mark.openvino)])
def test_the_masks_are_those_of_the_graph(
    engine: str, quantized: tuple[BuildRequest, np.ndarray], tmp_path: Path
) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino")
    request, images = quantized
    builder = find_engine(engine)
    path = tmp_path / f"junior{builder.suffix}"
    builder.build(BuildRequest(**(vars(request) | {"path": path})))
    runner: Runner = (
        OnnxRuntimeRunner(path, "cpu", 1)
        if engine == "onnx"
        else OpenVINORunner(path, "cpu", 1, inference_precision="f32")
    )
    expected = masks_of(request.model, images)
    assert np.unique(expected).size == 3
    with runner:
        got = np.concatenate([runner.infer(images[place : place + 1])["masks"] for place in range(len(images))])
    assert (got == expected).mean() >= 0.98
