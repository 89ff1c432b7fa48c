"""The most memory that an ONNX graph's intermediate tensors take at once for one image: by the graph, unfused."""

from collections.abc import Hashable
from math import prod

import numpy as np
import onnx
from onnx import helper

from segkc_deploy.export.liveness import Step, most_live
from segkc_deploy.export.precision.emulation import emulate

#: Give the bytes of their first input under another shape.
_VIEWS = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
_QUANTIZE = "QuantizeLinear"
_DEQUANTIZE = "DequantizeLinear"

#: Tensors kept in one run that finds out shapes: those of a large network do not fit into memory at once.
_AT_ONCE = 64


def graph_activation_peak(model: onnx.ModelProto, image: np.ndarray) -> int:
    """Return the most bytes that the tensors between the weights of `model` take at once, node after node.

    Input and outputs count, weights and what is computed from weights alone do not. A tensor that only changes its
    shape is counted once. A pair of QuantizeLinear and DequantizeLinear says that the tensor between two layers has 8
    bits, so it is counted with 8 bits and not in float as well. Engines fuse layers and need less.

    Args:
        model: a graph whose only input is `images`, uint8 (N, H, W, 3), N free or 1.
        image: uint8 (1, H, W, 3), the size to count for. The content matters only where a graph's shapes depend on it,
            as those of sparse upsampling do.
    """
    (images,) = model.graph.input
    from_images = _computed_from(model, images.name)
    sizes = _sizes(model, from_images, image)
    storage = _storage(model, from_images)
    steps = [
        Step({storage.get(name, name) for name in node.input}, {storage.get(name, name) for name in node.output})
        for node in model.graph.node
    ]
    owned: dict[Hashable, int] = {name: size for name, size in sizes.items() if storage.get(name, name) == name}
    outputs = [storage.get(value.name, value.name) for value in model.graph.output]
    return most_live(steps, owned, given=[images.name], kept=outputs)


def _computed_from(model: onnx.ModelProto, images: str) -> set[str]:
    """Return the tensors that depend on the images, themselves included."""
    found = {images}
    for node in model.graph.node:
        assert not any(attribute.HasField("g") for attribute in node.attribute), "graphs within graphs are not counted"
        if found.intersection(node.input):
            found.update(filter(None, node.output))
    return found


def _storage(model: onnx.ModelProto, activations: set[str]) -> dict[str, str]:
    """Return the tensor in whose memory each tensor lies that has none of its own."""
    storage: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type in _VIEWS | {_DEQUANTIZE} and node.input[0] in activations:
            storage[node.output[0]] = storage.get(node.input[0], node.input[0])
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    given = {value.name for value in (*model.graph.input, *model.graph.output)}
    for name in activations - storage.keys() - given:
        nodes = readers.get(name, [])
        if nodes and all(node.op_type == _QUANTIZE for node in nodes):
            storage[name] = nodes[0].output[0]  # written as 8 bits at once
    return storage


def _sizes(model: onnx.ModelProto, names: set[str], image: np.ndarray) -> dict[str, int]:
    """Return the bytes of the tensors `names` for one image."""
    typed = onnx.ModelProto()
    typed.CopyFrom(model)
    del typed.graph.value_info[:]
    for value, shape in ((typed.graph.input[0], image.shape), *((output, None) for output in typed.graph.output)):
        kind = value.type.tensor_type.elem_type
        value.CopyFrom(helper.make_tensor_value_info(value.name, kind, shape))
    typed = onnx.shape_inference.infer_shapes(typed, check_type=True, strict_mode=True, data_prop=True)
    types: dict[str, int] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for value in (*typed.graph.value_info, *typed.graph.input, *typed.graph.output):
        tensor = value.type.tensor_type
        types[value.name] = tensor.elem_type
        if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
    unknown = sorted(names - shapes.keys())
    for group in (unknown[start : start + _AT_ONCE] for start in range(0, len(unknown), _AT_ONCE)):
        values = emulate(model, group)(image)
        shapes |= {name: value.shape for name, value in zip(group, values, strict=True)}
    return {name: prod(shapes[name]) * helper.tensor_dtype_to_np_dtype(types[name]).itemsize for name in names}
