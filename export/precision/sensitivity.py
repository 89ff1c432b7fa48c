"""How much each layer costs when it alone is quantized."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from segkc_deploy.export.precision.emulation import emulate
from segkc_deploy.export.precision.qdq import Format, Layer, insert_qdq
from segkc_deploy.progress import track


def changed_pixels(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    largest: Mapping[str, float],
    number_format: Format,
    images: Sequence[np.ndarray],
) -> dict[Layer, float]:
    """Return for each layer the share (0-1) of pixels whose class changes when it alone is quantized.

    Args:
        model: the graph without quantization.
        layers: the layers to look at.
        largest: activation to the largest absolute value that is kept.
        number_format: the format to quantize to.
        images: batches of uint8 (n, H, W, 3); a few images tell layers apart.
    """
    expected = _classes(model, images)
    shares: dict[Layer, float] = {}
    for layer in track(layers, "measuring what each layer costs"):
        got = _classes(insert_qdq(model, [layer], largest, number_format), images)
        shares[layer] = _share(expected, got)
    return shares


def changed_shares(
    model: onnx.ModelProto, candidates: Sequence[onnx.ModelProto], images: Sequence[np.ndarray]
) -> list[float]:
    """Return the share (0-1) of pixels that have another class than in `model`, for each of `candidates`."""
    expected = _classes(model, images)
    return [_share(expected, _classes(candidate, images)) for candidate in candidates]


def _share(expected: Sequence[np.ndarray], got: Sequence[np.ndarray]) -> float:
    return float(np.mean([(a != b).mean() for a, b in zip(expected, got, strict=True)]))


def _classes(model: onnx.ModelProto, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the class of each pixel at the logits' own resolution."""
    run = emulate(model)
    return [run(batch)[0].argmax(axis=1) for batch in images]
