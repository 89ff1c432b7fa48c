"""Throughput and energy over a long time: machines that are fast for seconds may grow hot."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from segkc_deploy.benchmarks.measure.latency import StagedPredictor, StageTimer
from segkc_deploy.benchmarks.measure.meters import Meter, idle_watts
from segkc_deploy.benchmarks.schema import BatchPoint, Energy, Sustained

#: After it was idle for its meter, a machine runs for so many seconds unrecorded, so that its clocks are up again.
_WAKE_S = 0.5
#: No drift is reported for fewer seconds.
_LEAST_FOR_DRIFT = 10


def best_batch(points: Sequence[BatchPoint]) -> int | None:
    """Return the batch size with the most images/s, None if none was measured."""
    measured = [(point.images_per_s, point.batch) for point in points if point.images_per_s is not None]
    return max(measured)[1] if measured else None


def measure_sustained(
    predictor: StagedPredictor,
    images: Sequence[np.ndarray],
    batch: int,
    seconds: float,
    meter: Meter | None = None,
    timing: AbstractContextManager[object] | None = None,
) -> Sustained:
    """Run batches of `batch` images end to end, one right after the other, for at least `seconds` and one batch.

    Args:
        predictor: what is measured.
        images: decoded uint8 (H, W, 3) RGB images, cycled.
        batch: images at once.
        seconds: how long.
        meter: read before and after; before that, nothing is done for a while to measure the idle power.
        timing: is entered before the first batch and left after the last.
    """
    timed = StageTimer(predictor, images, batch)
    idle = idle_watts(meter) if meter else None
    awake = time.perf_counter() + (_WAKE_S if meter else 0)
    timed.run()
    while time.perf_counter() < awake:
        timed.run()
    ends = [0.0]
    with timing or nullcontext():
        before = meter.joules() if meter else None
        began = time.perf_counter()
        while ends[-1] < seconds or len(ends) == 1:
            timed.run()
            ends.append(time.perf_counter() - began)
        after = meter.joules() if meter else None
    count, lasted = batch * (len(ends) - 1), ends[-1]
    by_second = images_by_second(ends, batch)
    energy = None
    if meter is not None and before is not None and after is not None:
        energy = Energy(
            source=meter.source,
            watts=(after - before) / lasted,
            idle_watts=idle,
            joules_per_image=(after - before) / count,
        )
    return Sustained(
        batch=batch,
        seconds=lasted,
        images=count,
        images_per_s=count / lasted,
        by_second=by_second,
        drift=drift(by_second),
        energy=energy,
    )


def images_by_second(ends: Sequence[float], batch: int) -> list[float]:
    """Return the images of each whole second; a batch across seconds counts in each by the share of its time there.

    Args:
        ends: when each batch ended, in seconds since the first began; the first entry is 0.
        batch: images of a batch.
    """
    whole = np.arange(int(ends[-1]) + 1)
    done = np.interp(whole, ends, batch * np.arange(len(ends)))
    return [round(float(images), 4) for images in np.diff(done)]


def drift(by_second: Sequence[float]) -> float | None:
    """Return the last fifth's median against the first fifth's, in percent; None for fewer than 10 seconds."""
    if len(by_second) < _LEAST_FOR_DRIFT:
        return None
    fifth = len(by_second) // 5
    first, last = np.median(by_second[:fifth]), np.median(by_second[-fifth:])
    return float(100 * (last / first - 1)) if first > 0 else None
