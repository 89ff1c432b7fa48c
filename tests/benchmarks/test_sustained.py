"""Throughput over a long time, on a clock that goes on only when told, and its energy by a made-up meter."""

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest

from segkc_deploy.benchmarks.measure import latency, meters, sustained
from segkc_deploy.benchmarks.measure.sustained import best_batch, drift, images_by_second, measure_sustained
from segkc_deploy.benchmarks.schema import BatchPoint

IMAGES = [np.zeros((4, 6, 3), np.uint8)]


class Machine:
    """A clock, a meter of 10 W idle and 60 W loaded, and a predictor whose batches last `batch_s(now)` seconds."""

    source = "made up"

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.counted = 0.0
        self.batches = 0
        self.batch_s = lambda now: 0.5
        module = SimpleNamespace(
            perf_counter=lambda: self.now, perf_counter_ns=lambda: round(self.now * 1e9), sleep=self.sleep
        )
        for user in (latency, meters, sustained):
            monkeypatch.setattr(user, "time", module)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.counted += 10 * seconds

    def joules(self) -> float | None:
        return self.counted

    def preprocess(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return np.zeros((len(images), 2, 2, 3), np.uint8)

    def infer(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        seconds = self.batch_s(self.now)
        self.now += seconds
        self.counted += 60 * seconds
        self.batches += 1
        return {"masks": batch[..., 0]}

    def postprocess(self, outputs: dict[str, np.ndarray], sizes: Sequence[tuple[int, int]]) -> None:
        return None


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_a_steady_load_by_hand(machine: Machine) -> None:
    found = measure_sustained(machine, IMAGES, batch=4, seconds=20, meter=machine)
    assert (found.batch, found.seconds, found.images) == (4, 20.0, 160)
    assert found.images_per_s == 8.0
    assert found.by_second == [8.0] * 20
    assert found.drift == 0.0
    assert machine.batches == 41  # one before, unrecorded
    assert found.energy is not None
    assert found.energy.source == "made up"
    assert found.energy.watts == pytest.approx(60.0)
    assert found.energy.idle_watts == pytest.approx(10.0)
    assert found.energy.joules_per_image == pytest.approx(60 * 0.5 / 4)


def test_clocks_that_fell_while_the_meter_was_read_are_up_again(machine: Machine) -> None:
    woken: list[float] = []

    def batch_s(now: float) -> float:
        woken.append(now)
        return 0.5 if now < woken[0] + 0.3 else 0.1

    machine.batch_s = batch_s
    found = measure_sustained(machine, IMAGES, batch=1, seconds=20, meter=machine)
    assert found.images_per_s == pytest.approx(10.0)


def test_a_machine_that_grows_hot(machine: Machine) -> None:
    # 10 images/s, from the 30th second on 8; an unrecorded batch comes first.
    machine.batch_s = lambda now: 0.1 if now < 30 else 0.125
    found = measure_sustained(machine, IMAGES, batch=1, seconds=60)
    assert found.drift == pytest.approx(-20.0, abs=0.1)
    assert len(found.by_second) == 60
    assert sum(found.by_second) == pytest.approx(found.images, abs=1)
    assert found.energy is None


def test_it_lasts_at_least_as_long_as_asked_and_one_batch(machine: Machine) -> None:
    machine.batch_s = lambda now: 7.0
    found = measure_sustained(machine, IMAGES, batch=2, seconds=10)
    assert (found.seconds, found.images) == (14.0, 4)
    found = measure_sustained(machine, IMAGES, batch=2, seconds=0.1)
    assert (found.seconds, found.images) == (7.0, 2)


def test_a_meter_that_fails_gives_no_energy(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "joules", lambda: None)
    assert measure_sustained(machine, IMAGES, 1, 1.0, machine).energy is None


def test_timing_is_around_the_load_alone(machine: Machine) -> None:
    spans: list[float] = []

    class Span:
        def __enter__(self) -> None:
            spans.append(machine.now)

        def __exit__(self, *error: object) -> None:
            spans.append(machine.now)

    measure_sustained(machine, IMAGES, 1, 10.0, machine, Span())
    assert spans == [2.5, 12.5]  # after 2 s of idleness and the unrecorded batch


def test_batches_count_in_each_second_by_their_share() -> None:
    # Batches of 6 of 0.75 s: second 1 has one and a third, second 2 two thirds and a half (till 2.25, then 3.0).
    assert images_by_second([0.0, 0.75, 1.5, 2.25, 3.0], batch=6) == pytest.approx([8.0, 8.0, 8.0])
    # One of 2.5 s, one of 0.5 s: 10 images spread over 2.5 s, then 10 in half a second.
    assert images_by_second([0.0, 2.5, 3.0], batch=10) == pytest.approx([4.0, 4.0, 12.0])
    assert images_by_second([0.0, 0.5], batch=10) == []


def test_drift_is_of_medians_of_fifths() -> None:
    assert drift([10.0] * 9) is None
    assert drift([10, 12, *[99] * 6, 8, 9]) == pytest.approx(100 * (8.5 / 11 - 1))
    # Fifths of 13 seconds have two each; an outlier among three does not count.
    assert drift([10, 10, 0, *[5] * 9, 10, 11, 11]) == pytest.approx(10.0)
    assert drift([0.0] * 10) is None


def test_the_best_batch() -> None:
    points = [
        BatchPoint(batch=1, images_per_s=9.0),
        BatchPoint(batch=2, images_per_s=12.0),
        BatchPoint(batch=4, error="too large"),
    ]
    assert best_batch(points) == 2
    assert best_batch(points[2:]) is None
    assert best_batch([]) is None
