"""What values activations take on real images, and where to cut them off.

One histogram of absolute values for each tensor, filled image by image: memory holds the activations of one image,
however many there are, and one pass over the images serves all methods.

ONNX Runtime's calibrators (`onnxruntime.quantization.calibrate`, 1.31) are not used: they keep the activations of all
images that they are given until the histograms are made, and each method is a calibrator with a pass of its own.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import onnx

from segkc_deploy.errors import VerificationError
from segkc_deploy.export.precision.emulation import emulate
from segkc_deploy.progress import track

_BINS = 4096

#: Bins of a smaller range would have a width whose inverse is beyond FP32.
_SMALLEST_RANGE = 1e-30

#: Magnitudes that a signed 8-bit integer tells apart.
_LEVELS = 128

#: How many bins further the next cut is that the entropy method looks at.
_ENTROPY_STRIDE = 8


class Histogram:
    """Counts absolute values in equal bins from 0 up; when a value is beyond, pairs of bins become one.

    `largest` is the largest absolute value seen, exactly.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(_BINS, dtype=np.int64)
        self.largest = 0.0
        self._range = 0.0

    @property
    def width(self) -> float:
        """The width of a bin."""
        return self._range / _BINS

    def add(self, values: np.ndarray) -> None:
        """Count `values`, finite numbers in an array of any shape."""
        magnitudes = np.abs(values, dtype=np.float32).ravel()
        top = float(magnitudes.max())
        self.largest = max(self.largest, top)
        if top:
            self._range = self._range or max(top, _SMALLEST_RANGE)
        while self._range < top:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(axis=1), np.zeros(_BINS // 2, np.int64)])
            self._range *= 2
        if self._range == 0:  # nothing but zeros so far
            self.counts[0] += magnitudes.size
            return
        bins = (magnitudes * np.float32(_BINS / self._range)).astype(np.intp)
        self.counts += np.bincount(np.minimum(bins, _BINS - 1), minlength=_BINS)


def largest(histogram: Histogram) -> float:
    """Cut nothing off."""
    return histogram.largest


def percentile(histogram: Histogram, percent: float) -> float:
    """Return the smallest bin edge that `percent` of the values do not exceed."""
    reached = np.searchsorted(np.cumsum(histogram.counts), percent / 100 * histogram.counts.sum())
    return min((float(reached) + 1) * histogram.width, histogram.largest)


def entropy(histogram: Histogram) -> float:
    """Return the cut after which 128 equal levels tell the most about the values.

    The Kullback-Leibler divergence between the histogram, with everything beyond the cut counted in the last bin, and
    the same histogram after rounding to 128 levels is smallest there (Migacz, "8-bit inference with TensorRT", 2017).
    """
    counts = histogram.counts.astype(np.float64)
    # Zeros are exact at every scale; behind a ReLU they would outweigh all else.
    counts[0] = counts[1]
    used = int(np.flatnonzero(counts)[-1]) + 1 if counts.any() else 0
    cuts = range(used, _LEVELS - 1, -_ENTROPY_STRIDE)
    if not cuts:
        return histogram.largest
    best = min(cuts, key=lambda cut: _divergence(counts, cut))
    return min(best * histogram.width, histogram.largest)


def _divergence(counts: np.ndarray, cut: int) -> float:
    inside = counts[:cut]
    expected = inside.copy()
    expected[-1] += counts[cut:].sum()
    level = np.arange(cut) * _LEVELS // cut
    filled = inside > 0
    each = np.bincount(level, inside, _LEVELS) / np.maximum(np.bincount(level, filled, _LEVELS), 1)
    rounded = np.where(filled, each[level], 0)
    seen = expected > 0
    if not rounded[seen].all():
        return float("inf")
    p, q = expected[seen] / expected.sum(), rounded[seen] / rounded.sum()
    return float((p * np.log(p / q)).sum())


#: Ways to choose the largest value that is kept, by name, in the order in which they win ties.
METHODS: Mapping[str, Callable[[Histogram], float]] = {
    "max": largest,
    "percentile-99.999": partial(percentile, percent=99.999),
    "percentile-99.99": partial(percentile, percent=99.99),
    "entropy": entropy,
}


def collect(model: onnx.ModelProto, tensors: Iterable[str], batches: Sequence[np.ndarray]) -> dict[str, Histogram]:
    """Return a histogram of each tensor over all images of `batches`, uint8 (n, H, W, 3).

    Raises:
        VerificationError: a tensor is not finite on one of the images.
    """
    names = sorted(set(tensors))
    run = emulate(model, names)
    histograms = {name: Histogram() for name in names}
    images = [batch[index : index + 1] for batch in batches for index in range(len(batch))]
    for image in track(images, "calibrating"):
        for name, values in zip(names, run(image), strict=True):
            if not np.isfinite(values).all():
                raise VerificationError(f"the network's tensor {name} is not finite on a calibration image")
            histograms[name].add(values)
    return histograms
