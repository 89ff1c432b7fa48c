"""Messages of the Open Inference Protocol (KServe v2) over HTTP, as Triton and `segkc-deploy serve` speak it.

A message is a JSON object, followed by the bytes of the tensors that are sent in binary; the header
`Inference-Header-Content-Length` tells where the JSON ends. Other tensors are lists in the JSON.

https://github.com/kserve/open-inference-protocol, and Triton's extension for binary tensor data.
"""

import math
from itertools import chain
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, Field, NonNegativeInt, ValidationError

from segkc_deploy.errors import DataError

_Message = TypeVar("_Message", bound=BaseModel)

HEADER_LENGTH = "Inference-Header-Content-Length"
_MOST_DIGITS = 20
_MOST_AXES = 8

Datatype = Literal["UINT8", "UINT16", "FP32"]

#: Tensors are little-endian on the wire.
NUMPY_TYPES: dict[Datatype, np.dtype[Any]] = {
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "FP32": np.dtype("<f4"),
}
DATATYPES: dict[str, Datatype] = {"uint8": "UINT8", "uint16": "UINT16", "float32": "FP32"}


class Tensor(BaseModel):
    """A tensor of a message; `parameters` has `binary_data_size` where its bytes follow the JSON."""

    name: str
    shape: list[NonNegativeInt] = Field(max_length=_MOST_AXES)
    datatype: Datatype
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class RequestedOutput(BaseModel):
    """An output that a client wants; `parameters` may hold `binary_data`."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(BaseModel):
    """A request; `parameters` may hold `binary_data_output`, and without `outputs` all of them are wanted."""

    id: str | None = None
    parameters: dict[str, Any] = {}
    inputs: list[Tensor] = Field(min_length=1)
    outputs: list[RequestedOutput] = []


class InferResponse(BaseModel):
    """An answer."""

    model_name: str
    model_version: str = "1"
    id: str | None = None
    outputs: list[Tensor]


def tensor_of(name: str, values: np.ndarray, binary: bool) -> tuple[Tensor, bytes]:
    """Return a tensor for a message, and the bytes that follow the JSON for it."""
    datatype = DATATYPES[values.dtype.name]
    tensor = Tensor(name=name, shape=list(values.shape), datatype=datatype)
    if not binary:
        tensor.data = values.ravel().tolist()
        return tensor, b""
    content = np.ascontiguousarray(values, NUMPY_TYPES[datatype]).tobytes()
    tensor.parameters = {"binary_data_size": len(content)}
    return tensor, content


def encode(message: BaseModel, contents: list[bytes]) -> tuple[bytes, dict[str, str]]:
    """Return the body of a message and its HTTP headers.

    Args:
        message: the JSON.
        contents: what follows it, in the order of the tensors.
    """
    header = message.model_dump_json(exclude_none=True).encode()
    if not any(contents):
        return header, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(header))}
    return b"".join([header, *contents]), headers


def decode_request(body: bytes, json_length: str | None) -> tuple[InferRequest, dict[str, np.ndarray]]:
    """Return a request and its inputs by name; `json_length` is the header `Inference-Header-Content-Length`.

    Raises:
        DataError: the body is no such message.
    """
    request, rest = _message(InferRequest, body, json_length, "request")
    return request, _arrays(request.inputs, rest)


def decode_response(body: bytes, json_length: str | None) -> dict[str, np.ndarray]:
    """Return the outputs of an answer by name; see `decode_request`.

    Raises:
        DataError: the body is no such message.
    """
    response, rest = _message(InferResponse, body, json_length, "answer")
    return _arrays(response.outputs, rest)


def _message(kind: type[_Message], body: bytes, json_length: str | None, name: str) -> tuple[_Message, memoryview]:
    """Return the JSON of a body as a message, and the bytes that follow it."""
    header, rest = _split(body, json_length)
    try:
        return kind.model_validate_json(header), rest
    except ValidationError as error:
        raise DataError(f"no inference {name}: {_first(error)}") from None


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'JSON'}: {first['msg']}"


def _split(body: bytes, length: str | None) -> tuple[bytes, memoryview]:
    """Return the JSON and what follows it."""
    if length is None:
        return body, memoryview(b"")
    # Python refuses to read a number of thousands of digits.
    if not length.isdecimal() or len(length) > _MOST_DIGITS or int(length) > len(body):
        raise DataError(f"the header {HEADER_LENGTH} says {length[:40]!r}, and the body has {len(body)} bytes")
    return body[: int(length)], memoryview(body)[int(length) :]


def _arrays(tensors: list[Tensor], rest: memoryview) -> dict[str, np.ndarray]:
    arrays = {}
    for tensor in tensors:
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            arrays[tensor.name] = _from_json(tensor)
            continue
        dtype = NUMPY_TYPES[tensor.datatype]
        if type(size) is not int or size != math.prod(tensor.shape) * dtype.itemsize or size > len(rest):
            raise DataError(f"tensor {tensor.name}: {size} bytes of {len(rest)} are not {_kind(tensor)}")
        arrays[tensor.name] = _shaped(np.frombuffer(rest[:size], dtype), tensor)
        rest = rest[size:]
    if len(rest):
        raise DataError(f"the body holds {len(rest)} bytes more than its tensors")
    return arrays


def _from_json(tensor: Tensor) -> np.ndarray:
    """Return the values of a tensor in JSON: a flat or nested list in row-major order."""
    dtype = NUMPY_TYPES[tensor.datatype]
    wrong = DataError(f"tensor {tensor.name}: its data is not {_kind(tensor)}")
    # Checked before NumPy sees them: it would give every text of a list the room of the longest one.
    numbers = _numbers(tensor.data or [])
    if numbers is None or len(numbers) != math.prod(tensor.shape):
        raise wrong
    values = np.array(numbers)
    if values.dtype.kind not in ("iuf" if dtype.kind == "f" else "iu"):
        raise wrong
    if dtype.kind == "u" and values.size and not 0 <= values.min() <= values.max() <= np.iinfo(dtype).max:
        raise wrong
    return _shaped(values.astype(dtype), tensor)


def _numbers(values: list[Any]) -> list[int | float] | None:
    """Return the numbers of nested lists, or None where these are uneven or hold anything else."""
    for _ in range(_MOST_AXES):
        kinds = set(map(type, values))
        if kinds <= {int, float}:
            return values
        if kinds != {list} or len(set(map(len, values))) > 1:
            return None
        values = list(chain.from_iterable(values))
    return None


def _shaped(values: np.ndarray, tensor: Tensor) -> np.ndarray:
    try:
        return values.reshape(tensor.shape)
    except ValueError:  # nothing, in sides that are too long for an array
        raise DataError(f"tensor {tensor.name}: {_kind(tensor)} is no shape of an array") from None


def _kind(tensor: Tensor) -> str:
    return f"{tensor.datatype} {tensor.shape}"
