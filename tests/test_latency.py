"""The latency harness against a runner whose times are known, and its statistics against NumPy and by hand."""

import time
from collections.abc import Sequence

import numpy as np
import pytest

from segkc_deploy.benchmarks.latency import Budget, measure_batch, measure_latency, summarize, warm_up

IMAGES = [np.zeros((4, 6, 3), np.uint8), np.zeros((5, 7, 3), np.uint8)]


class KnownTimes:
    """A predictor whose inference lasts what it is told to; it spins, since sleeping is less exact."""

    def __init__(self, infer_ms: Sequence[float], per_image: bool = False, around_ms: float = 0.0) -> None:
        self.infer_ms, self.per_image, self.around_ms = infer_ms, per_image, around_ms
        self.runs = 0
        self.sizes: list[tuple[int, int]] = []

    def preprocess(self, images: Sequence[np.ndarray]) -> np.ndarray:
        spin(self.around_ms)
        return np.zeros((len(images), 2, 2, 3), np.uint8)

    def infer(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        spin(self.infer_ms[self.runs % len(self.infer_ms)] * (len(batch) if self.per_image else 1))
        self.runs += 1
        return {"masks": batch[..., 0]}

    def postprocess(self, outputs: dict[str, np.ndarray], sizes: Sequence[tuple[int, int]]) -> None:
        spin(self.around_ms)
        self.sizes += sizes


def spin(milliseconds: float) -> None:
    end = time.perf_counter_ns() + milliseconds * 1e6
    while time.perf_counter_ns() < end:
        pass


def test_statistics_are_those_of_numpy() -> None:
    times = np.random.default_rng(3).gamma(2.0, 3.0, 997)
    summary = summarize(times)
    assert [summary.p50, summary.p90, summary.p99] == pytest.approx(np.percentile(times, [50, 90, 99]))
    assert summary.max == times.max()
    assert summary.mean == pytest.approx(times.mean())
    assert summary.std == pytest.approx(times.std(ddof=1))
    assert summary.cv == pytest.approx(times.std(ddof=1) / times.mean())
    assert summary.samples == 997


def test_statistics_by_hand() -> None:
    summary = summarize([4.0, 1.0, 3.0, 2.0])
    # Linear interpolation between ranks: position (n - 1) * q = 1.5, 2.7, 2.97.
    assert [summary.p50, summary.p90, summary.p99, summary.max] == pytest.approx([2.5, 3.7, 3.97, 4.0])


def test_one_sample_has_no_spread() -> None:
    summary = summarize([2.0])
    assert (summary.p50, summary.p99, summary.std, summary.cv, summary.samples) == (2.0, 2.0, 0.0, 0.0, 1)


def test_percentiles_of_a_known_distribution() -> None:
    # 90% of the runs last 2 ms, 10% last 6 ms; evenly mixed, so 200 runs hold exactly 20 slow ones.
    predictor = KnownTimes([2.0] * 9 + [6.0], around_ms=0.5)
    latency = measure_latency(predictor, IMAGES, Budget(seconds=0.5, samples=200))
    assert latency.infer.p50 == pytest.approx(2.0, rel=0.05)
    assert latency.infer.p99 == pytest.approx(6.0, rel=0.15)
    assert latency.total.p50 == pytest.approx(3.0, rel=0.05)
    assert latency.preprocess.p50 == pytest.approx(0.5, rel=0.1)
    assert latency.postprocess.p50 == pytest.approx(0.5, rel=0.1)
    assert latency.total.samples == len(latency.times_ms) == 200
    assert np.sum(np.asarray(latency.times_ms) > 5.0) >= 20


def test_overhead_is_below_one_percent_of_five_milliseconds() -> None:
    def cpu_seconds(runs: int) -> float:
        began = time.process_time()
        measure_batch(KnownTimes([0.0]), IMAGES, 1, Budget(samples=runs))
        return time.process_time() - began

    # The difference leaves out what happens once; CPU time leaves out other processes.
    overhead_ms = 1e3 * (cpu_seconds(12_000) - cpu_seconds(2_000)) / 10_000
    assert overhead_ms < 0.01 * 5
    point = measure_batch(KnownTimes([5.0]), IMAGES, 1, Budget(samples=40))
    assert point.total is not None
    assert 5.0 <= point.total.p50 < 5.05


def test_throughput_counts_images() -> None:
    predictor = KnownTimes([1.0], per_image=True)
    point = measure_batch(predictor, IMAGES, 4, Budget(samples=30))
    assert point.images_per_s == pytest.approx(1000.0, rel=0.1)
    assert point.infer_images_per_s == pytest.approx(1000.0, rel=0.1)
    assert point.total is not None
    assert point.total.p50 == pytest.approx(4.0, rel=0.05)


def test_images_are_cycled_with_their_own_sizes() -> None:
    predictor = KnownTimes([0.1])
    measure_latency(predictor, IMAGES, Budget(samples=3))
    assert predictor.sizes[:4] == [(4, 6), (5, 7), (4, 6), (5, 7)]


def test_time_budget_takes_at_least_twenty_runs() -> None:
    assert not Budget(seconds=1.0).spent(runs=19, seconds=50.0)
    assert Budget(seconds=1.0).spent(runs=20, seconds=1.0)
    assert not Budget(seconds=1.0).spent(runs=1000, seconds=0.9)
    assert Budget(seconds=1.0, samples=5).spent(runs=5, seconds=0.0)


def test_warm_up_goes_on_until_stable() -> None:
    falling = iter([8.0] * 10 + [4.0] * 10 + [2.0] * 10 + [2.0] * 1000)
    warmed = warm_up(lambda: spin(next(falling)), at_most_s=30)
    assert warmed.stable
    assert warmed.runs == 40


def test_warm_up_gives_up_when_time_is_up() -> None:
    longer = [0.5]

    def never_settles() -> None:
        longer[0] *= 1.05
        spin(longer[0])

    warmed = warm_up(never_settles, at_most_s=0.2)
    assert not warmed.stable
    assert 0.2 <= warmed.seconds < 2.0
