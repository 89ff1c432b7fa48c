"""ONNX models of a matrix product and of a copy, for ONNX Runtime. Needs the package `onnx`."""

from typing import Literal

from onnx import TensorProto, helper

ElementType = Literal["fp32", "fp16", "uint8", "int8", "int32"]

_ONNX_TYPES = {
    "fp32": TensorProto.FLOAT,
    "fp16": TensorProto.FLOAT16,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "int32": TensorProto.INT32,
}


def matmul_model(left: ElementType, right: ElementType) -> bytes:
    """Return a model of the product `c` of the matrices `a` and `b`; integers are accumulated in int32."""
    if left in ("uint8", "int8"):
        return _model("MatMulInteger", {"a": left, "b": right}, "int32")
    assert left == right
    return _model("MatMul", {"a": left, "b": right}, left)


def copy_model() -> bytes:
    """Return a model whose output `c` is a copy of its input, the float32 matrix `a`."""
    return _model("Identity", {"a": "fp32"}, "fp32")


def _model(op_type: str, inputs: dict[str, ElementType], output: ElementType) -> bytes:
    node = helper.make_node(op_type, list(inputs), ["c"])
    given = [helper.make_tensor_value_info(name, _ONNX_TYPES[kind], [None, None]) for name, kind in inputs.items()]
    made = helper.make_tensor_value_info("c", _ONNX_TYPES[output], [None, None])
    graph = helper.make_graph([node], op_type, given, [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
