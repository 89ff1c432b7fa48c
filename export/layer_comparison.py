"""Find the first layer at which a converted graph diverges from the FP32 graph that it was made from."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx

from segkc_deploy import atomic
from segkc_deploy.export.precision.emulation import emulate

#: Relative error above which a layer counts as diverged; rounding alone stays well below it.
DIVERGED = 0.1

#: Tensors compared in one pass: those of a large network do not fit into memory at once.
_AT_ONCE = 8

_LAYERS = frozenset(
    {"Conv", "ConvTranspose", "MatMul", "Gemm", "Attention", "LayerNormalization", "Softmax", "Gelu", "Relu", "Resize"}
)


@dataclass(frozen=True)
class LayerDifference:
    """A layer's result in both graphs on one image.

    `relative_error` is the root mean square of the difference over that of the reference, and None where the result of
    either is not finite; `largest` is the largest magnitude in the reference, and None where that is not finite.
    """

    name: str
    op_type: str
    relative_error: float | None
    largest: float | None

    @property
    def diverged(self) -> bool:
        return self.relative_error is None or self.relative_error > DIVERGED


def compare_layers(reference: onnx.ModelProto, candidate: onnx.ModelProto, image: np.ndarray) -> list[LayerDifference]:
    """Return the difference of every layer that has the same name in both graphs, in the order of computation.

    Args:
        reference: the FP32 graph.
        candidate: the graph made of it.
        image: uint8 (1, H, W, 3).
    """
    known = {name for node in candidate.graph.node for name in node.output}
    layers = [
        (node.output[0], node.op_type)
        for node in reference.graph.node
        if node.op_type in _LAYERS and node.output[0] in known
    ]
    return [difference for part in _chunks(layers) for difference in _compare(reference, candidate, part, image)]


def first_divergence(differences: Sequence[LayerDifference]) -> str:
    """Return a sentence that names the first layer that diverges; `differences` must not be empty."""
    for difference in differences:
        if difference.diverged:
            error = difference.relative_error
            how = "not finite" if error is None else f"relative error {error:.2g}"
            return f"the first layer that diverges is {difference.name} ({difference.op_type}, {how})"
    worst = max(differences, key=lambda difference: difference.relative_error or 0.0)
    return (
        f"every layer of its graph is within {DIVERGED:.0%} of the FP32 one"
        f" (largest error at {worst.name}, {worst.op_type}: {worst.relative_error:.2g})"
    )


def write_differences(path: Path, differences: Sequence[LayerDifference]) -> None:
    """Write the differences as JSON, atomically."""
    rows = [asdict(difference) | {"diverged": difference.diverged} for difference in differences]
    atomic.write_text(path, json.dumps(rows, indent=1, allow_nan=False) + "\n")


def _chunks(layers: Sequence[tuple[str, str]]) -> Iterator[Sequence[tuple[str, str]]]:
    for start in range(0, len(layers), _AT_ONCE):
        yield layers[start : start + _AT_ONCE]


def _compare(
    reference: onnx.ModelProto, candidate: onnx.ModelProto, layers: Sequence[tuple[str, str]], image: np.ndarray
) -> Iterator[LayerDifference]:
    names = [name for name, _ in layers]
    for (name, op_type), expected, got in zip(
        layers, emulate(reference, names)(image), emulate(candidate, names)(image), strict=True
    ):
        wide, other = expected.astype(np.float64), got.astype(np.float64)
        known = bool(np.isfinite(wide).all())
        yield LayerDifference(
            name=name,
            op_type=op_type,
            relative_error=_relative_error(wide, other) if known and np.isfinite(other).all() else None,
            largest=float(np.abs(wide).max()) if known else None,
        )


def _relative_error(expected: np.ndarray, got: np.ndarray) -> float:
    scale = math.sqrt(np.mean(expected**2))
    return math.sqrt(np.mean((got - expected) ** 2)) / max(scale, 1e-12)
