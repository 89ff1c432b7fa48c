"""Latency and throughput of a predictor: warm up until stable, then time whole calls and their three stages."""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, Protocol

import numpy as np

from segkc_deploy.benchmarks.measure.median_interval import median_interval
from segkc_deploy.benchmarks.schema import BatchPoint, Distribution, Latency, WarmUp

#: Warm-up ends when the medians of two successive windows differ by at most this share.
STABLE_WITHIN = 0.05
#: A window ends after this many runs, or after `_WINDOW_SECONDS` once it has `_WINDOW_LEAST`.
WINDOW_RUNS = 10
_WINDOW_LEAST = 3
_WINDOW_SECONDS = 1.0
#: A time budget goes on beyond its time until it has this many samples, at most to `_LONGEST` times its time.
WANTED_SAMPLES = 200
_LONGEST = 2
#: However short the time, this many samples are taken.
LEAST_SAMPLES = 20

_STAGES = ("preprocess", "infer", "postprocess")


class StagedPredictor(Protocol):
    """The three stages that are timed; what `segkc_deploy.predictor.Predictor` offers."""

    def preprocess(self, images: Sequence[np.ndarray], /) -> np.ndarray: ...

    def infer(self, batch: np.ndarray, /) -> dict[str, np.ndarray]: ...

    def postprocess(self, outputs: dict[str, np.ndarray], sizes: Sequence[tuple[int, int]], /) -> Any: ...


class DeviceTimedPredictor(StagedPredictor, Protocol):
    """One that may also tell how long its GPU took."""

    @property
    def last_device_ms(self) -> float | None: ...

    def time_device(self, on: bool, /) -> None: ...


@dataclass(frozen=True)
class Budget:
    """How long to measure: `samples` runs where given, else `seconds`.

    With fewer than `WANTED_SAMPLES` runs in that time, the measurement continues to that many runs or to twice the
    time, whichever comes first, and always to `LEAST_SAMPLES` runs. The warm-up may last twice `seconds`, and once for
    each further batch size.
    """

    seconds: float = 5.0
    samples: int | None = None

    def spent(self, runs: int, seconds: float) -> bool:
        if self.samples is not None:
            return runs >= self.samples
        longest = self.seconds if runs >= WANTED_SAMPLES else _LONGEST * self.seconds
        return runs >= LEAST_SAMPLES and seconds >= longest


def summarize(times_ms: Sequence[float] | np.ndarray) -> Distribution:
    """Return the percentiles, mean and spread of `times_ms` (milliseconds, at least one, in order)."""
    times = np.asarray(times_ms, dtype=np.float64)
    p50, p90, p99 = np.percentile(times, (50, 90, 99))
    mean, std = times.mean(), times.std(ddof=1) if times.size > 1 else 0.0
    return Distribution(
        p50=p50,
        p50_interval=median_interval(times),
        p90=p90,
        p99=p99,
        max=times.max(),
        mean=mean,
        std=std,
        cv=std / mean if mean else 0.0,
        samples=times.size,
    )


def warm_up(run: Callable[[], object], at_most_s: float) -> WarmUp:
    """Call `run` until its time is stable: two successive windows' medians within `STABLE_WITHIN`, or time is up.

    The first window is always run; a window has at most `WINDOW_RUNS` runs.
    """
    began, runs = time.perf_counter(), 0
    before: float | None = None
    while True:
        window: list[float] = []
        window_began = time.perf_counter()
        while len(window) < WINDOW_RUNS and not (
            len(window) >= _WINDOW_LEAST and time.perf_counter() - window_began > _WINDOW_SECONDS
        ):
            start = time.perf_counter()
            run()
            window.append(time.perf_counter() - start)
        runs += len(window)
        median, elapsed = statistics.median(window), time.perf_counter() - began
        stable = before is not None and abs(median - before) <= STABLE_WITHIN * before
        if stable or elapsed >= at_most_s:
            return WarmUp(runs=runs, seconds=elapsed, stable=stable)
        before = median


def measure_latency(
    predictor: StagedPredictor,
    images: Sequence[np.ndarray],
    budget: Budget,
    timing: AbstractContextManager[object] | None = None,
) -> Latency:
    """Time single images, cycled in order, from decoded pixels to the mask at the image's own size.

    Args:
        predictor: what is timed.
        images: decoded uint8 (H, W, 3) RGB images; reading them from disk is not part of any figure.
        budget: how many runs.
        timing: is entered after the warm-up and left after the last timed run.
    """
    timed = StageTimer(predictor, images, batch=1)
    timed.visit_sizes()
    warmed = warm_up(timed.run, at_most_s=2 * budget.seconds)
    stages = timed.measure(budget, timing)
    total = stages.sum(axis=1)
    by_stage = {name: summarize(stages[:, column]) for column, name in enumerate(_STAGES)}
    return Latency(warm_up=warmed, **by_stage, total=summarize(total), times_ms=total.round(4).tolist())


def measure_device(
    predictor: DeviceTimedPredictor, images: Sequence[np.ndarray], budget: Budget
) -> Distribution | None:
    """Time the GPU's own part of the inference of single images, or return None where the runner cannot tell it.

    These are runs of their own, since recording events takes time on the host. There are at most `WANTED_SAMPLES`.
    """
    batches = cycle([predictor.preprocess([image]) for image in images])
    predictor.time_device(True)

    def device_ms() -> float | None:
        predictor.infer(next(batches))
        return predictor.last_device_ms

    try:
        if device_ms() is None:
            return None
        warm_up(device_ms, at_most_s=budget.seconds)
        times: list[float] = []
        began = time.perf_counter()
        while len(times) < WANTED_SAMPLES and not budget.spent(len(times), time.perf_counter() - began):
            milliseconds = device_ms()
            assert milliseconds is not None, "a runner that reports the time once reports it always"
            times.append(milliseconds)
        return summarize(times)
    finally:
        predictor.time_device(False)


def measure_batch(
    predictor: StagedPredictor,
    images: Sequence[np.ndarray],
    batch: int,
    budget: Budget,
    timing: AbstractContextManager[object] | None = None,
) -> BatchPoint:
    """Time batches of `batch` images, cycled in order; images/s is images over the sum of the batches' times.

    `timing` as for `measure_latency`.
    """
    timed = StageTimer(predictor, images, batch)
    timed.visit_sizes()
    warm_up(timed.run, at_most_s=budget.seconds)
    stages = timed.measure(budget, timing)
    total, infer = stages.sum(axis=1), stages[:, _STAGES.index("infer")]
    return BatchPoint(
        batch=batch,
        images_per_s=batch * len(total) * 1e3 / total.sum(),
        infer_images_per_s=batch * len(infer) * 1e3 / infer.sum(),
        total=summarize(total),
        infer=summarize(infer),
    )


class StageTimer:
    """Runs batches of `images`, cycled in order, and times their stages."""

    def __init__(self, predictor: StagedPredictor, images: Sequence[np.ndarray], batch: int) -> None:
        self._predictor = predictor
        self._all = images
        self._images = cycle(images)
        self._batch = batch

    def visit_sizes(self) -> None:
        """Run a batch at each network input size that the images give, where there are several.

        Engines choose kernels, compile or capture a graph the first time they see a size. The warm-up may end before it
        has seen all of them; a timed run would then pay for it.
        """
        by_image: dict[tuple[int, ...], int] = {}
        for place, image in enumerate(self._all):
            by_image.setdefault(image.shape[:2], place)
        if len(by_image) == 1:
            return
        by_input: dict[tuple[int, ...], int] = {}
        for place in by_image.values():
            by_input.setdefault(self._predictor.preprocess([self._all[place]]).shape, place)
        if len(by_input) > 1:
            for place in by_input.values():
                self._run(list(islice(cycle(self._all), place, place + self._batch)))

    def run(self) -> tuple[int, int, int]:
        """Run one batch and return its three stages in nanoseconds."""
        return self._run([next(self._images) for _ in range(self._batch)])

    def measure(self, budget: Budget, timing: AbstractContextManager[object] | None = None) -> np.ndarray:
        """Return float64 (runs, 3) milliseconds. Garbage collection stays on, as it is for a user."""
        gc.collect()
        stages: list[tuple[int, int, int]] = []
        with timing or nullcontext():
            began = time.perf_counter()
            while not budget.spent(len(stages), time.perf_counter() - began):
                stages.append(self.run())
        return np.asarray(stages, dtype=np.float64) / 1e6

    def _run(self, images: Sequence[np.ndarray]) -> tuple[int, int, int]:
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        start = time.perf_counter_ns()
        batch = self._predictor.preprocess(images)
        preprocessed = time.perf_counter_ns()
        outputs = self._predictor.infer(batch)
        inferred = time.perf_counter_ns()
        self._predictor.postprocess(outputs, sizes)
        return preprocessed - start, inferred - preprocessed, time.perf_counter_ns() - inferred
