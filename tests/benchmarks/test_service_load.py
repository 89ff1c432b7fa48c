"""The load test of the service, in short."""

import itertools
import json
import socket
import threading
import time
from contextlib import suppress
from types import SimpleNamespace

import cv2
import numpy as np
import psutil
import pytest
from tiny_artifact import make_artifact

from segkc_deploy.benchmarks.measure.service_load import (
    _Client,
    bear,
    compare,
    measure,
    percentiles,
    started_service,
)
from segkc_deploy.errors import ConfigError


def test_it_compares_with_bare_inference_and_counts_every_answer(tmp_path, monkeypatch):
    connected = []
    connect = _Client._connect
    monkeypatch.setattr(_Client, "_connect", lambda self: (connected.append(self), connect(self)))
    artifact = make_artifact(tmp_path)
    cv2.imwrite(str(tmp_path / "image.png"), np.zeros((8, 12, 3), np.uint8))
    measure(artifact, tmp_path / "image.png", clients=3, seconds=1.5, turns=5, threads=1, out=tmp_path / "load.json")
    result = json.loads((tmp_path / "load.json").read_text())
    alone, load = result["alone"], result["load"]
    interval = alone["added_p50_interval_ms"]
    assert interval is None or interval[0] <= alone["added_p50_ms"] <= interval[1]
    assert set(load["statuses"]) == {"200"}
    assert load["statuses"]["200"] >= 3
    assert load["others"] == 0
    assert load["memory_mib"]["most"] > 0
    assert len(connected) == 1 + 3, "a connection for each request would count as the service's time"


def test_connections_that_end_without_an_answer_are_counted():
    server = socket.create_server(("127.0.0.1", 0))

    def hang_up():
        with suppress(OSError):
            while True:
                server.accept()[0].close()

    thread = threading.Thread(target=hang_up)
    thread.start()
    load = bear(server.getsockname()[1], psutil.Process(), b"image", clients=2, seconds=0.5)
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()
    assert load["lost"] == load["others"] >= 2
    assert load["statuses"] == {}
    assert load["service"] is None
    json.dumps(load, allow_nan=False)


def test_percentiles_are_milliseconds():
    assert percentiles([0.001 * value for value in range(1, 102)]) == {"p50_ms": 51, "p90_ms": 91, "p99_ms": 100}


def test_the_last_answers_come_late_and_their_time_counts(monkeypatch):
    monkeypatch.setattr(_Client, "_connect", lambda self: None)
    monkeypatch.setattr(_Client, "close", lambda self: None)
    monkeypatch.setattr(_Client, "ask", lambda self, body: time.sleep(0.4) or 200)
    load = bear(0, psutil.Process(), b"image", clients=2, seconds=0.1)
    assert load["statuses"] == {"200": 2}
    assert load["images_per_s"] <= 2 / 0.4


def test_refusals_are_no_latencies(monkeypatch):
    """Most of the answers are refusals, which come at once."""
    answers = itertools.cycle((200, 429, 429))

    def ask(self, body):
        status = next(answers)
        time.sleep(0.1 if status == 200 else 0)
        return status

    monkeypatch.setattr(_Client, "_connect", lambda self: None)
    monkeypatch.setattr(_Client, "close", lambda self: None)
    monkeypatch.setattr(_Client, "ask", ask)
    load = bear(0, psutil.Process(), b"image", clients=1, seconds=1)
    assert load["statuses"].keys() == {"200", "429"}
    assert load["others"] == 0
    assert load["service"]["p50_ms"] >= 100


def test_what_the_service_adds_is_the_difference_of_neighbors(monkeypatch):
    """The machine slows down all the while; the service takes two ticks more than the same work without it."""
    clock = SimpleNamespace(ticks=0, slow=0)  # 1024 in a second, so that no difference is rounded

    def lasting(ticks):
        clock.ticks += ticks + clock.slow

    def bare(predictor, body):
        lasting(5)
        clock.slow += 1

    def ask(client, body):
        lasting(7)
        return 200

    monkeypatch.setattr(f"{bear.__module__}.time", SimpleNamespace(perf_counter=lambda: clock.ticks / 1024))
    monkeypatch.setattr(f"{bear.__module__}._bare", bare)
    monkeypatch.setattr(_Client, "_connect", lambda self: None)
    monkeypatch.setattr(_Client, "close", lambda self: None)
    monkeypatch.setattr(_Client, "ask", ask)
    found = compare(0, None, b"image", turns=21)
    ms = 1000 / 1024
    assert found["service"]["p50_ms"] == round((7 + 10 + 10) * ms, 3), "ten turns warm up"
    assert found["bare"]["p50_ms"] == round((5 + 10 + 10) * ms, 3)
    assert (found["added_p50_ms"], found["added_p50_interval_ms"]) == (round(2 * ms, 3), [round(2 * ms, 3)] * 2)


def test_an_image_that_the_service_refuses_is_not_timed(monkeypatch):
    monkeypatch.setattr(_Client, "_connect", lambda self: None)
    monkeypatch.setattr(_Client, "close", lambda self: None)
    monkeypatch.setattr(_Client, "ask", lambda self, body: 413)
    with pytest.raises(ConfigError, match="--image: the service answered with status 413 instead of a mask"):
        compare(0, None, b"image", turns=1)


def test_a_service_that_does_not_begin_is_a_message(tmp_path):
    with (
        pytest.raises(ConfigError, match=r"serve .*gone\.onnx.* ended before it listened"),
        started_service(tmp_path / "gone.onnx"),
    ):
        pass
