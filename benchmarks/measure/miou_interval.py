"""How far a mIoU could be off by the choice of validation images: bootstrap intervals over images.

Images are drawn with replacement, as many as there are, and the mIoU of the drawn ones is computed from their own
confusion counts; the interval lies between percentiles of many such draws (Efron and Tibshirani 1993, section 13.3).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from segkc_deploy.metrics import ImageCounts, iou_percent, mean_iou

#: How often images are drawn, from which seed, and the share of the draws inside an interval.
RESAMPLES = 2000
SEED = 0
LEVEL = 0.95
#: Images in the draws that are counted at once: 1 MiB for each array of them.
_DRAWN_AT_ONCE = 1 << 17

#: Its lower and its upper end in points of mIoU.
Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """The mIoU of one network less that of another, in points, and its interval; both saw the same draws of images."""

    miou: float
    interval: Interval | None


def miou_interval(counts: ImageCounts, block: int = 1) -> Interval | None:
    """Return the 95% interval of the mIoU (percent), or None for fewer than two blocks of images.

    Args:
        counts: the network's counts, images in the order of the data.
        block: how many successive images are drawn together. Frames of one video are alike, so drawn one by one they
            give too narrow an interval; draw as many together as are alike.
    """
    blocks = _blocks(counts, block)
    if len(blocks.union) < 2:
        return None
    return _percentiles(np.concatenate([_mious(draws, blocks) for draws in _draws(len(blocks.union))]))


def miou_difference(counts: ImageCounts, other: ImageCounts, block: int = 1) -> Difference:
    """Return by how much the mIoU of `counts` is above that of `other` on the same images; see `miou_interval`."""
    assert counts.union.shape == other.union.shape
    ours, theirs = _blocks(counts, block), _blocks(other, block)
    once = np.ones((1, len(ours.union)))
    difference = float(_mious(once, ours)[0] - _mious(once, theirs)[0])
    if len(ours.union) < 2:
        return Difference(difference, None)
    differences = [_mious(draws, ours) - _mious(draws, theirs) for draws in _draws(len(ours.union))]
    return Difference(difference, _percentiles(np.concatenate(differences)))


def _blocks(counts: ImageCounts, block: int) -> ImageCounts:
    """Return the counts of every `block` successive images together; the last ones may be fewer."""
    assert block >= 1
    starts = np.arange(0, len(counts.union), block)
    return ImageCounts(np.add.reduceat(counts.intersection, starts), np.add.reduceat(counts.union, starts))


def _draws(units: int) -> Iterator[np.ndarray]:
    """Yield how often each of the draws holds each image or block, float64 (some draws, units).

    Some at a time: all draws of 5,000 images are 80 MB, which would show in the memory of the network that is measured.
    """
    rng = np.random.default_rng(SEED)
    at_once = max(_DRAWN_AT_ONCE // units, 1)
    for first in range(0, RESAMPLES, at_once):
        drawn = rng.integers(0, units, (min(at_once, RESAMPLES - first), units))
        drawn += units * np.arange(len(drawn))[:, None]  # so that these draws are counted at once
        yield np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float64)


def _mious(draws: np.ndarray, counts: ImageCounts) -> np.ndarray:
    """Return the mIoU (percent) of each draw; NaN where a draw has no labeled pixel."""
    # Whole numbers far below 2^53, so the products are exact and equal masks give equal figures.
    return mean_iou(iou_percent(draws @ counts.intersection, draws @ counts.union))


def _percentiles(values: np.ndarray) -> Interval:
    low, high = np.nanpercentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)
