"""How far a mIoU could be off by the choice of validation images: bootstrap intervals over images.

Images are drawn with replacement, as many as there are, and the mIoU of the drawn ones is computed from their own
confusion counts; the interval lies between percentiles of many such draws (Efron and Tibshirani 1993, section 13.3).
"""

from dataclasses import dataclass

import numpy as np

from segkc_deploy.metrics import ImageCounts, iou_percent, mean_iou

#: How often images are drawn, from which seed, and the share of the draws inside an interval.
RESAMPLES = 2000
SEED = 0
LEVEL = 0.95

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
    draws = _draws(len(blocks.union))
    return None if draws is None else _percentiles(_mious(draws, blocks))


def miou_difference(counts: ImageCounts, other: ImageCounts, block: int = 1) -> Difference:
    """Return by how much the mIoU of `counts` is above that of `other` on the same images; see `miou_interval`."""
    assert counts.union.shape == other.union.shape
    ours, theirs = _blocks(counts, block), _blocks(other, block)
    once = np.ones((1, len(ours.union)))
    difference = float(_mious(once, ours)[0] - _mious(once, theirs)[0])
    draws = _draws(len(ours.union))
    if draws is None:
        return Difference(difference, None)
    return Difference(difference, _percentiles(_mious(draws, ours) - _mious(draws, theirs)))


def _blocks(counts: ImageCounts, block: int) -> ImageCounts:
    """Return the counts of every `block` successive images together; the last ones may be fewer."""
    assert block >= 1
    starts = np.arange(0, len(counts.union), block)
    return ImageCounts(np.add.reduceat(counts.intersection, starts), np.add.reduceat(counts.union, starts))


def _draws(units: int) -> np.ndarray | None:
    """Return how often each draw holds each image or block, float64 (RESAMPLES, units)."""
    if units < 2:
        return None
    drawn = np.random.default_rng(SEED).integers(0, units, (RESAMPLES, units))
    drawn += units * np.arange(RESAMPLES)[:, None]  # so that all draws are counted at once
    return np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float64)


def _mious(draws: np.ndarray, counts: ImageCounts) -> np.ndarray:
    """Return the mIoU (percent) of each draw; NaN where a draw has no labeled pixel."""
    # Whole numbers far below 2^53, so the products are exact and equal masks give equal figures.
    return mean_iou(iou_percent(draws @ counts.intersection, draws @ counts.union))


def _percentiles(values: np.ndarray) -> Interval:
    low, high = np.nanpercentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)
