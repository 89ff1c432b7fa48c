"""The smallest network that every engine reads, as ONNX, so that an engine can be tried where nothing writes ONNX."""

import base64

import numpy as np

#: The network as `onnx.parser.parse_model` reads it: the class is 1 where the second channel is larger than the first.
TEXT = """<ir_version: 8, opset_import: ["" : 17]>
probe (uint8[1,8,8,3] images) => (uint8[1,8,8] masks) <float[2,3,1,1] weights = {1, 0, 0, 0, 1, 0}> {
    floats = Cast <to: int = 1> (images)
    planes = Transpose <perm: ints = [0, 3, 1, 2]> (floats)
    scores = Conv (planes, weights)
    classes = ArgMax <axis: int = 1, keepdims: int = 0> (scores)
    masks = Cast <to: int = 2> (classes)
}"""

_BYTES = (
    "CAg6zwIKIwoGaW1hZ2VzEgZmbG9hdHMiBENhc3QqCQoCdG8YAaABAjoACjAKBmZsb2F0cxIGcGxhbmVzIglUcmFuc3Bvc2UqEQoE"
    "cGVybUAAQANAAUACoAEHOgAKIQoGcGxhbmVzCgd3ZWlnaHRzEgZzY29yZXMiBENvbnY6AAo5CgZzY29yZXMSB2NsYXNzZXMiBkFy"
    "Z01heCoLCgRheGlzGAGgAQIqDwoIa2VlcGRpbXMYAKABAjoACiMKB2NsYXNzZXMSBW1hc2tzIgRDYXN0KgkKAnRvGAKgAQI6ABIF"
    "cHJvYmUqLQgCCAMIAQgBEAEiGAAAgD8AAAAAAAAAAAAAAAAAAIA/AAAAAEIHd2VpZ2h0c1ogCgZpbWFnZXMSFgoUCAISEAoCCAEK"
    "AggICgIICAoCCANiGwoFbWFza3MSEgoQCAISDAoCCAEKAggICgIICEIECgAQEQ=="
)


def onnx_bytes() -> bytes:
    """Return the network of `TEXT` as an ONNX file."""
    return base64.b64decode(_BYTES)


def example() -> tuple[np.ndarray, np.ndarray]:
    """Return images, uint8 (1, 8, 8, 3), and their masks, uint8 (1, 8, 8)."""
    images = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(1, 8, 8, 3)
    images[:, ::2, :, 0] = 200
    return images, (images[..., 1] > images[..., 0]).astype(np.uint8)
