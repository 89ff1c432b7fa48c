"""The latency harness against a runner whose times are known, and its statistics against NumPy and by hand."""

import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import pytest

from segkc_deploy.benchmarks.measure.latency import (
    Budget,
    measure_batch,
    measure_device,
    measure_latency,
    summarize,
    warm_up,
)

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
    monkeypatch.setattr("segkc_deploy.benchmarks.measure.latency.time", clock)
    # It takes long in a process with much in it, and hundreds of measurements would each do it.
    monkeypatch.setattr("segkc_deploy.benchmarks.measure.latency.gc", SimpleNamespace(collect=lambda: None))
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


class Spinning(KnownTimes):
    """Is busy for known times on the real clock, and keeps what each run truly took by a clock of its own.

    The machine may interrupt it, so that a run takes longer than was drawn; never is it shorter.
    """

    def __init__(self, infer_ms: Sequence[float]) -> None:
        super().__init__(self._spin, infer_ms)
        self.began_ns: list[int] = []
        self.ended_ns: list[int] = []

    @property
    def took_ms(self) -> np.ndarray:
        return np.subtract(self.ended_ns, self.began_ns) / 1e6

    def _spin(self, milliseconds: float) -> None:
        if not milliseconds:
            return
        began = time.perf_counter_ns()
        until = began + round(milliseconds * 1e6)
        while (now := time.perf_counter_ns()) < until:
            pass
        self.began_ns.append(began)
        self.ended_ns.append(now)


def mixture(count: int, seed: int) -> np.ndarray:
    """Return times around 1 ms, of which every twentieth is an outlier around 4 ms."""
    rng = np.random.default_rng(seed)
    times = rng.lognormal(0.0, 0.1, count)
    times[::20] = rng.lognormal(np.log(4.0), 0.1, len(times[::20]))
    return rng.permutation(times)


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
    # A sleep never ends early; how late it ends depends on the machine.
    assert 5.0 <= latency.infer.p50 <= latency.total.p50
    assert latency.preprocess.p50 >= 1.0
    assert latency.total.mean == pytest.approx(
        latency.preprocess.mean + latency.infer.mean + latency.postprocess.mean, rel=1e-6
    )


class Span:
    """Keeps when it was entered and left, in seconds of the real clock."""

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.seconds = time.perf_counter() - self.began


def test_recorded_times_lie_between_those_of_the_predictor_and_the_wall_time() -> None:
    """Whatever else the machine does: no run is shorter than the predictor saw it, and none is counted twice."""
    count = 60
    predictor, span = Spinning(mixture(count, seed=6)), Span()
    latency = measure_latency(predictor, IMAGES, Budget(seconds=0.1, samples=count), span)
    took = predictor.took_ms[-count:]
    assert np.all(np.asarray(latency.times_ms) >= took - 1e-4)  # rounded
    assert [latency.infer.p50, latency.infer.p99] >= np.percentile(took, [50, 99]).tolist()
    assert sum(latency.times_ms) <= 1e3 * span.seconds


def test_throughput_lies_between_that_of_the_wall_time_and_of_the_predictor() -> None:
    predictor, span = Spinning(mixture(40, seed=7)), Span()
    point = measure_batch(predictor, IMAGES, 2, Budget(seconds=0.1, samples=40), span)
    assert point.images_per_s is not None
    assert 2 * 40 / span.seconds <= point.images_per_s <= 2e3 / np.mean(predictor.took_ms[-40:])


def slow_seconds(count: int, seed: int) -> np.ndarray:
    """Return times of 5 ms on a machine that is now faster, now slower, for many runs on end."""
    rng = np.random.default_rng(seed)
    speed = np.zeros(count)
    for index in range(1, count):
        speed[index] = 0.9 * speed[index - 1] + rng.normal() * np.sqrt(1 - 0.9**2)
    return 5 * np.exp(0.03 * speed) + rng.gamma(1.0, 0.02, count)


@pytest.mark.parametrize("times", [mixture, slow_seconds])
def test_two_runs_of_one_artifact_agree_within_their_intervals(
    clock: Clock, times: Callable[[int, int], np.ndarray]
) -> None:
    pairs, agree = 60, 0
    for seed in range(pairs):
        predictor = KnownTimes(clock.pass_ms, times(1100, seed))  # both runs with one predictor, one after the other
        runs = [measure_latency(predictor, IMAGES, Budget(seconds=0.0, samples=500)).total for _ in range(2)]
        (low, high), (other_low, other_high) = (run.p50_interval or (np.inf, -np.inf) for run in runs)
        agree += low <= other_high and other_low <= high
        assert high - low < 0.05 * runs[0].p50, "so wide an interval would agree with anything"
    # Two 95% intervals of the same median miss each other in less than 1 of 100 pairs.
    assert agree >= pairs - 1


def test_another_artifact_does_not_agree(clock: Clock) -> None:
    totals = [
        measure_latency(KnownTimes(clock.pass_ms, factor * mixture(600, seed)), IMAGES, Budget(samples=500)).total
        for seed, factor in ((0, 1.0), (1, 1.05))
    ]
    assert totals[0].p50_interval is not None
    assert totals[1].p50_interval is not None
    assert totals[0].p50_interval[1] < totals[1].p50_interval[0]


class KnownDevice(KnownTimes):
    """Tells that the GPU took a fifth of each inference, when it is asked to."""

    last_device_ms: float | None = None
    asked: bool = False
    tells: bool = True

    def time_device(self, on: bool) -> None:
        self.asked, self.last_device_ms = on, None

    def infer(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        took = self.infer_ms[self.runs % len(self.infer_ms)]
        outputs = super().infer(batch)
        if self.asked and self.tells:
            self.last_device_ms = took / 5
        return outputs


def test_the_gpus_own_times(clock: Clock) -> None:
    times = np.random.default_rng(8).gamma(4.0, 2.0, 50)
    predictor = KnownDevice(clock.pass_ms, times, pre_ms=3.0, post_ms=2.0)
    device = measure_device(predictor, IMAGES, Budget(samples=100))
    assert device is not None
    assert [device.p50, device.p90, device.p99] == pytest.approx(np.percentile([*times, *times], [50, 90, 99]) / 5)
    assert device.samples == 100
    assert not predictor.asked, "later runs pay for no events"
    assert predictor.sizes == [], "nothing is postprocessed"
    of_time = measure_device(predictor, IMAGES, Budget(seconds=100.0))
    assert of_time is not None
    assert of_time.samples == 200


def test_a_gpus_first_runs_warm_it_up(clock: Clock) -> None:
    predictor = KnownDevice(clock.pass_ms, [50.0] * 10 + [1.0] * 190)
    device = measure_device(predictor, IMAGES, Budget(samples=50))
    assert device is not None
    assert (device.max, device.samples) == (pytest.approx(1 / 5), 50)


def test_a_runner_without_events_runs_once(clock: Clock) -> None:
    predictor = KnownDevice(clock.pass_ms, [1.0])
    predictor.tells = False
    assert measure_device(predictor, IMAGES, Budget()) is None
    assert predictor.runs == 1
    assert not predictor.asked


def test_timing_is_around_the_timed_runs_alone(clock: Clock) -> None:
    predictor = KnownTimes(clock.pass_ms, [1.0])
    spans: list[int] = []

    class Span:
        def __enter__(self) -> None:
            spans.append(predictor.runs)

        def __exit__(self, *error: object) -> None:
            spans.append(predictor.runs)

    measure_latency(predictor, IMAGES, Budget(samples=7), Span())
    warm_up_runs = spans[0]
    assert warm_up_runs > 0
    assert spans == [warm_up_runs, warm_up_runs + 7]
    measure_batch(predictor, IMAGES, 2, Budget(samples=5), Span())
    assert spans[3] == predictor.runs
    assert spans[3] - spans[2] == 5


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


@pytest.mark.parametrize(
    ("runs", "seconds", "spent"),
    [
        (1000, 0.9, False),  # the time is used
        (200, 1.0, True),
        (199, 1.0, False),  # so few go on
        (199, 1.9, False),
        (20, 2.0, True),  # to twice the time at most
        (19, 50.0, False),  # twenty there have to be
    ],
)
def test_a_time_budget(runs: int, seconds: float, spent: bool) -> None:
    assert Budget(seconds=1.0).spent(runs, seconds) == spent


def test_a_budget_of_samples() -> None:
    assert Budget(seconds=1.0, samples=5).spent(runs=5, seconds=0.0)
    assert not Budget(seconds=1.0, samples=5).spent(runs=4, seconds=99.0)


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


class SlowFirst(KnownTimes):
    """The first batch of a shape takes 300 ms, later ones take 5 ms."""

    def __init__(self, pass_ms: Callable[[float], None]) -> None:
        super().__init__(pass_ms, [5.0])
        self.seen: set[tuple[int, ...]] = set()

    def preprocess(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return np.zeros((len(images), *images[0].shape), np.uint8)

    def infer(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        if batch.shape not in self.seen:
            self.seen.add(batch.shape)
            self.pass_ms(295.0)
        return super().infer(batch)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_what_a_size_costs_once_is_not_timed(clock: Clock, batch: int) -> None:
    images = [np.zeros((4 + place % 20, 6, 3), np.uint8) for place in range(32)]
    if batch == 1:
        total = measure_latency(SlowFirst(clock.pass_ms), images, Budget(samples=40)).total
    else:
        point = measure_batch(SlowFirst(clock.pass_ms), images, batch, Budget(samples=40))
        assert point.total is not None
        total = point.total
    assert (total.p50, total.max) == (5.0, 5.0)


def test_photographs_of_many_sizes_are_one_size_for_a_network_of_one(clock: Clock) -> None:
    predictor = KnownTimes(clock.pass_ms, [5.0])
    images = [np.zeros((4 + place, 6, 3), np.uint8) for place in range(32)]
    latency = measure_latency(predictor, images, Budget(samples=20))
    assert predictor.runs == latency.warm_up.runs + 20
