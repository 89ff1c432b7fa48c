"""How many times faster one of two ways is that took turns, and how sure that is."""

from dataclasses import dataclass

import numpy as np

from segkc_deploy.benchmarks.interval import LEVEL, RESAMPLES, SEED, Interval


@dataclass(frozen=True)
class Speed:
    """Times faster than the reference: median over rounds, its interval (None for one round) and the quartiles."""

    median: float
    interval: Interval | None
    quartiles: tuple[float, float]


def speed(reference: np.ndarray, way: np.ndarray) -> Speed:
    """Return how many times faster `way` is than `reference`.

    Each round gives one ratio, of the medians of both ways' runs in it: what slows the machine down for longer than a
    round slows both. The interval is the percentile bootstrap of the median ratio over rounds (Efron and Tibshirani
    1993, section 13.3).

    Args:
        reference: times of a run, float (rounds, runs).
        way: times in the same rounds, of the same shape.
    """
    assert reference.shape == way.shape and reference.size
    ratios = np.median(reference, axis=1) / np.median(way, axis=1)
    low, middle, high = np.percentile(ratios, (25, 50, 75))
    return Speed(float(middle), _interval(ratios), (float(low), float(high)))


def _interval(ratios: np.ndarray) -> Interval | None:
    if len(ratios) < 2:
        return None
    drawn = np.random.default_rng(SEED).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[drawn], axis=1), [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)
