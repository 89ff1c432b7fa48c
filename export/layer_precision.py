"""The precision that the layers of an ONNX graph really have, read from the types of what they compute with."""

from collections import Counter, defaultdict

import onnx
from onnx import NodeProto, TensorProto

from segkc_deploy.manifest import LayerPrecision

_SHAPES = frozenset({"Flatten", "Reshape", "Shape", "Size", "Squeeze", "Transpose", "Unsqueeze"})
_PICKS = frozenset({"DepthToSpace", "Gather", "GatherElements", "GatherND", "Slice", "SpaceToDepth", "Split"})
_FILLS = frozenset({"Concat", "Constant", "ConstantOfShape", "Expand", "Identity", "Pad", "Range", "Tile"})
_CONVERSIONS = frozenset({"Cast", "CastLike", "DequantizeLinear", "QuantizeLinear"})
#: Operators that compute nothing: they move, pick, describe or convert what is there, and are left out of the count.
MOVES = _SHAPES | _PICKS | _FILLS | _CONVERSIONS

#: Operators whose precision is that of their quantized operands.
_QUANTIZED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

_NAMES: dict[int, str] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.DOUBLE: "fp64",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "int8",
    TensorProto.FLOAT8E4M3FN: "fp8",
    TensorProto.FLOAT8E5M2: "fp8",
}
_FLOATING = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})


def layer_precision_of(model: onnx.ModelProto) -> LayerPrecision:
    """Count the operators of `model` that compute with floating-point numbers, by precision.

    A layer has the precision of its first floating-point operand; a convolution or product of which data and weights
    both come out of DequantizeLinear has that of the quantized numbers: `int8` or `fp8`. What only moves or converts
    data is left out (`MOVES`), and so is arithmetic on integers, such as shapes.

    Args:
        model: any graph that passes type inference.
    """
    types = element_types(model)
    dequantized = {
        node.output[0]: types[node.input[0]] for node in model.graph.node if node.op_type == "DequantizeLinear"
    }
    layers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for node in model.graph.node:
        if node.op_type not in MOVES and (precision := _precision(node, types, dequantized)):
            layers[precision][node.op_type] += 1
    return LayerPrecision(
        source="graph",
        layers={precision: dict(sorted(counts.items())) for precision, counts in sorted(layers.items())},
    )


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the element type of every tensor of `model`, by name, after strict type inference."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    return {value.name: value.type.tensor_type.elem_type for value in values} | {
        weights.name: weights.data_type for weights in graph.initializer
    }


def _precision(node: NodeProto, types: dict[str, int], dequantized: dict[str, int]) -> str | None:
    operands = [name for name in node.input if name and types[name] in _FLOATING]
    if not operands:
        return None
    if node.op_type in _QUANTIZED and all(name in dequantized for name in operands[:2]):
        return _NAMES[dequantized[operands[0]]]
    return _NAMES[types[operands[0]]]
