"""Keeps OpenVINO from applying the scales of a quantized convolution twice.

OpenVINO 2026.4 computes an INT8 convolution in integers and multiplies the result by its scales afterwards. In front of
some operators (ReLU, max pooling, resizing, reshaping) it moves that multiplication behind them, one copy for each
reader of the convolution. If one of the copies still follows the convolution directly, the CPU plugin fuses it into the
convolution, whose other readers then get scaled values and scale them again. The DPT and FPN decoders have such
convolutions: a ReLU and a residual connection read the same result. A bias between the convolution and its readers
keeps the multiplication with the convolution.
"""

from collections import Counter

import numpy as np
import onnx
from onnx import numpy_helper

#: OpenVINO removes a bias of zeros. Adding this changes no float32 number above 1e-23.
_BIAS = np.float32(1e-30)

_CONVOLUTIONS = ("Conv", "ConvTranspose")


def add_missing_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of `model` in which quantized convolutions with several readers have a bias.

    Args:
        model: a graph with QuantizeLinear and DequantizeLinear nodes, or without.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    scales = {
        node.output[0]: len(node_scales)
        for node in graph.node
        if node.op_type == "DequantizeLinear" and (node_scales := _constant(graph, node.input[1])) is not None
    }
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(value.name for value in graph.output)
    for node in graph.node:
        if node.op_type in _CONVOLUTIONS and node.input[1] in scales and readers[node.output[0]] > 1:
            if len(node.input) > 2 and node.input[2]:
                continue
            # Weights of a grouped ConvTranspose have a scale for each output channel of one group.
            groups = next((one.i for one in node.attribute if one.name == "group"), 1)
            channels = scales[node.input[1]] * (groups if node.op_type == "ConvTranspose" else 1)
            bias = numpy_helper.from_array(np.full(channels, _BIAS), f"{node.output[0]}/bias")
            graph.initializer.append(bias)
            node.input[:] = [*node.input[:2], bias.name]
    return result


def _constant(graph: onnx.GraphProto, name: str) -> np.ndarray | None:
    """Return the values of a vector among the constants; None for a scalar and for what is computed."""
    found = next((tensor for tensor in graph.initializer if tensor.name == name and len(tensor.dims) == 1), None)
    return None if found is None else numpy_helper.to_array(found)
