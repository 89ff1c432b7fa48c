"""How many times faster one contender is than another, and how certain that is."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from segkc_deploy.benchmarks.measure.miou_interval import LEVEL, RESAMPLES, SEED, Interval

#: The widest interval of a median, from the least to the largest of n values, misses what is true in 2 / 2^n of all
#: cases: with fewer values it is no interval of 95%.
_LEAST_ROUNDS = 6


@dataclass(frozen=True)
class RelativeSpeed:
    """Times faster than the reference: median over rounds, its interval (None for fewer than six) and the quartiles."""

    median: float
    interval: Interval | None
    quartiles: tuple[float, float]


def relative_speed(reference: np.ndarray, contender: np.ndarray) -> RelativeSpeed:
    """Return how many times faster `contender` is than `reference`.

    Each round gives one ratio, of the medians of both contenders' runs: whatever slows the machine down for longer than
    a round slows both. The interval is the percentile bootstrap of the median ratio over rounds (Efron and Tibshirani
    1993, section 13.3).

    Args:
        reference: times of a run, float (rounds, runs).
        contender: times in the same rounds, of the same shape.
    """
    assert reference.shape == contender.shape and reference.size
    ratios = np.median(reference, axis=1) / np.median(contender, axis=1)
    low, middle, high = np.percentile(ratios, (25, 50, 75))
    return RelativeSpeed(float(middle), _interval(ratios), (float(low), float(high)))


def _interval(ratios: np.ndarray) -> Interval | None:
    if len(ratios) < _LEAST_ROUNDS:
        return None
    found = stats.bootstrap(
        (ratios,), np.median, n_resamples=RESAMPLES, confidence_level=LEVEL, method="percentile", rng=SEED
    ).confidence_interval
    return float(found.low), float(found.high)
