"""The HTTP service over real sockets: its answers, its limits, and how it starts and ends."""

import asyncio
import http.client
import json
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import uvicorn
from command_line import CommandLine
from pycocotools import mask as coco_mask
from running_service import RunningService, running_service
from starlette.testclient import TestClient
from tiny_artifact import expected_mask, make_artifact
from uvicorn.server import ServerState

from segkc_deploy.serve import service
from segkc_deploy.serve.app import create_app
from segkc_deploy.serve.limits import Limits
from segkc_deploy.serve.protocol import ImpatientProtocol
from segkc_deploy.serve.server import host_names, listen, server_for
from segkc_deploy.serve.service import Service

SIZE = (8, 12)
IMAGE = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def encoded(image: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, image[..., ::-1])[1].tobytes()


PNG = encoded(IMAGE)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("artifacts")
    return [
        make_artifact(folder, "sure.onnx", size=SIZE, outputs=("masks", "confidence")),
        make_artifact(folder, "plain.onnx", size=SIZE),
    ]


@pytest.fixture(scope="module")
def served(artifacts: list[Path]) -> Iterator[RunningService]:
    with running_service(artifacts, body_mib=0.5, pixels=10_000) as service:
        yield service


def test_png_holds_the_class_ids(served: RunningService):
    answer = served.predict(PNG)
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
    mask = cv2.imdecode(np.frombuffer(answer.body, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(mask, expected_mask(IMAGE))
    assert re.fullmatch(
        r"body;dur=[\d.]+, decode;dur=[\d.]+, queue;dur=[\d.]+, network;dur=[\d.]+, mask;dur=[\d.]+",
        answer.headers["server-timing"],
    )


def test_json_holds_areas_confidence_and_run_lengths(served: RunningService):
    answer = json.loads(served.predict(PNG, "?format=json").body)
    mask = expected_mask(IMAGE)
    assert (answer["model"], answer["height"], answer["width"]) == ("sure", *SIZE)
    assert sum(area["share"] for area in answer["classes"]) == pytest.approx(1)
    assert all(0 < area["confidence"] <= 1 for area in answer["classes"])
    for area in answer["classes"]:
        assert area["pixels"] == np.count_nonzero(mask == area["id"])
        counts = coco_mask.encode(np.asfortranarray((mask == area["id"]).astype(np.uint8)))["counts"]
        assert answer["rle"][str(area["id"])] == {"size": list(SIZE), "counts": counts.decode()}


def test_polygons_are_geojson(served: RunningService):
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, 15:] = (255, 0, 0)
    answer = served.predict(encoded(image), "?format=polygons&model=plain")
    assert answer.headers["content-type"] == "application/geo+json"
    collection = json.loads(answer.body)
    red = next(one for one in collection["features"] if one["properties"]["class"] == "red")
    assert "confidence" not in red["properties"]
    assert sorted(map(tuple, red["geometry"]["coordinates"][0][:-1])) == [(15, 0), (15, 20), (30, 0), (30, 20)]


def test_a_tolerance_saves_points_of_polygons(served: RunningService):
    y, x = np.mgrid[:60, :60]
    image = np.where(((x - 30) ** 2 + (y - 30) ** 2 < 400)[..., None], (255, 0, 0), (0, 0, 0)).astype(np.uint8)
    points = []
    for tolerance in (0, 8):  # the network's pixels are 5 wide and 7.5 high here
        answer = served.predict(encoded(image), f"?format=polygons&model=plain&tolerance={tolerance}")
        features = json.loads(answer.body)["features"]
        points.append(sum(len(ring) for one in features for ring in one["geometry"]["coordinates"]))
    assert points[1] < points[0] * 0.7


def test_json_and_polygons_are_made_outside_the_event_loop(served: RunningService, monkeypatch: pytest.MonkeyPatch):
    """Of a small mask of noise they take seconds, in which no other request was answered."""
    threads: list[str] = []
    for name in ("polygons_json", "prediction_json"):
        original = getattr(service, name)

        def noting(*arguments: Any, original: Callable[..., bytes] = original, name: str = name) -> bytes:
            threads.append(f"{name} {threading.current_thread().name.rpartition('_')[0]}")
            return original(*arguments)

        monkeypatch.setattr(service, name, noting)
    for form in ("polygons", "json"):
        assert served.predict(PNG, f"?format={form}").status == 200
    assert threads == ["polygons_json images", "prediction_json images"]


def test_a_long_file_of_few_pixels_is_read_outside_the_event_loop(
    served: RunningService, monkeypatch: pytest.MonkeyPatch
):
    threads: list[str] = []
    for name in ("read_header", "decode_image"):
        original = getattr(service, name)

        def noting(*arguments: Any, original: Callable[..., Any] = original) -> Any:
            threads.append(threading.current_thread().name.rpartition("_")[0])
            return original(*arguments)

        monkeypatch.setattr(service, name, noting)
    for body in (PNG, PNG + bytes(300_000)):
        assert served.predict(body).status == 200
    assert threads[2:] == ["images", "images"]
    assert "images" not in threads[:2]


def test_a_rotated_jpeg_is_predicted_upright(served: RunningService, tmp_path: Path):
    from PIL import Image

    exif = Image.Exif()
    exif[274] = 6  # turn it by a quarter
    Image.fromarray(IMAGE).save(tmp_path / "turned.jpg", exif=exif)
    answer = json.loads(served.predict((tmp_path / "turned.jpg").read_bytes(), "?format=json").body)
    assert (answer["width"], answer["height"]) == SIZE


@pytest.mark.parametrize(
    ("body", "query", "status", "says"),
    [
        (b"", "", 400, "no image: send the file as the body"),
        (b"not an image", "", 400, "not a readable image"),
        (PNG[:60], "", 400, "not a readable image"),
        (PNG, "?model=other", 404, "there are sure, plain"),
        (encoded(np.zeros((101, 100, 3), np.uint8)), "", 413, "100 × 101 pixels, more than 10000"),
        (PNG, "?format=gif", 422, "format"),
        (PNG, "?tolerance=-1", 422, "tolerance"),
    ],
)
def test_what_cannot_be_predicted_is_refused_with_a_reason(
    served: RunningService, body: bytes, query: str, status: int, says: str
):
    answer = served.predict(body, query)
    assert answer.status == status
    assert says in answer.body.decode()


def test_logging_of_other_libraries_is_left_alone():
    """uvicorn's own configuration closes every handler of the process, and some close what they write to."""
    closed = []

    class Handler(logging.Handler):
        def close(self):
            closed.append(self)
            super().close()

    handler = Handler()
    server_for(create_app(Service([], Limits())), Limits())
    assert not closed
    handler.close()


def test_a_form_gets_the_command_that_sends_the_file_itself(served: RunningService):
    """`curl -F file=@photo.jpg` sends one."""
    part = b'Content-Disposition: form-data; name="file"; filename="photo.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    form = b"--x\r\n" + part + PNG + b"\r\n--x--\r\n"
    answer = served.predict(form, Content_Type="multipart/form-data; boundary=x")
    assert answer.status == 400
    says = "a form, in which the file is one part of the body: send the file as the body, as `curl --data-binary @photo"
    assert says in answer.body.decode()


def test_a_body_is_refused_by_its_declared_length_before_it_is_sent(served: RunningService):
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 600000\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(1000), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"larger than 0.5 MiB" in answer
    assert b"connection: close" in answer.lower()


def test_answers_do_not_wait_for_acknowledgments():
    # asyncio looks at this before it turns Nagle's algorithm off.
    with listen("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_a_body_of_undeclared_length_is_cut_off_at_the_limit(served: RunningService):
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"20000\r\n" + bytes(0x20000) + b"\r\n"
        for _ in range(5):
            connection.sendall(chunk)
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_models_health_ready_and_openapi(served: RunningService):
    sure, plain = json.loads(served.request("GET", "/models").body)
    assert (sure["name"], plain["name"]) == ("sure", "plain")
    assert sure["confidence"] and not plain["confidence"]
    assert [(one["height"], one["width"], one["any_size"]) for one in (sure, plain)] == [(8, 12, False)] * 2
    assert [entry["name"] for entry in sure["classes"]] == ["dark", "red", "green", "blue"]
    assert json.loads(served.request("GET", "/health").body) == {"status": "ok"}
    assert json.loads(served.request("GET", "/ready").body) == {"status": "ready"}
    schema = json.loads(served.request("GET", "/openapi.json").body)
    predict = schema["paths"]["/predict"]["post"]
    assert set(predict["responses"]) >= {"200", "400", "401", "408", "413", "429", "503"}
    assert set(predict["responses"]["200"]["content"]) == {"image/png", "application/json", "application/geo+json"}


def test_metrics_count_answers_and_refusals(artifacts: list[Path]):
    with running_service(artifacts[:1]) as service:
        for body in (PNG, PNG, b"?"):
            service.predict(body)
        text = service.request("GET", "/metrics").body.decode()
    assert 'segkc_deploy_requests_total{status="200"} 2.0' in text
    assert 'segkc_deploy_requests_total{status="400"} 1.0' in text
    assert 'segkc_deploy_images_total{model="sure"} 2.0' in text
    assert "segkc_deploy_requests_in_work 0.0" in text


@pytest.mark.parametrize(("form", "work"), [("json", "prediction_json"), ("polygons", "polygons_json")])
def test_times_hold_all_of_the_work(
    artifacts: list[Path], monkeypatch: pytest.MonkeyPatch, form: str, work: str
) -> None:
    original = getattr(service, work)

    def slow(*arguments: Any) -> bytes:
        time.sleep(0.2)
        return original(*arguments)

    monkeypatch.setattr(service, work, slow)
    with running_service(artifacts[:1]) as running:
        answer = running.predict(PNG, f"?format={form}")
        text = running.request("GET", "/metrics").body.decode()
    parts = dict(re.findall(r"(\w+);dur=([\d.]+)", answer.headers["server-timing"]))
    assert float(parts["mask"]) >= 200
    if form == "json":
        assert json.loads(answer.body)["milliseconds"]["mask"] >= 200
    (total,) = re.findall(r'segkc_deploy_request_seconds_sum{model="sure"} ([\d.]+)', text)
    assert float(total) >= sum(map(float, parts.values())) / 1000


def test_names_that_point_here_from_elsewhere_are_refused(served: RunningService):
    assert served.request("GET", "/health", Host="evil.example").status == 400


def test_a_service_may_be_addressed_by_the_address_that_it_listens_on():
    for host, name in (("127.0.0.2", "127.0.0.2"), ("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")):
        with TestClient(create_app(Service([], Limits()), None, host_names(host)), f"http://{name}:8000") as client:
            assert client.get("/health").status_code != 400, host
            assert client.get("/health", headers={"Host": "evil.example"}).status_code == 400


def test_a_proxy_may_pass_on_a_public_name():
    for host in ("127.0.0.1", "0.0.0.0"):
        names = host_names(host, ["a.example", "*.b.example"])
        with TestClient(create_app(Service([], Limits()), None, names), "http://localhost:8000") as client:
            for name, status in (("a.example", 200), ("x.b.example:443", 200), ("localhost", 200), ("c.example", 400)):
                assert client.get("/health", headers={"Host": name}).status_code == status, (host, name)


def test_probes_may_ask_for_the_head_alone(served: RunningService):
    for path in ("/", "/health", "/ready"):
        answer = served.request("HEAD", path)
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["content-length"] == served.request("GET", path).headers["content-length"]


def test_a_compressed_body_is_refused_with_the_fix(served: RunningService):
    for path in ("/predict", "/v2/models/sure/infer"):
        answer = served.request("POST", path, PNG, Content_Encoding="gzip")
        assert answer.status == 415
        assert b"Content-Encoding 'gzip'; send it as it is" in answer.body
    assert served.predict(PNG, Content_Encoding="identity").status == 200


def test_a_key_locks_all_but_the_probes_and_the_page(artifacts: list[Path]):
    with running_service(artifacts[:1], api_key="s3cret") as service:
        for path in ("/models", "/metrics"):
            assert service.request("GET", path).status == 401
        assert service.predict(PNG).status == 401
        assert service.predict(PNG, X_API_Key="s3cre").status == 401
        assert service.predict(PNG, X_API_Key="s3cret").status == 200
        assert {service.request("GET", path).status for path in ("/", "/health", "/ready")} == {200}


@pytest.mark.parametrize(
    ("limit", "status"), [({"client_requests": 4}, 429), ({"requests": 4}, 503), ({"waiting": 3}, 503)]
)
def test_too_many_requests_are_refused_and_none_is_lost(
    artifacts: list[Path], monkeypatch: pytest.MonkeyPatch, limit: dict[str, int], status: int
):
    with running_service(artifacts[:1], batch=1, **limit) as service:
        opened = threading.Event()
        infer = service.models[0].batcher._run
        monkeypatch.setattr(service.models[0].batcher, "_run", lambda images: (opened.wait(60), infer(images))[1])
        with ThreadPoolExecutor(12) as pool:
            waiting = [pool.submit(service.predict, PNG) for _ in range(12)]
            while sum(future.done() for future in waiting) < 8:
                time.sleep(0.01)
            opened.set()
            answers = [future.result() for future in waiting]
    refused = [answer for answer in answers if answer.status != 200]
    assert 3 <= len(answers) - len(refused) <= 4
    assert {(answer.status, answer.headers["retry-after"]) for answer in refused} == {(status, "1")}


def test_a_network_that_hangs_is_answered_in_time(artifacts: list[Path], monkeypatch: pytest.MonkeyPatch):
    with running_service(artifacts[:1], seconds=0.3) as service:
        opened = threading.Event()
        monkeypatch.setattr(service.models[0].batcher, "_run", lambda images: opened.wait(30) or {})
        answer = service.predict(PNG)
        opened.set()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")


def test_slow_clients_are_refused(artifacts: list[Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("segkc_deploy.serve.protocol.HEAD_SECONDS", 0.3)
    with running_service(artifacts[:1], body_seconds=0.3) as service:
        address = ("127.0.0.1", service.port)
        with socket.create_connection(address, timeout=30) as slow_body:
            slow_body.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
            assert slow_body.recv(100).startswith(b"HTTP/1.1 408 ")
        for head in (b"", b"GET /health HT"):
            with socket.create_connection(address, timeout=30) as slow_head:
                slow_head.sendall(head)
                with pytest.raises(ConnectionResetError):
                    assert slow_head.recv(100) == b""
                    raise ConnectionResetError  # an orderly end is as good
        connection = http.client.HTTPConnection(*address, timeout=30)
        for _ in range(2):  # a connection that is used again is not taken for a slow one
            connection.request("GET", "/health")
            assert connection.getresponse().read()
            time.sleep(0.5)
        connection.close()


@pytest.mark.parametrize(
    ("length", "more"), [(1000, b"x"), (1, b"x"), (0, b"\r\n")], ids=["part of a body", "a body", "an empty line"]
)
def test_a_connection_is_closed_that_sent_a_little_after_its_answer(
    artifacts: list[Path], monkeypatch: pytest.MonkeyPatch, length: int, more: bytes
):
    """A byte ends uvicorn's own timer, and some hundred such connections kept everybody out for good."""
    monkeypatch.setattr("segkc_deploy.serve.protocol.HEAD_SECONDS", 0.3)
    with (
        running_service(artifacts[:1]) as service,
        socket.create_connection(("127.0.0.1", service.port), timeout=30) as client,
    ):
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % length)
        answer = b""
        while b'"ok"' not in answer:
            answer += client.recv(1000)
        client.sendall(more)
        with suppress(ConnectionResetError):
            assert client.recv(100) in (b"", b"}")
            assert client.recv(100) == b""


def test_the_head_of_a_next_request_does_not_stop_the_clock_of_an_answer(monkeypatch: pytest.MonkeyPatch):
    """A client that reads nothing could keep its connection by sending another request."""
    monkeypatch.setattr("segkc_deploy.serve.protocol.READ_SECONDS", 0.1)

    async def app(scope: object, receive: object, send: object) -> None:
        await asyncio.sleep(3600)

    async def main() -> None:
        closed = asyncio.Event()
        transport = Mock(spec=asyncio.Transport, abort=closed.set)
        transport.get_extra_info.return_value = None
        config = uvicorn.Config(app, log_config=None, lifespan="off")
        connection = ImpatientProtocol(config, ServerState(), {})
        connection.connection_made(transport)
        connection.pause_writing()
        connection.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        try:
            await asyncio.wait_for(closed.wait(), 60)
        finally:
            connection.connection_lost(None)
            (task,) = connection.tasks
            task.cancel()
            await asyncio.wait([task])

    asyncio.run(main())


@pytest.mark.parametrize(
    ("start", "piece", "answer"),
    [
        (b"POST /predict HTTP/1.1\r\nHost: localhost\r\n", b"X-A: b\r\n", b""),
        (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n", b"a", b"HTTP/1.1 408 "),
    ],
    ids=["headers", "body"],
)
def test_clients_that_trickle_are_refused(
    artifacts: list[Path], monkeypatch: pytest.MonkeyPatch, start: bytes, piece: bytes, answer: bytes
):
    """The time is that of the whole head or body: pieces that keep coming do not extend it."""
    monkeypatch.setattr("segkc_deploy.serve.protocol.HEAD_SECONDS", 0.5)
    with running_service(artifacts[:1], body_seconds=0.5) as service:
        with socket.create_connection(("127.0.0.1", service.port), timeout=30) as slow:
            slow.sendall(start)
            ended = False
            for _ in range(600):
                time.sleep(0.05)
                try:
                    slow.sendall(piece)
                except OSError:
                    ended = True
                    break
            assert ended
            with suppress(ConnectionResetError):  # the answer may be lost with the bytes that were on the way
                assert slow.recv(100).startswith(answer)
        assert service.predict(PNG).status == 200


def test_a_client_that_leaves_is_no_error(artifacts: list[Path], capfd: pytest.CaptureFixture[str]):
    with running_service(artifacts[:1]) as service:
        with socket.create_connection(("127.0.0.1", service.port), timeout=30) as leaving:
            leaving.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
        while 'status="499"' not in service.request("GET", "/metrics").body.decode():
            time.sleep(0.01)
        assert service.predict(PNG).status == 200
    assert capfd.readouterr().err == ""


def test_the_command_serves_until_a_signal_and_frees_its_port(artifacts: list[Path]):
    port = 0
    for _ in range(2):  # the second one gets the port of the first
        command = [sys.executable, "-m", "segkc_deploy", "serve", str(artifacts[0]), "--port", str(port)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]
        assert lines[0].startswith("sure: onnxruntime ")
        found = re.fullmatch(r"Listening on http://127\.0\.0\.1:(\d+) .*\n", lines[1])
        assert found, process.communicate()
        port = int(found[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/predict", PNG)
        assert connection.getresponse().status == 200
        connection.close()
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
        assert (process.returncode, error) == (0, "")


def test_a_killed_service_leaves_nothing_in_the_way(artifacts: list[Path]):
    port = 0
    for _ in range(2):  # the second one gets the port of the first at once
        command = [sys.executable, "-m", "segkc_deploy", "serve", str(artifacts[0]), "--port", str(port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline(), process.stdout.readline()]
            assert lines[1].startswith("Listening on "), process.communicate()
            port = int(lines[1].split()[2].rpartition(":")[2])
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("POST", "/predict", PNG)
            assert connection.getresponse().status == 200
            process.kill()  # with the connection still open
            assert process.wait(60) == -signal.SIGKILL
            connection.close()


def test_mistakes_are_one_line(
    command: CommandLine, artifacts: list[Path], served: RunningService, tmp_path: Path
) -> None:
    artifact = artifacts[0]
    assert "choose another --host or --port" in command.refused("serve", artifact, "--port", served.port)
    for name in ("a.example:8000", "https://a.example", "a*.example", ""):
        assert f"--allowed-host {name}: give a name as" in command.refused("serve", artifact, "--allowed-host", name)
    assert "--host ..: no name of a host" in command.refused("serve", artifact, "--port", 0, "--host", "..")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "umlaut").write_text("schlüssel")
    for name, says in (("none", "cannot be read"), ("empty", "no API key"), ("umlaut", "ASCII")):
        assert says in command.refused("serve", artifact, "--api-key-file", tmp_path / name)
    twins = [make_artifact(tmp_path / folder) for folder in ("a", "b")]
    assert "two artifacts have this name" in command.refused("serve", *twins, "--port", 0)
