"""The interval of a median: by hand, against the binomial distribution, and how often it holds the true median."""

import math

import numpy as np
import pytest

from segkc_deploy.benchmarks.measure.latency import summarize
from segkc_deploy.benchmarks.measure.median_interval import independent_samples, median_interval


def process(rng: np.random.Generator, count: int, correlation: float) -> np.ndarray:
    """Return an autoregressive process of order one with standard normal values: its median is 0."""
    noise = rng.normal(size=count + 200) * math.sqrt(1 - correlation**2)
    values = np.zeros(count + 200)
    for index in range(1, count + 200):
        values[index] = correlation * values[index - 1] + noise[index]
    return values[200:]


def coverage(count: int, correlation: float, repeats: int = 300) -> float:
    """Return the share of the intervals of skewed times that hold their true median, 1."""
    rng = np.random.default_rng(0)
    found = [median_interval(np.exp(process(rng, count, correlation))) for _ in range(repeats)]
    told = [interval for interval in found if interval is not None]
    assert len(told) > 0.9 * repeats
    return float(np.mean([low <= 1 <= high for low, high in told]))


@pytest.mark.parametrize("count", [30, 200, 1000])
def test_independent_times(count: int) -> None:
    assert 0.93 <= coverage(count, 0.0) <= 0.995


@pytest.mark.parametrize(("count", "correlation", "least"), [(200, 0.5, 0.92), (400, 0.9, 0.88), (1000, 0.9, 0.91)])
def test_times_that_depend_on_the_one_before(count: int, correlation: float, least: float) -> None:
    assert coverage(count, correlation) >= least


def test_without_regard_to_dependence_it_would_be_far_too_narrow() -> None:
    rng = np.random.default_rng(0)
    count, held = 400, 0
    half = 0.98 * math.sqrt(count)
    for _ in range(300):
        ordered = np.sort(process(rng, count, 0.9))
        held += ordered[math.floor(count / 2 - half) - 1] <= 0 <= ordered[math.ceil(count / 2 + half)]
    assert held / 300 < 0.6


def test_ranks_are_those_of_the_binomial_distribution() -> None:
    times = np.random.default_rng(1).permutation(np.arange(1.0, 101.0))
    assert independent_samples(times) == pytest.approx(100, rel=0.3)
    alternating = np.array([value for pair in zip(range(1, 51), range(51, 101), strict=True) for value in pair], float)
    assert independent_samples(alternating) == 100  # never more than there are
    # The largest rank below and the smallest above which 95% lie: of 100, ranks 40 and 61.
    low, high = 40, 61
    inside = sum(math.comb(100, below) for below in range(low, high)) / 2**100
    assert 0.95 <= inside < 0.97
    assert median_interval(alternating) == (low, high)


def test_too_few_or_too_much_alike() -> None:
    assert median_interval([]) is None
    assert median_interval([1.0] * 9) is None
    assert median_interval([1.0] * 20) == (1.0, 1.0)
    drifting = np.linspace(10, 20, 300)  # the machine is still speeding up: no one median
    assert independent_samples(drifting) < 10
    assert median_interval(drifting) is None


def test_it_is_in_the_summary_in_the_order_of_the_samples() -> None:
    times = np.exp(process(np.random.default_rng(2), 500, 0.9))
    summary = summarize(times)
    assert summary.p50_interval == median_interval(times)
    assert summary.p50_interval is not None
    low, high = summary.p50_interval
    shuffled = median_interval(np.random.default_rng(3).permutation(times))
    assert shuffled is not None
    assert low < shuffled[0] < summary.p50 < shuffled[1] < high
