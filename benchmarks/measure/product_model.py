"""ONNX files of one operator, written byte by byte: a device has ONNX Runtime, but not the onnx package.

The format is Protocol Buffers (onnx.proto3): each field a key of its number and wire type, then a varint or a length
and as many bytes.
"""

from typing import Literal

import numpy as np

ElementType = Literal["fp32", "fp16", "uint8", "int8", "int32"]

#: Numbers of TensorProto.DataType.
_ELEMENT = {"fp32": 1, "uint8": 2, "int8": 3, "int32": 6, "fp16": 10}
NUMPY_TYPES = {"fp32": np.float32, "uint8": np.uint8, "int8": np.int8, "int32": np.int32, "fp16": np.float16}

_IR_VERSION = 8
_OPSET = 17


def product_model(left: ElementType, right: ElementType) -> bytes:
    """Return a model of the product `c` of the matrices `a` and `b`; of integers it is summed up in int32."""
    if left in ("uint8", "int8"):
        return _model("MatMulInteger", {"a": left, "b": right}, ("c", "int32"))
    assert left == right
    return _model("MatMul", {"a": left, "b": right}, ("c", left))


def copy_model() -> bytes:
    """Return a model whose output `c` is a copy of its input, the float32 matrix `a`."""
    return _model("Identity", {"a": "fp32"}, ("c", "fp32"))


def _model(op_type: str, inputs: dict[str, ElementType], output: tuple[str, ElementType]) -> bytes:
    node = b"".join(_bytes(1, name.encode()) for name in inputs)
    node += _bytes(2, output[0].encode()) + _bytes(4, op_type.encode())
    graph = _bytes(1, node) + _bytes(2, op_type.encode())
    graph += b"".join(_bytes(11, _matrix(name, element)) for name, element in inputs.items())
    graph += _bytes(12, _matrix(*output))
    return _number(1, _IR_VERSION) + _bytes(7, graph) + _bytes(8, _number(2, _OPSET))


def _matrix(name: str, element: ElementType) -> bytes:
    """Return a ValueInfoProto: a matrix of free size."""
    shape = b"".join(_bytes(1, _bytes(2, f"{name}_{axis}".encode())) for axis in ("rows", "columns"))
    tensor = _number(1, _ELEMENT[element]) + _bytes(2, shape)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, tensor))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
