"""The latency harness against a runner whose times are known, and its statistics against NumPy and by hand."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from segkc_deploy.benchmarks.latency import Budget, measure_batch, measure_latency, summarize, warm_up

IMAGES = [np.zeros((4, 6, 3), np.uint8), np.zeros((5, 7, 3), np.uint8)]


class Clock:
    """Stands in for the module `time` in the harness: it goes on only when told, so a busy machine changes nothing."""

    def __init__(self) -> None:
        self.nanoseconds = 0

    def perf_counter_ns(self) -> int:
        return self.nanoseconds

    def perf_counter(self) -> float:
        return self.nanoseconds / 1e9

    def pass_ms(self, milliseconds: float) -> None:
        self.nanoseconds += round(milliseconds * 1e6)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("segkc_deploy.benchmarks.latency.time", clock)
    return clock


class KnownTimes:
    """A predictor whose stages last what they are told to; `pass_ms` lets the time pass."""

    def __init__(
        self,
        pass_ms: Callable[[float], None],
        infer_ms: Sequence[float],
        per_image: bool = False,
        pre_ms: float = 0.0,
        post_ms: float = 0.0,
    ) -> None:
        self.pass_ms, self.infer_ms, self.per_image = pass_ms, infer_ms, per_image
        self.pre_ms, self.post_ms = pre_ms, post_ms
        self.runs = 0
        self.sizes: list[tuple[int, int]] = []

    def preprocess(self, images: Sequence[np.ndarray]) -> np.ndarray:
        self.pass_ms(self.pre_ms)
        return np.zeros((len(images), 2, 2, 3), np.uint8)

    def infer(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        self.pass_ms(self.infer_ms[self.runs % len(self.infer_ms)] * (len(batch) if self.per_image else 1))
        self.runs += 1
        return {"masks": batch[..., 0]}

    def postprocess(self, outputs: dict[str, np.ndarray], sizes: Sequence[tuple[int, int]]) -> None:
        self.pass_ms(self.post_ms)
        self.sizes += sizes


def sleep_ms(milliseconds: float) -> None:
    time.sleep(milliseconds / 1e3)


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


def test_percentiles_of_a_known_distribution(clock: Clock) -> None:
    times = np.random.default_rng(4).gamma(4.0, 2.0, 500)
    predictor = KnownTimes(clock.pass_ms, times, pre_ms=0.5, post_ms=1.5)
    latency = measure_latency(predictor, IMAGES, Budget(seconds=1.0, samples=500))
    # Wherever the warm-up ended, 500 runs go once through all of the times.
    for stage, offset in ((latency.infer, 0.0), (latency.total, 2.0)):
        expected = np.percentile(times, [50, 90, 99]) + offset
        assert [stage.p50, stage.p90, stage.p99] == pytest.approx(expected, rel=1e-5)
        assert stage.max == pytest.approx(times.max() + offset, rel=1e-5)
        assert stage.std == pytest.approx(times.std(ddof=1), rel=1e-4)
    assert [latency.preprocess.p50, latency.preprocess.p99] == pytest.approx([0.5, 0.5])
    assert [latency.postprocess.p50, latency.postprocess.p99] == pytest.approx([1.5, 1.5])
    assert latency.total.samples == len(latency.times_ms) == 500
    assert sorted(latency.times_ms) == pytest.approx(sorted(times + 2.0), abs=1e-3)


def test_real_time_is_measured() -> None:
    latency = measure_latency(KnownTimes(sleep_ms, [5.0], pre_ms=1.0), IMAGES, Budget(seconds=0.1, samples=20))
    # A sleep never ends early; how late it ends is the machine's affair.
    assert 5.0 <= latency.infer.p50 <= latency.total.p50
    assert 1.0 <= latency.preprocess.p50 < latency.infer.p50
    assert latency.total.mean == pytest.approx(
        latency.preprocess.mean + latency.infer.mean + latency.postprocess.mean, rel=1e-6
    )


def test_overhead_is_below_one_percent_of_five_milliseconds() -> None:
    def cpu_seconds(runs: int) -> float:
        began = time.process_time()
        measure_batch(KnownTimes(lambda _: None, [0.0]), IMAGES, 1, Budget(samples=runs))
        return time.process_time() - began

    # The difference leaves out what happens once; CPU time leaves out other processes.
    overhead_ms = 1e3 * (cpu_seconds(12_000) - cpu_seconds(2_000)) / 10_000
    assert overhead_ms < 0.01 * 5


def test_throughput_counts_images(clock: Clock) -> None:
    predictor = KnownTimes(clock.pass_ms, [1.0, 3.0], per_image=True, pre_ms=2.0)
    point = measure_batch(predictor, IMAGES, 4, Budget(samples=30))
    # Batches of 4 last 2 + 4 and 2 + 12 ms by turns: 8 images in 20 ms, 8 images in 16 ms of inference.
    assert point.images_per_s == pytest.approx(400.0)
    assert point.infer_images_per_s == pytest.approx(500.0)
    assert point.total is not None
    assert point.total.p50 == pytest.approx(10.0)


def test_images_are_cycled_with_their_own_sizes(clock: Clock) -> None:
    predictor = KnownTimes(clock.pass_ms, [0.1])
    measure_latency(predictor, IMAGES, Budget(samples=3))
    assert predictor.sizes[:4] == [(4, 6), (5, 7), (4, 6), (5, 7)]


def test_time_budget_takes_at_least_twenty_runs() -> None:
    assert not Budget(seconds=1.0).spent(runs=19, seconds=50.0)
    assert Budget(seconds=1.0).spent(runs=20, seconds=1.0)
    assert not Budget(seconds=1.0).spent(runs=1000, seconds=0.9)
    assert Budget(seconds=1.0, samples=5).spent(runs=5, seconds=0.0)


def test_warm_up_goes_on_until_stable(clock: Clock) -> None:
    falling = iter([8.0] * 10 + [4.0] * 10 + [2.0] * 10 + [2.05] * 1000)
    warmed = warm_up(lambda: clock.pass_ms(next(falling)), at_most_s=30)
    assert warmed.stable
    assert warmed.runs == 40


def test_warm_up_gives_up_when_time_is_up(clock: Clock) -> None:
    longer = [0.5]

    def never_settles() -> None:
        longer[0] *= 1.05
        clock.pass_ms(longer[0])

    warmed = warm_up(never_settles, at_most_s=0.2)
    assert not warmed.stable
    assert 0.2 <= warmed.seconds < 0.4


def test_windows_of_a_slow_network_are_short(clock: Clock) -> None:
    warmed = warm_up(lambda: clock.pass_ms(800.0), at_most_s=30)
    # Three runs last more than a second: two windows of three.
    assert (warmed.runs, warmed.stable) == (6, True)
