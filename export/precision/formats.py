"""The 16-bit floating-point formats: what they hold, what rounding to them costs, which operators take them."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
from onnx import NodeProto, TensorProto, defs, helper, numpy_helper


@dataclass(frozen=True)
class Format:
    """A 16-bit format.

    Attributes:
        name: as in a manifest, `fp16` or `bf16`.
        type: its element type in ONNX.
        type_name: how ONNX's operator definitions call it.
        dtype: the NumPy type.
        digits: binary digits of a number, the leading one included.
        largest: the largest finite number.
        smallest_normal: below it digits are lost, down to nothing.
    """

    name: str
    type: int
    type_name: str
    dtype: np.dtype[Any]
    digits: int
    largest: float
    smallest_normal: float

    def rounded(self, values: np.ndarray) -> np.ndarray:
        """Return `values` in this format, to the nearest, ties to even; infinite where they are too large."""
        with np.errstate(over="ignore"):
            return values.astype(self.dtype)

    def rounding_error(self, values: np.ndarray) -> float:
        """Return |rounded - values| / |values| in the Euclidean norm; 0 where all values are 0."""
        exact = values.astype(np.float64)
        error = np.linalg.norm(self.rounded(values).astype(np.float64) - exact)
        return float(error / np.linalg.norm(exact)) if error else 0.0

    def stored(self, weights: TensorProto, name: str) -> TensorProto:
        """Return float32 `weights` rounded to this format, as a tensor called `name`."""
        values = self.rounded(numpy_helper.to_array(weights))
        return helper.make_tensor(name, self.type, weights.dims, values.tobytes(), raw=True)

    def takes(self, node: NodeProto, index: int, opset: int) -> bool:
        """Return whether the operator's definition allows this format at the input of that index."""
        formal = _formals(node.op_type, opset)[0]
        return self.type_name in formal[min(index, len(formal) - 1)][1]

    def computes(self, node: NodeProto, opset: int) -> bool:
        """Return whether the operator gives results in this format when its inputs are."""
        inputs, outputs = _formals(node.op_type, opset)
        typed = {parameter for parameter, types in inputs[: len(node.input)] if self.type_name in types}
        return all(parameter in typed for parameter, _ in outputs[: len(node.output)])


@cache
def _formals(op_type: str, opset: int) -> tuple[list[tuple[str, frozenset[str]]], list[tuple[str, frozenset[str]]]]:
    """Return type parameter and allowed types of each input and each output, from the operator's definition."""
    schema = defs.get_schema(op_type, opset)
    allowed = {entry.type_param_str: frozenset(entry.allowed_type_strs) for entry in schema.type_constraints}
    return (
        [(formal.type_str, allowed.get(formal.type_str, frozenset({formal.type_str}))) for formal in schema.inputs],
        [(formal.type_str, allowed.get(formal.type_str, frozenset({formal.type_str}))) for formal in schema.outputs],
    )


def _format(name: str, onnx_type: int, type_name: str, dtype: Any) -> Format:
    limits = ml_dtypes.finfo(dtype)
    return Format(
        name=name,
        type=onnx_type,
        type_name=type_name,
        dtype=np.dtype(dtype),
        digits=int(limits.nmant) + 1,
        largest=float(limits.max),
        smallest_normal=float(limits.smallest_normal),
    )


FORMATS = {
    "fp16": _format("fp16", TensorProto.FLOAT16, "tensor(float16)", np.float16),
    "bf16": _format("bf16", TensorProto.BFLOAT16, "tensor(bfloat16)", ml_dtypes.bfloat16),
}
