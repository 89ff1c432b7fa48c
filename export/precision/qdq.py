"""Quantization as it stands in the graph: QuantizeLinear and DequantizeLinear at the inputs of heavy layers.

Symmetric throughout, as TensorRT wants it: no zero points, one scale for each activation, one for each output channel
of a weight, biases as they were. Activations pass a QuantizeLinear and a DequantizeLinear; weights are stored
quantized and pass a DequantizeLinear alone.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from segkc_deploy.export.layer_precision import element_types
from segkc_deploy.manifest import FallbackNode

_FLOATS: dict[int, str] = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}

#: Smallest scale in FP16: below, FP16 tells fewer than 64 scales from one another, and none at all below 3e-8.
_LEAST_FP16_SCALE = 2.0**-18

_MOST_CHANNELS_WITHOUT_FP8 = 16
_LARGEST_FP8_KERNEL = 32


@dataclass(frozen=True)
class Format:
    """An 8-bit number format: its largest value, its type in NumPy and whether its values are evenly spaced."""

    name: str
    largest: float
    dtype: np.dtype
    uniform: bool

    def scales(self, largest: np.ndarray) -> np.ndarray:
        """Return the float32 scales at which absolute values of `largest` become the format's own largest value."""
        scales = np.asarray(largest, dtype=np.float32) / np.float32(self.largest)
        # A channel of zeros has any scale; one that is not a normal number would not survive on every engine.
        return np.where(scales < np.finfo(np.float32).tiny, np.float32(1), scales)

    def quantize(self, values: np.ndarray, scales: np.ndarray) -> np.ndarray:
        """Return float32 `values` divided by `scales` in this format, rounded half to even, saturated."""
        scaled = np.clip(values / scales, -self.largest, self.largest)
        return (np.rint(scaled) if self.uniform else scaled).astype(self.dtype)


INT8 = Format("int8", 127.0, np.dtype(np.int8), uniform=True)
FP8 = Format("fp8", 448.0, np.dtype(ml_dtypes.float8_e4m3fn), uniform=False)


@dataclass(frozen=True)
class Layer:
    """A node that can be quantized.

    Attributes:
        name: the node's name.
        op_type: `Conv`, `ConvTranspose`, `MatMul` or `Gemm`.
        output: the name of its output, which no two nodes share.
        activation: the name of its first input.
        weight: the name of its second, a constant.
        axis: the weight's axis of output channels.
        element_type: of the activation, an ONNX type.
    """

    name: str
    op_type: str
    output: str
    activation: str
    weight: str
    axis: int
    element_type: int

    @property
    def precision(self) -> str:
        """What the layer computes in when it is left as it is: `fp32`, `fp16` or `bf16`."""
        return _FLOATS[self.element_type]


def find_layers(model: onnx.ModelProto, number_format: Format) -> tuple[list[Layer], list[FallbackNode]]:
    """Return the layers of `model` that engines can run in `number_format`, and those they cannot, with the reason."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type in _FLOATS}
    types = element_types(model)
    layers: list[Layer] = []
    fallbacks: list[FallbackNode] = []
    for node in model.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "MatMul", "Gemm") or types[node.input[0]] not in _FLOATS:
            continue
        name = node.name or node.output[0]
        element_type = types[node.input[0]]
        reason = _obstacle(node, weights, number_format)
        if reason:
            fallbacks.append(
                FallbackNode(name=name, op_type=node.op_type, precision=_FLOATS[element_type], reason=reason)
            )
            continue
        layers.append(
            Layer(name, node.op_type, node.output[0], node.input[0], node.input[1], _channel_axis(node), element_type)
        )
    return layers, fallbacks


def insert_qdq(
    model: onnx.ModelProto, layers: Iterable[Layer], largest: Mapping[str, float], number_format: Format
) -> onnx.ModelProto:
    """Return a copy of `model` in which `layers` compute on values rounded to `number_format`.

    Args:
        model: a graph of opset 19 or later.
        layers: some of what `find_layers` found in it.
        largest: activation to the largest absolute value that is kept; what is beyond saturates.
        number_format: `INT8` or `FP8`.
    """

    def instead(layer: Layer, node: NodeProto, quantized: NodeProto) -> list[NodeProto]:
        return [quantized]

    return _quantized(model, layers, largest, number_format, instead)


def with_quantized_twins(
    model: onnx.ModelProto, layers: Iterable[Layer], largest: Mapping[str, float], number_format: Format
) -> onnx.ModelProto:
    """Return a copy of `model` in which each of `layers` stands twice: as it is, and quantized as `<output>/twin`.

    Both read the same values, which no other quantization has changed. The arguments are those of `insert_qdq`.
    """

    def beside(layer: Layer, node: NodeProto, quantized: NodeProto) -> list[NodeProto]:
        quantized.name, quantized.output[0] = f"{layer.name}/twin", f"{layer.output}/twin"
        return [node, quantized]

    return _quantized(model, layers, largest, number_format, beside)


def _quantized(
    model: onnx.ModelProto,
    layers: Iterable[Layer],
    largest: Mapping[str, float],
    number_format: Format,
    place: Callable[[Layer, NodeProto, NodeProto], list[NodeProto]],
) -> onnx.ModelProto:
    """Return a copy of `model` with what `place` returns of each layer, its node, and that on rounded values."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    chosen = {layer.output: layer for layer in layers}
    writer = _Writer({tensor.name: tensor for tensor in graph.initializer}, number_format)
    nodes: list[NodeProto] = []
    for node in graph.node:
        if (layer := chosen.get(node.output[0])) is None:
            nodes.append(node)
            continue
        nodes.extend([*writer.activation(layer, largest[layer.activation]), writer.weight(layer)])
        quantized = NodeProto()
        quantized.CopyFrom(node)
        quantized.input[0], quantized.input[1] = (added.output[0] for added in nodes[-2:])
        nodes.extend(place(layer, node, quantized))
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in graph.node for name in node.input}
    initializers = [tensor for tensor in graph.initializer if tensor.name in read] + writer.constants
    del graph.initializer[:]
    graph.initializer.extend(initializers)
    return result


class _Writer:
    """Makes the nodes and constants of quantized layers; every scale and every quantized weight once."""

    def __init__(self, initializers: Mapping[str, TensorProto], number_format: Format) -> None:
        self.constants: list[TensorProto] = []
        self._initializers = initializers
        self._format = number_format
        self._written: set[str] = set()

    def activation(self, layer: Layer, largest: float) -> Iterator[NodeProto]:
        """Yield the nodes that round the layer's activation; a second layer on it shares the first one's rounding."""
        source = layer.activation
        parameters = [f"{source}/scale", f"{source}/zero_point"]
        quantized = f"{source}/quantized"
        if quantized not in self._written:
            self._written.add(quantized)
            self._add(parameters[0], self._scales(np.array(largest), layer.element_type))
            self._add(parameters[1], np.zeros((), self._format.dtype))
            yield helper.make_node("QuantizeLinear", [source, *parameters], [quantized], f"{source}/quantize")
        # A DequantizeLinear for each layer: engines look for pairs of it and the layer.
        output = f"{layer.output}/activation"
        yield helper.make_node("DequantizeLinear", [quantized, *parameters], [output], f"{output}/dequantize")

    def weight(self, layer: Layer) -> NodeProto:
        """Return the node that reads the layer's quantized weight."""
        name = f"{layer.weight}/axis_{layer.axis}"
        inputs = [f"{name}/{part}" for part in ("quantized", "scale", "zero_point")]
        if name not in self._written:
            self._written.add(name)
            tensor = self._initializers[layer.weight]
            values = numpy_helper.to_array(tensor).astype(np.float32)
            others = tuple(axis for axis in range(values.ndim) if axis != layer.axis)
            scales = self._scales(np.abs(values).max(axis=others, keepdims=True), tensor.data_type)
            self._add(inputs[0], self._format.quantize(values, scales.astype(np.float32)))
            self._add(inputs[1], scales.ravel())
            self._add(inputs[2], np.zeros(scales.size, self._format.dtype))
        output = f"{layer.output}/weight"
        return helper.make_node("DequantizeLinear", inputs, [output], f"{output}/dequantize", axis=layer.axis)

    def _scales(self, largest: np.ndarray, element_type: int) -> np.ndarray:
        """Return the scales in an ONNX type, so that what is quantized by them is what they dequantize."""
        scales = self._format.scales(largest)
        if element_type == TensorProto.FLOAT16:
            scales = np.maximum(scales, np.float32(_LEAST_FP16_SCALE))
        return scales.astype(helper.tensor_dtype_to_np_dtype(element_type))

    def _add(self, name: str, values: np.ndarray) -> None:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))


def _channel_axis(node: NodeProto) -> int:
    if node.op_type == "Gemm":
        return 0 if _attribute(node, "transB", 0) else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": 1}[node.op_type]


def _obstacle(node: NodeProto, weights: Mapping[str, TensorProto], number_format: Format) -> str:
    """Return why engines have no kernel for this node in `number_format`, or "" if they have."""
    weight = weights.get(node.input[1])
    if weight is None:
        return "multiplies two activations; there is no weight to quantize"
    if node.op_type in ("MatMul", "Gemm"):
        if len(weight.dims) != 2 or _attribute(node, "transA", 0):
            return "not a plain product with a matrix of weights"
        return ""
    if number_format.uniform:
        return ""
    # What NVIDIA's own tool leaves out: there are no FP8 kernels for it, or only slower ones.
    if node.op_type == "ConvTranspose":
        return "transposed convolutions have no FP8 kernels"
    if _attribute(node, "group", 1) > 1:
        return "grouped convolutions have no FP8 kernels"
    if min(weight.dims[:2]) <= _MOST_CHANNELS_WITHOUT_FP8:
        return f"FP8 does not pay for convolutions of {_MOST_CHANNELS_WITHOUT_FP8} channels or fewer"
    if np.prod(weight.dims[2:]) > _LARGEST_FP8_KERNEL:
        return f"kernels of more than {_LARGEST_FP8_KERNEL} pixels have no FP8 kernels"
    return ""


def _attribute(node: NodeProto, name: str, default: int) -> int:
    values = [helper.get_attribute_value(attribute) for attribute in node.attribute if attribute.name == name]
    return int(values[0]) if values else default
