"""What the service adds to bare inference, and how it bears load.

    python -m segkc_deploy.benchmarks.measure.service_load junior-fp32.onnx --image street.jpg --out load.json

`segkc-deploy serve` is started as a process of its own, on this machine. First one client asks, interleaved with the
same work in this process (decode the file, resize, infer, mask, PNG), so that both see the same state of the machine;
their difference is what HTTP, queue and threads cost. Then `--clients` ask without a pause, each over its own
connection, while the service's memory is read once a second.
"""

import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import cv2
import httptools
import numpy as np
import psutil  # type: ignore[import-untyped]
import typer

from segkc_deploy import atomic
from segkc_deploy.benchmarks.measure.median_interval import median_interval
from segkc_deploy.data.images import decode_image
from segkc_deploy.error_messages import one_line_errors
from segkc_deploy.errors import ConfigError
from segkc_deploy.machine import describe_machine
from segkc_deploy.predictor import Predictor, load

_REFUSALS = frozenset({413, 429, 503})
#: In place of a status, where a connection ended without an answer.
_LOST = 0


def measure(
    artifact: Annotated[Path, typer.Argument(help="What to serve.")],
    image: Annotated[Path, typer.Option(help="The picture that every request sends.")],
    clients: Annotated[int, typer.Option(min=1, help="Clients under load.")] = 8,
    seconds: Annotated[float, typer.Option(min=0, help="How long the load lasts; 0 leaves it out.")] = 60,
    turns: Annotated[int, typer.Option(min=1, help="Requests of the comparison with bare inference.")] = 300,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of one inference.")] = None,
    out: Annotated[Path | None, typer.Option(help="A JSON file for the result.")] = None,
) -> None:
    """Measure the service; see the module's docstring."""
    body = image.read_bytes()
    with started_service(artifact, threads) as (port, process):
        with load(artifact, threads=threads) as predictor:
            comparison = compare(port, predictor, body, turns)
        under_load = bear(port, process, body, clients, seconds) if seconds else None
    result = {
        "artifact": artifact.name,
        "image_bytes": len(body),
        "threads": threads,
        "alone": comparison,
        "load": under_load,
        "machine": describe_machine(),
    }
    if out is not None:
        atomic.write_text(out, json.dumps(result, indent=2) + "\n")
    typer.echo(json.dumps({name: result[name] for name in ("alone", "load")}, indent=2))


@contextmanager
def started_service(artifact: Path, threads: int | None = None) -> Iterator[tuple[int, psutil.Process]]:
    """Serve `artifact` on a free port while the block runs; yield the port and the process."""
    command = [sys.executable, "-m", "segkc_deploy", "serve", str(artifact), "--port", "0"]
    command += ["--threads", str(threads)] if threads else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = next((line for line in process.stdout if line.startswith("Listening on ")), None)
            if line is None:  # it has printed why
                raise ConfigError(f"`{' '.join(command[2:])}` ended before it listened")
            yield int(line.split()[2].rpartition(":")[2]), psutil.Process(process.pid)
        finally:
            process.terminate()


def compare(port: int, predictor: Predictor, body: bytes, turns: int) -> dict[str, Any]:
    """Return latencies in milliseconds of the service and of the same work without it, and the median difference.

    Both are asked in turn, so the interval is that of the differences between neighbors.

    Raises:
        ConfigError: the service does not answer with a mask.
    """
    with closing(_Client(port)) as client:

        def ask() -> None:
            if (status := client.ask(body)) != 200:
                raise ConfigError(f"--image: the service answered with status {status} instead of a mask; give another")

        ways: dict[str, Callable[[], Any]] = {"service": ask, "bare": lambda: _bare(predictor, body)}
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(turns + 10):
            for name, way in ways.items():
                started = time.perf_counter()
                way()
                if turn >= 10:  # the first ones warm up
                    taken[name].append(time.perf_counter() - started)
    added = 1000 * (np.array(taken["service"]) - np.array(taken["bare"]))
    interval = median_interval(added)
    return {name: percentiles(values) for name, values in taken.items()} | {
        "added_p50_ms": round(float(np.median(added)), 3),
        "added_p50_interval_ms": interval and [round(value, 3) for value in interval],
    }


def bear(port: int, process: psutil.Process, body: bytes, clients: int, seconds: float) -> dict[str, Any]:
    """Return what `clients` that ask without a pause get, and the service's memory meanwhile.

    The last answers come after `seconds`; they count, and so does the time until then.
    """
    began = time.monotonic()
    ends = began + seconds
    finished: list[float] = []
    latencies: list[float] = []
    statuses: Counter[int] = Counter()
    lock = threading.Lock()

    def ask_on() -> None:
        client: _Client | None = None
        while time.monotonic() < ends:
            started = time.perf_counter()
            try:
                client = client or _Client(port)
                status = client.ask(body)
            except OSError:  # closed, refused or not answered in time
                status = _LOST
                if client is not None:
                    client.close()
                client = None
            taken = time.perf_counter() - started
            with lock:
                statuses[status] += 1
                if status == 200:
                    latencies.append(taken)
            if status != 200:
                time.sleep(0.05)
        finished.append(time.monotonic())
        if client is not None:
            client.close()

    workers = [threading.Thread(target=ask_on) for _ in range(clients)]
    for worker in workers:
        worker.start()
    memory = []
    while time.monotonic() < ends:
        memory.append(process.memory_info().rss / 2**20)
        time.sleep(1)
    for worker in workers:
        worker.join()
    tenth = max(len(memory) // 10, 1)
    return {
        "clients": clients,
        "seconds": seconds,
        "statuses": {str(status): count for status, count in sorted(statuses.items()) if status != _LOST},
        "lost": statuses[_LOST],
        "others": sum(count for status, count in statuses.items() if status != 200 and status not in _REFUSALS),
        "images_per_s": round(statuses[200] / (max(finished) - began), 2),
        "service": percentiles(latencies),
        "memory_mib": {
            "after_a_tenth": round(float(np.median(memory[tenth : 2 * tenth] or memory)), 1),
            "last_tenth": round(float(np.median(memory[-tenth:])), 1),
            "most": round(max(memory), 1),
        },
    }


def percentiles(seconds: list[float]) -> dict[str, float] | None:
    """Return p50, p90 and p99 in milliseconds, None without any value."""
    if not seconds:
        return None
    values = 1000 * np.percentile(seconds, [50, 90, 99])
    return {f"p{rank}_ms": round(float(value), 3) for rank, value in zip((50, 90, 99), values, strict=True)}


class _Client:
    """One connection that stays open. Its own time counts as the service's, and `http.client` would add 0.4 ms."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connect()

    def ask(self, body: bytes) -> int:
        """Send an image and return the status once the answer is there."""
        head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
        self._socket.sendall(head.encode() + body)
        self._parser = httptools.HttpResponseParser(self)
        self._complete = False
        while not self._complete:
            received = self._socket.recv(1 << 18)
            if not received:
                raise ConnectionError("the service closed the connection without an answer")
            self._parser.feed_data(received)
        if not self._stays_open:
            self.close()
            self._connect()
        return int(self._parser.get_status_code())

    def on_message_complete(self) -> None:
        """Note that the response is complete; the parser calls this."""
        self._complete = True
        self._stays_open = self._parser.should_keep_alive()  # after this call it would always be False

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _connect(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _bare(predictor: Predictor, body: bytes) -> bytes:
    mask = predictor.predict(decode_image(body, "the image"))
    return cv2.imencode(".png", mask, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


if __name__ == "__main__":
    with one_line_errors():
        typer.run(measure)
