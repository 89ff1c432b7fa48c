"""The mask head of an artifact's graph: from logits at the decoder's resolution to the contract's outputs."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from segkc_deploy.mask_head import cells_along

#: Outputs that a mask head can give, each with its element type.
OUTPUT_TYPES = {"masks": TensorProto.UINT8, "confidence": TensorProto.FLOAT, "logits": TensorProto.FLOAT}

#: `Resize` with sizes in any layout, `ReduceMax` with axes as an input.
LEAST_OPSET = 18


def attach_mask_head(
    model: onnx.ModelProto,
    outputs: Sequence[str],
    size: tuple[int, int] | None,
    align_corners: bool,
    kind: Literal["dense", "sparse"] = "dense",
) -> onnx.ModelProto:
    """Return a copy of a base graph that ends in `outputs`, in that order.

    Args:
        model: a graph from `images` (N, H, W, 3) to `logits` float32 (N, C, h, w); it is left as it is.
        outputs: some of `masks` (uint8 (N, H, W), class ids), `confidence` (float32 (N, H, W), softmax probability of
            the mask's class) and `logits` (float32 (N, h, w, C), channels last). Without the first two there is no
            upsampling in the graph.
        size: (height, width) of masks and confidence; the size of `images` if None.
        align_corners: how logits are upsampled (bilinear): corners aligned, or pixel centers.
        kind: `dense` upsamples every logit, which is what GPUs are good at. `sparse` computes only where neighboring
            logits differ in their winner (see `segkc_deploy.mask_head`): on a CPU two to seven times as fast, with the
            same masks. TensorRT's parser refuses its NonZero without plugins. It needs a fixed `size`, and with
            `confidence`, for which every logit is needed, it is the same as `dense`.
    """
    assert kind == "dense" or size is not None
    assert outputs and set(outputs) <= set(OUTPUT_TYPES) and len(set(outputs)) == len(outputs), outputs
    assert next(opset.version for opset in model.opset_import if not opset.domain) >= LEAST_OPSET
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    (base,) = graph.output
    shape = [dim.dim_param or dim.dim_value for dim in base.type.tensor_type.shape.dim]
    count, classes, *low = shape
    high = size or [dim.dim_param or dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim[1:3]]
    shapes = {"masks": [count, *high], "confidence": [count, *high], "logits": [count, *low, classes]}

    nodes = _Nodes(graph)
    planes = _rename(graph, base.name, "mask_head/logits")
    sparse = kind == "sparse" and "masks" in outputs and "confidence" not in outputs
    rows = ""
    if "logits" in outputs or sparse:
        rows = nodes.add("Transpose", planes, perm=[0, 2, 3, 1], result="logits" if "logits" in outputs else None)
    if sparse:
        assert size is not None
        _sparse_masks(nodes, planes, rows, (classes, *low), size, align_corners)
    elif {"masks", "confidence"} & set(outputs):
        full = _upsample(nodes, planes, size, align_corners)
        if "masks" in outputs:
            nodes.add("Cast", nodes.add("ArgMax", full, axis=1, keepdims=0), to=TensorProto.UINT8, result="masks")
        if "confidence" in outputs:
            _confidence(nodes, full)

    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(name, OUTPUT_TYPES[name], shapes[name]) for name in outputs)
    return result


class _Nodes:
    """Appends nodes and constants to a graph; every name begins with `mask_head/`."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._count = 0

    def add(self, op_type: str, *inputs: str, result: str | None = None, **attributes: Any) -> str:
        """Append one node and return the name of its output, `result` where it is given."""
        name = self._name(op_type)
        self._graph.node.append(helper.make_node(op_type, inputs, [result or name], name=name, **attributes))
        return result or name

    def constant(self, values: np.ndarray | Sequence[int] | int) -> str:
        """Append a constant: int64, unless it is an array of floats."""
        array = np.asarray(values)
        name = self._name("constant")
        array = array if array.dtype == np.float32 else array.astype(np.int64)
        self._graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"mask_head/{kind}_{self._count}"


def _upsample(nodes: _Nodes, logits: str, size: tuple[int, int] | None, align_corners: bool) -> str:
    # Exporters write upsampling with a dynamic batch in this very form, so every engine knows it.
    height_width = nodes.add("Shape", "images", start=1, end=3) if size is None else nodes.constant(size)
    sizes = nodes.add("Concat", nodes.add("Shape", logits, start=0, end=2), height_width, axis=0)
    convention = "align_corners" if align_corners else "half_pixel"
    return nodes.add("Resize", logits, "", "", sizes, mode="linear", coordinate_transformation_mode=convention)


def _sparse_masks(
    nodes: _Nodes, planes: str, rows: str, low: tuple[int, int, int], size: tuple[int, int], align_corners: bool
) -> None:
    """Append `masks`: the nearest logit's winner, and in cells whose corners differ the interpolated winner.

    Args:
        planes, rows: the logits as (N, C, h, w) and as (N, h, w, C).
        low: C, h and w.
    """
    classes, height, width = low
    down, across = cells_along(height, size[0], align_corners), cells_along(width, size[1], align_corners)
    winner = nodes.add("ArgMax", planes, axis=1, keepdims=1)
    image, row, column = _mixed_cells(nodes, winner, (down.count[:, None] > 0) & (across.count > 0))

    def of(cell: str, values: np.ndarray) -> str:
        """Look `values` up, whose last axis is along the cells; the result ends in one axis over the mixed cells."""
        return nodes.add("Gather", nodes.constant(values), cell, axis=values.ndim - 1)

    # Whole rows of logits are copied, then turned: with the cells last, the arithmetic runs along them.
    vectors = nodes.add("Reshape", rows, nodes.constant([-1, classes]))
    first = nodes.add("Mul", image, nodes.constant(height * width))
    above, below = (nodes.add("Add", first, of(row, near * width)) for near in (down.before, down.after))
    left, right = (of(column, near) for near in (across.before, across.after))

    def corner(vertical: str, horizontal: str) -> str:
        scores = nodes.add("Gather", vectors, nodes.add("Add", vertical, horizontal))
        return nodes.add("Unsqueeze", nodes.add("Transpose", scores, perm=[1, 0]), nodes.constant([1]))

    def between(start: str, end: str, weight: str) -> str:
        return nodes.add("Add", start, nodes.add("Mul", nodes.add("Sub", end, start), weight))

    vertical = of(row, down.weight)
    edges = [between(corner(above, side), corner(below, side), vertical) for side in (left, right)]
    start, end = (nodes.add("Unsqueeze", edge, nodes.constant([2])) for edge in edges)
    scores = between(start, end, of(column, across.weight))  # (C, pixels down, pixels across, cells)
    computed = nodes.add("Cast", nodes.add("ArgMax", scores, axis=0, keepdims=0), to=TensorProto.UINT8)

    # Pixels that a small cell repeats are written twice, with the same value.
    pixel_row = of(row, down.pixels(np.arange(height + 1))[:, None] * size[1])
    pixel = nodes.add("Add", pixel_row, of(column, across.pixels(np.arange(width + 1))))
    pixel = nodes.add("Add", pixel, nodes.add("Mul", image, nodes.constant(size[0] * size[1])))
    flat = [
        nodes.add("Reshape", values, nodes.constant([-1]))
        for values in (_nearest(nodes, winner, size, align_corners), pixel, computed)
    ]
    nodes.add("Reshape", nodes.add("ScatterElements", *flat, axis=0), nodes.constant([-1, *size]), result="masks")


def _mixed_cells(nodes: _Nodes, winner: str, has_pixels: np.ndarray) -> tuple[str, str, str]:
    """Append the search for cells whose corners differ in `winner` (N, 1, h, w); return their image, row and column.

    Args:
        has_pixels: bool (h + 1, w + 1), the cells in which there is any output pixel.
    """
    ids = nodes.add("Cast", winner, to=TensorProto.FLOAT)
    largest, negated_least = (
        nodes.add("MaxPool", values, kernel_shape=[2, 2], pads=[1, 1, 1, 1]) for values in (ids, nodes.add("Neg", ids))
    )
    spread = nodes.add("Add", largest, negated_least)
    if not has_pixels.all():
        spread = nodes.add("Mul", spread, nodes.constant(has_pixels.astype(np.float32)))
    found = nodes.add("NonZero", spread)
    image, row, column = (nodes.add("Gather", found, nodes.constant(axis), axis=0) for axis in (0, 2, 3))
    return image, row, column


def _nearest(nodes: _Nodes, winner: str, size: tuple[int, int], align_corners: bool) -> str:
    """Append the winner (N, 1, h, w) of the logit nearest to each pixel, one of its cell's corners."""
    one_byte = nodes.add("Cast", winner, to=TensorProto.UINT8)
    count = nodes.add("Shape", winner, start=0, end=1)
    sizes = nodes.add("Concat", count, nodes.constant([1, *size]), axis=0)
    convention = "align_corners" if align_corners else "half_pixel"
    return nodes.add("Resize", one_byte, "", "", sizes, mode="nearest", coordinate_transformation_mode=convention)


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
