"""The end of an artifact's graph: from logits at the decoder's resolution to what the contract promises."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: Outputs that a tail can give, each with its element type.
OUTPUT_TYPES = {"masks": TensorProto.UINT8, "confidence": TensorProto.FLOAT, "logits": TensorProto.FLOAT}

#: `Resize` with sizes in any layout, `ReduceMax` with axes as an input.
_LEAST_OPSET = 18


def attach_tail(
    model: onnx.ModelProto,
    outputs: Sequence[str],
    size: tuple[int, int] | None,
    align_corners: bool,
    kind: Literal["dense"] = "dense",
) -> onnx.ModelProto:
    """Return a copy of a base graph that ends in `outputs`, in that order.

    Args:
        model: a graph from `images` (N, H, W, 3) to `logits` float32 (N, C, h, w); it is left as it is.
        outputs: some of `masks` (uint8 (N, H, W), class ids), `confidence` (float32 (N, H, W), softmax probability of
            the mask's class) and `logits` (float32 (N, h, w, C), channels last). Without the first two there is no
            upsampling in the graph.
        size: (height, width) of masks and confidence; the size of `images` if None.
        align_corners: how logits are upsampled (bilinear): corners aligned, or pixel centers.
        kind: `dense` upsamples every logit.
    """
    assert outputs and set(outputs) <= set(OUTPUT_TYPES) and len(set(outputs)) == len(outputs), outputs
    assert next(opset.version for opset in model.opset_import if not opset.domain) >= _LEAST_OPSET
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    (base,) = graph.output
    shape = [dim.dim_param or dim.dim_value for dim in base.type.tensor_type.shape.dim]
    count, classes, *low = shape
    high = size or [dim.dim_param or dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim[1:3]]
    shapes = {"masks": [count, *high], "confidence": [count, *high], "logits": [count, *low, classes]}

    nodes = _Nodes(graph)
    logits = _rename(graph, base.name, "tail/logits")
    if {"masks", "confidence"} & set(outputs):
        full = _upsample(nodes, logits, size, align_corners)
        if "masks" in outputs:
            nodes.add("Cast", nodes.add("ArgMax", full, axis=1, keepdims=0), to=TensorProto.UINT8, result="masks")
        if "confidence" in outputs:
            _confidence(nodes, full)
    if "logits" in outputs:
        nodes.add("Transpose", logits, perm=[0, 2, 3, 1], result="logits")

    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(name, OUTPUT_TYPES[name], shapes[name]) for name in outputs)
    return result


class _Nodes:
    """Appends nodes and constants to a graph; every name begins with `tail/`."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._count = 0

    def add(self, op_type: str, *inputs: str, result: str | None = None, **attributes: Any) -> str:
        """Append one node and return the name of its output, `result` where it is given."""
        name = self._name(op_type)
        self._graph.node.append(helper.make_node(op_type, inputs, [result or name], name=name, **attributes))
        return result or name

    def constant(self, values: Sequence[int]) -> str:
        """Append a vector of int64."""
        name = self._name("constant")
        self._graph.initializer.append(numpy_helper.from_array(np.array(values, dtype=np.int64), name))
        return name

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"tail/{kind}_{self._count}"


def _upsample(nodes: _Nodes, logits: str, size: tuple[int, int] | None, align_corners: bool) -> str:
    # Exporters write upsampling with a dynamic batch in this very form, so every engine knows it.
    height_width = nodes.add("Shape", "images", start=1, end=3) if size is None else nodes.constant(size)
    sizes = nodes.add("Concat", nodes.add("Shape", logits, start=0, end=2), height_width, axis=0)
    convention = "align_corners" if align_corners else "half_pixel"
    return nodes.add("Resize", logits, "", "", sizes, mode="linear", coordinate_transformation_mode=convention)


def _confidence(nodes: _Nodes, logits: str) -> None:
    """Append the largest softmax probability: 1 / sum(exp(logits - largest)), cheaper than every class's softmax."""
    largest = nodes.add("ReduceMax", logits, nodes.constant([1]), keepdims=1)
    exponentials = nodes.add("Exp", nodes.add("Sub", logits, largest))
    total = nodes.add("ReduceSum", exponentials, nodes.constant([1]), keepdims=0)
    nodes.add("Reciprocal", total, result="confidence")


def _rename(graph: onnx.GraphProto, old: str, new: str) -> str:
    """Rename a tensor that a node gives, and return its new name: `logits` is also an output's name."""
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
    for value in graph.value_info:
        if value.name == old:
            value.name = new
    return new
