"""Small ONNX graphs with one block of attention or two convolutions, and the same in NumPy at double precision."""

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import numpy_helper

IMAGE = (16, 24, 3)
_TOKENS, _WIDTH, _HEADS, _CLASSES = 24, 8, 2, 5

_ATTENTION = """
<ir_version: 10, opset_import: ["": 23]>
attention (uint8[batch, 16, 24, 3] images) => (float[batch, 5, 4, 6] logits) {
    numbers = Cast <to = 1> (images)
    planes = Transpose <perm = [0, 3, 1, 2]> (numbers)
    pixels = Div (planes, white)
    patches = Conv <kernel_shape = [4, 4], strides = [4, 4]> (pixels, patch)
    columns = Reshape (patches, columns_shape)
    tokens = Transpose <perm = [0, 2, 1]> (columns)
    stream = Add (tokens, position)
    normal = LayerNormalization <axis = -1, epsilon = 1e-6> (stream, gain, shift)
    q_all = MatMul (normal, query)
    q_heads = Reshape (q_all, heads_shape)
    q = Transpose <perm = [0, 2, 1, 3]> (q_heads)
    k_all = MatMul (normal, key)
    k_heads = Reshape (k_all, heads_shape)
    k = Transpose <perm = [0, 2, 1, 3]> (k_heads)
    v_all = MatMul (normal, value)
    v_heads = Reshape (v_all, heads_shape)
    v = Transpose <perm = [0, 2, 1, 3]> (v_heads)
    attended = Attention (q, k, v)
    attended_tokens = Transpose <perm = [0, 2, 1, 3]> (attended)
    merged = Reshape (attended_tokens, tokens_shape)
    projected = MatMul (merged, projection)
    deeper = Add (stream, projected)
    last_normal = LayerNormalization <axis = -1, epsilon = 1e-6> (deeper, gain, shift)
    scores = MatMul (last_normal, classes)
    class_planes = Transpose <perm = [0, 2, 1]> (scores)
    logits = Reshape (class_planes, logits_shape)
}
"""

_CONVOLUTIONS = """
<ir_version: 10, opset_import: ["": 23]>
convolutions (uint8[batch, 16, 24, 3] images) => (float[batch, 5, 16, 24] logits) {
    numbers = Cast <to = 1> (images)
    planes = Transpose <perm = [0, 3, 1, 2]> (numbers)
    pixels = Div (planes, white)
    stem = Conv <kernel_shape = [1, 1]> (pixels, first)
    edges = Relu (stem)
    wide = Conv <kernel_shape = [1, 1]> (edges, second, second_bias)
    rectified = Relu (wide)
    narrow = Conv <kernel_shape = [1, 1]> (rectified, third)
    parts = Relu (narrow)
    logits = Conv <kernel_shape = [1, 1]> (parts, fourth)
}
"""


@dataclass
class SmallGraph:
    """A graph's text and its weights, which a test may change before it asks for the model."""

    text: str
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    def model(self) -> onnx.ModelProto:
        """Return the checked float32 model."""
        model = onnx.parser.parse_model(self.text)
        model.graph.initializer.extend(
            numpy_helper.from_array(values if values.dtype == np.int64 else values.astype(np.float32), name)
            for name, values in self.weights.items()
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def images(count: int, seed: int = 0) -> np.ndarray:
    """Return random images, uint8 (count, 16, 24, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (count, *IMAGE)).astype(np.uint8)


def attention_graph(biased: bool = False) -> SmallGraph:
    """Return one block of self-attention between a convolution of patches and a classifier.

    With a bias that is added to the scores, as networks with relative positions have it, where it is `biased`.
    """
    rng = np.random.default_rng(1)
    weights = {
        "white": np.array(255.0),
        "patch": rng.normal(0, 0.4, (_WIDTH, 3, 4, 4)),
        "position": rng.normal(0, 1, (1, _TOKENS, _WIDTH)),
        "gain": np.ones(_WIDTH),
        "shift": np.zeros(_WIDTH),
        **{name: rng.normal(0, 0.6, (_WIDTH, _WIDTH)) for name in ("query", "key", "value", "projection")},
        "classes": rng.normal(0, 1, (_WIDTH, _CLASSES)),
        "columns_shape": np.array([0, _WIDTH, _TOKENS]),
        "heads_shape": np.array([0, _TOKENS, _HEADS, _WIDTH // _HEADS]),
        "tokens_shape": np.array([0, _TOKENS, _WIDTH]),
        "logits_shape": np.array([0, _CLASSES, 4, 6]),
    }
    if not biased:
        return SmallGraph(_ATTENTION, weights)
    weights["bias"] = rng.normal(0, 2, (_HEADS, _TOKENS, _TOKENS))
    return SmallGraph(_ATTENTION.replace("Attention (q, k, v)", "Attention (q, k, v, bias)"), weights)


def attention_in_float64(weights: dict[str, np.ndarray], batch: np.ndarray) -> np.ndarray:
    """Return the logits of `attention_graph` for images, float64 (N, 5, 4, 6)."""

    def normalized(x: np.ndarray) -> np.ndarray:
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * weights["gain"] + weights[
            "shift"
        ]

    def heads(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(batch), _TOKENS, _HEADS, -1).transpose(0, 2, 1, 3)

    patches = (batch / 255.0).reshape(len(batch), 4, 4, 6, 4, 3)  # row, y, column, x, color
    tokens = np.einsum("nhywxc,dcyx->nhwd", patches, weights["patch"]).reshape(len(batch), _TOKENS, _WIDTH)
    stream = tokens + weights["position"]
    normal = normalized(stream)
    query, key, value = (heads(normal @ weights[name]) for name in ("query", "key", "value"))
    powers = query @ key.transpose(0, 1, 3, 2) / np.sqrt(_WIDTH // _HEADS)
    powers = powers + weights.get("bias", 0.0)
    powers = np.exp(powers - powers.max(-1, keepdims=True))
    attended = (powers / powers.sum(-1, keepdims=True)) @ value
    merged = attended.transpose(0, 2, 1, 3).reshape(len(batch), _TOKENS, _WIDTH)
    deeper = stream + merged @ weights["projection"]
    return (normalized(deeper) @ weights["classes"]).transpose(0, 2, 1).reshape(len(batch), _CLASSES, 4, 6)


def convolution_graph() -> SmallGraph:
    """Return four pointwise convolutions with rectifiers between."""
    rng = np.random.default_rng(2)
    weights = {
        "white": np.array(255.0),
        "first": rng.normal(0, 1, (12, 3, 1, 1)),
        "second": rng.normal(0, 0.3, (12, 12, 1, 1)),
        "second_bias": rng.normal(0, 0.3, 12),
        "third": rng.normal(0, 0.3, (12, 12, 1, 1)),
        "fourth": rng.normal(0, 1, (5, 12, 1, 1)),
    }
    return SmallGraph(_CONVOLUTIONS, weights)


def convolutions_in_float64(weights: dict[str, np.ndarray], batch: np.ndarray) -> np.ndarray:
    """Return the logits of `convolution_graph` for images, float64 (N, 5, 16, 24)."""

    def convolved(x: np.ndarray, name: str) -> np.ndarray:
        return np.einsum("nchw,dc->ndhw", x, weights[name][..., 0, 0])

    x = np.maximum(convolved(batch.transpose(0, 3, 1, 2) / 255.0, "first"), 0)
    x = np.maximum(convolved(x, "second") + weights["second_bias"][:, None, None], 0)
    return convolved(np.maximum(convolved(x, "third"), 0), "fourth")
