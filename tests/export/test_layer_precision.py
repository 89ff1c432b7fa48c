"""The count of layers by precision is what the types in the graph say."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_graphs import attention_graph, convolution_graph, images

from segkc_deploy.export.layer_precision import MOVES, layer_precision_of
from segkc_deploy.export.precision.mixed import to_mixed_precision


def test_a_float32_graph_is_all_float32_and_moves_are_left_out() -> None:
    precision = layer_precision_of(attention_graph().model())
    assert precision.source == "graph"
    assert precision.layers == {
        "fp32": {"Add": 2, "Attention": 1, "Conv": 1, "Div": 1, "LayerNormalization": 2, "MatMul": 5}
    }


@pytest.mark.parametrize(("name", "kept_products"), [("fp16", {}), ("bf16", {"Conv": 1, "MatMul": 1})])
def test_mixed_precision_is_counted_by_what_each_node_reads(name: str, kept_products: dict[str, int]) -> None:
    mixed = to_mixed_precision(attention_graph().model(), name, [images(1)])
    precision = layer_precision_of(mixed.model)
    low = {"Add": 2, "Conv": 1, "MatMul": 7, "Mul": 1}
    low = {key: left for key, count in low.items() if (left := count - kept_products.get(key, 0))}
    kept = {"Div": 1, "LayerNormalization": 2, "Softmax": 1, **kept_products}
    assert precision.layers == {name: low, "fp32": dict(sorted(kept.items()))}


@pytest.mark.parametrize(
    ("numbers", "name"), [(TensorProto.INT8, "int8"), (TensorProto.FLOAT8E4M3FN, "fp8"), (TensorProto.UINT8, "int8")]
)
def test_products_of_quantized_numbers_count_as_such(numbers: int, name: str) -> None:
    """Data and weights must both be quantized; a layer with only one of them computes in float."""
    model = convolution_graph().model()
    nodes = []
    for node in model.graph.node:
        if node.output[0] in ("wide", "narrow"):
            nodes.extend(_quantized(node, 0, numbers))
        if node.output[0] == "wide":
            nodes.extend(_quantized(node, 1, numbers))
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.1, np.float32), "step"))
    model.graph.initializer.append(helper.make_tensor("zero_point", numbers, [], b"\0", raw=True))
    onnx.checker.check_model(model, full_check=True)
    assert layer_precision_of(model).layers == {name: {"Conv": 1}, "fp32": {"Conv": 3, "Div": 1, "Relu": 3}}


def _quantized(node: onnx.NodeProto, index: int, numbers: int) -> list[onnx.NodeProto]:
    """Put a pair of QuantizeLinear and DequantizeLinear before an input of `node`; return the pair."""
    source, stored = node.input[index], f"{node.output[0]}_{index}"
    node.input[index] = f"{stored}_float"
    return [
        helper.make_node("QuantizeLinear", [source, "step", "zero_point"], [stored], output_dtype=numbers),
        helper.make_node("DequantizeLinear", [stored, "step", "zero_point"], [f"{stored}_float"]),
    ]


def test_arithmetic_on_sizes_is_left_out() -> None:
    graph = convolution_graph()
    graph.text = graph.text.replace(
        "narrow = Conv",
        "size = Shape (edges)\n    twice = Add (size, size)\n    again = Div (twice, two)\n    narrow = Conv",
    ).replace("parts = Relu (narrow)", "parts = Reshape (narrow, again)")
    graph.weights["two"] = np.array([2])
    assert layer_precision_of(graph.model()).layers == {"fp32": {"Conv": 4, "Div": 1, "Relu": 2}}


def test_what_computes_is_no_move() -> None:
    computing = "Add Attention Conv ConvTranspose Gelu Gemm LayerNormalization MatMul Mul Relu Resize Softmax"
    assert MOVES.isdisjoint(computing.split())
