"""The Open Inference Protocol: Triton's own client and this package's, against the service."""

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread, current_thread
from time import sleep
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
import pytest
from command_line import CommandLine
from running_service import RunningService, running_service
from tiny_artifact import LABELS, expected_mask, expected_scores, make_artifact

import segkc_deploy
from segkc_deploy.errors import ArtifactError, ConfigError, DataError
from segkc_deploy.inference_protocol import InferResponse, decode_request, decode_response, encode, tensor_of
from segkc_deploy.runners import remote_runner
from segkc_deploy.serve import inference

SIZE = (8, 12)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), dtype=np.uint8)
EVERYTHING = ("masks", "confidence", "logits")


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("artifacts")
    free = {"size_multiple": 4, "min_size": (4, 4), "max_size": (16, 16)}
    return [
        make_artifact(folder, "fixed.onnx", size=SIZE, outputs=EVERYTHING),
        make_artifact(folder, "free.onnx", outputs=("masks",), **free),
    ]


@pytest.fixture(scope="module")
def served(artifacts: list[Path]) -> Iterator[RunningService]:
    with running_service(artifacts) as service:
        yield service


def model_url(service: RunningService, name: str = "fixed") -> str:
    return f"{service.url}/v2/models/{name}"


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_own_client_gets_every_output(served: RunningService, binary: bool) -> None:
    triton = pytest.importorskip("tritonclient.http")
    client = triton.InferenceServerClient(f"127.0.0.1:{served.port}")
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("fixed")
    assert client.get_server_metadata()["name"] == "segkc-deploy"
    described = client.get_model_metadata("fixed")
    assert described["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 8, 12, 3]}]
    assert [one["name"] for one in described["outputs"]] == list(EVERYTHING)
    names = client.get_model_config("fixed")["parameters"]["class_names"]["string_value"]
    assert tuple(json.loads(names)) == LABELS.names
    images = triton.InferInput("images", list(IMAGES.shape), "UINT8")
    images.set_data_from_numpy(IMAGES, binary_data=binary)
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in EVERYTHING]
    answer = client.infer("fixed", [images], outputs=outputs, request_id="7")
    assert answer.get_response()["id"] == "7"
    np.testing.assert_array_equal(answer.as_numpy("masks"), [expected_mask(image) for image in IMAGES])
    np.testing.assert_array_equal(answer.as_numpy("logits"), [expected_scores(image) for image in IMAGES])
    assert answer.as_numpy("confidence").shape == IMAGES.shape[:3]
    assert client.infer("fixed", [images]).as_numpy("masks").shape == IMAGES.shape[:3]
    with pytest.raises(triton.InferenceServerException, match="there are fixed, free") as refused:
        client.infer("other", [images])
    assert refused.value.status() == "404"
    client.close()


def test_the_version_that_is_named_is_served(artifacts: list[Path]) -> None:
    with running_service(artifacts[:1], api_key="s3cret") as service:
        key = {"X_API_Key": "s3cret"}
        (version,) = json.loads(service.request("GET", "/v2/models/fixed", **key).body)["versions"]
        for path in ("", "/ready", "/config"):
            one, other = (
                service.request("GET", f"/v2/models/fixed{middle}{path}", **key)
                for middle in ("", f"/versions/{version}")
            )
            assert (one.status, one.body) == (other.status, other.body) == (200, one.body)
        path = f"/v2/models/fixed/versions/{version}/infer"
        assert service.request("POST", path, request_json(), **key).status == 200
        assert service.request("POST", path, request_json()).status == 401
        refused = service.request("GET", "/v2/models/fixed/versions/2", **key)
        assert (refused.status, json.loads(refused.body)["error"]) == (
            404, "fixed has no version '2'; leave it out, or ask for 1",
        )  # fmt: skip
        assert (
            'segkc_deploy_requests_total{status="200"} 1.0' in service.request("GET", "/metrics", **key).body.decode()
        )


@pytest.mark.parametrize("name", ["fixed", "free"])
def test_a_connected_predictor_gives_what_a_loaded_one_gives(
    served: RunningService, artifacts: list[Path], name: str
) -> None:
    images = [np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8) for size in ((13, 21), (5, 9), (8, 12))]
    path = next(path for path in artifacts if path.stem == name)
    with segkc_deploy.connect(model_url(served, name)) as remote, segkc_deploy.load(path, "cpu") as local:
        assert (remote.labels, remote.gives_confidence) == (local.labels, local.gives_confidence)
        assert remote.contract.outputs == local.contract.outputs
        for one, other in zip(remote.predict(images), local.predict(images), strict=True):
            np.testing.assert_array_equal(one, other)
        if local.gives_confidence:
            for one, other in zip(
                remote.predict_with_confidence(images), local.predict_with_confidence(images), strict=True
            ):
                np.testing.assert_array_equal(one[1], other[1])


def test_predict_takes_a_url_in_place_of_an_artifact(
    command: CommandLine, served: RunningService, artifacts: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    for index, image in enumerate(IMAGES):
        cv2.imwrite(str(tmp_path / f"photos/{index}.png"), image)
    for name, source in (("local", artifacts[0]), ("remote", model_url(served))):
        finished = command("predict", source, "--source", tmp_path / "photos", "--out", tmp_path / name, "--batch", 2)
        assert finished.code == 0, finished.err
    local, remote = (
        {
            path.name: path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file() and path.name != "predicted.settings.json"  # which network it was, as far as it is known
        }
        for name in ("local", "remote")
    )
    assert local == remote
    assert "--threads" in command.refused(
        "predict", model_url(served), "--source", tmp_path, "--out", tmp_path / "o", "--threads", 1
    )


def test_a_key_is_sent_and_asked_for(command: CommandLine, artifacts: list[Path], tmp_path: Path) -> None:
    key = tmp_path / "key.txt"
    key.write_text("s3cret\n")
    cv2.imwrite(str(tmp_path / "a.png"), IMAGES[0])
    with running_service(artifacts[:1], api_key="s3cret") as service:
        with pytest.raises(ArtifactError, match=r"answered 401: a key is needed"):
            segkc_deploy.connect(model_url(service))
        assert service.request("GET", "/v2/health/ready").status == 200
        arguments = ("predict", model_url(service), "--source", tmp_path / "a.png", "--out", tmp_path / "out")
        assert command(*arguments, "--api-key-file", key).code == 0


def test_a_batch_is_the_service_s_business(artifacts: list[Path]) -> None:
    """A request for more images than the network's batch is run in several; Prometheus counts them all."""
    with running_service(artifacts[:1], batch=2) as service:
        with segkc_deploy.connect(model_url(service)) as remote:
            assert remote.batch_size(8) == 2
            masks = remote.postprocess(remote.infer(IMAGES), [SIZE] * 3)
        text = service.request("GET", "/metrics").body.decode()
    np.testing.assert_array_equal(masks, [expected_mask(image) for image in IMAGES])
    assert 'segkc_deploy_images_total{model="fixed"} 3.0' in text
    assert 'segkc_deploy_requests_total{status="200"} 1.0' in text


def test_a_busy_server_is_asked_again(artifacts: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(remote_runner.time, "sleep", waited.append)
    with running_service(artifacts[:1], waiting=2) as service, segkc_deploy.connect(model_url(service)) as remote:
        refused = iter([True, True])
        original = service.models[0].batcher.infer_all

        def at_first_full(images: list[np.ndarray]) -> object:
            monkeypatch.setattr(service.models[0].batcher, "_most_waiting", 0 if next(refused, False) else 2)
            return original(images)

        monkeypatch.setattr(service.models[0].batcher, "infer_all", at_first_full)
        assert remote.predict(IMAGES[0]).shape == SIZE
    assert waited == [1.0, 1.0]


def test_a_server_that_names_a_long_delay_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503)
            self.send_header("Retry-After", "600")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    monkeypatch.setattr(remote_runner, "_PATIENCE", 0.3)

    def wait(seconds: float) -> None:
        waited.append(seconds)
        sleep(seconds)

    monkeypatch.setattr(remote_runner.time, "sleep", wait)
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(ArtifactError, match="answered 503"):
            segkc_deploy.connect(f"http://127.0.0.1:{server.server_port}/v2/models/a")
        server.shutdown()
    assert waited and max(waited) <= 0.3


def test_a_closed_connection_is_opened_again_and_an_ended_server_reported(artifacts: list[Path]) -> None:
    with running_service(artifacts[:1]) as service:
        remote = segkc_deploy.connect(model_url(service))
        sock = remote._runner._connection.sock  # type: ignore[attr-defined]
        sock.shutdown(2)
        np.testing.assert_array_equal(remote.predict(IMAGES[0]), expected_mask(IMAGES[0]))
        remote.close()
    with pytest.raises(ConfigError, match="cannot be reached: Connection refused; is the server running"):
        remote.predict(IMAGES[0])


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "http://localhost:8000",
        "http://localhost:x/v2/models/a",
        "ftp://h",
        "http://[::1/v2/models/a",
        "http://a..b/v2/models/a",
        f"http://{'a' * 64}/v2/models/a",
        "http://a b/v2/models/a",
    ],
)
def test_urls_that_name_no_model_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"use http://HOST|is no number"):
        segkc_deploy.connect(url)


@pytest.mark.parametrize("name", ["straße", "two words", "a+b"])
def test_a_name_in_a_url_may_have_any_characters(tmp_path: Path, name: str) -> None:
    with running_service([make_artifact(tmp_path, f"{name}.onnx", size=SIZE)]) as service:
        for path in (name, quote(name)):
            with segkc_deploy.connect(model_url(service, path)) as remote:
                np.testing.assert_array_equal(remote.predict(IMAGES[0]), expected_mask(IMAGES[0]))


def test_a_body_over_the_servers_limit_is_named_as_such(tmp_path: Path) -> None:
    """The server answers before it has read the body, and closes the connection while the client sends."""
    artifact = make_artifact(tmp_path, size=(1024, 1024))
    image = np.zeros((1024, 1024, 3), np.uint8)
    with (
        running_service([artifact], body_mib=1) as service,
        segkc_deploy.connect(model_url(service, artifact.stem)) as remote,
    ):
        for count in (1, 8):
            with pytest.raises(ArtifactError, match=r"413: the body is larger than 1 MiB; use a smaller batch"):
                remote.infer(np.stack([image] * count))


def test_a_server_that_closes_without_an_answer_while_it_is_sent_to() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def close_each() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    connection.recv(1000)
                    connection.close()

        thread = Thread(target=close_each, daemon=True)
        thread.start()
        runner = remote_runner.RemoteRunner(f"http://127.0.0.1:{listening.getsockname()[1]}/v2/models/a")
        with pytest.raises(ConfigError, match=r"on a request of 24\.0 MiB: .*; use a smaller batch, or serve with"):
            runner.infer(np.zeros((8, 1024, 1024, 3), np.uint8))
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_an_answer_with_fewer_masks_than_images_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = remote_runner.RemoteRunner("http://localhost/v2/models/a", outputs=("masks",))
    tensor, content = tensor_of("masks", np.ones((2, *SIZE), np.uint8), binary=True)
    answer = encode(InferResponse(model_name="a", outputs=[tensor]), [content])
    monkeypatch.setattr(runner, "_ask", lambda *arguments: answer)
    assert runner.infer(IMAGES[:2])["masks"].shape == (2, *SIZE)
    for count in (1, 3):
        with pytest.raises(ArtifactError, match=f"answered without masks for each of {count} images"):
            runner.infer(IMAGES[:count])


def test_a_length_of_thousands_of_digits_is_refused(served: RunningService) -> None:
    for length in ("9" * 5000, "0" * 5000):
        answer = served.request(
            "POST", "/v2/models/fixed/infer", request_json(), Inference_Header_Content_Length=length
        )
        assert answer.status == 400
        assert "Inference-Header-Content-Length" in json.loads(answer.body)["error"]


def test_a_model_that_others_exported_is_refused(served: RunningService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segkc_deploy.serve.inference.client_parameters", lambda manifest: {"class_names": "[]"})
    with pytest.raises(ArtifactError, match=r"export the model again with --triton"):
        segkc_deploy.connect(model_url(served))


def test_openapi_describes_the_answer_and_refusals(served: RunningService) -> None:
    schema = json.loads(served.request("GET", "/openapi.json").body)
    answers = schema["paths"]["/v2/models/{name}/infer"]["post"]["responses"]
    names = {status: answer["content"]["application/json"]["schema"]["$ref"] for status, answer in answers.items()}
    assert names["200"].endswith("/InferResponse")
    assert {names[status] for status in ("400", "404", "413", "429", "503")} == {"#/components/schemas/Refusal"}
    assert all(
        reference.split("/")[-1] in schema["components"]["schemas"]
        for reference in set(names.values()) - {"#/components/schemas/HTTPValidationError"}
    )


def request_json(**changes: object) -> bytes:
    tensor = {"name": "images", "shape": [1, *SIZE, 3], "datatype": "UINT8", "data": IMAGES[0].tolist()} | changes
    return json.dumps({"inputs": [tensor]}).encode()


def test_json_is_made_outside_the_event_loop(served: RunningService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits of many classes are long as JSON; no other request was answered meanwhile."""
    threads: list[str] = []

    def noting(*arguments: Any) -> tuple[bytes, dict[str, str]]:
        threads.append(current_thread().name.rpartition("_")[0])
        return encode(*arguments)

    monkeypatch.setattr(inference, "encode", noting)
    tensor = {"name": "images", "datatype": "UINT8", "shape": IMAGES.shape, "data": IMAGES.ravel().tolist()}
    for binary in (False, True):
        message = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": binary}}).encode()
        assert served.request("POST", "/v2/models/fixed/infer", message).status == 200
    assert threads[0] == "images" != threads[1]


def test_nested_lists_are_row_major(served: RunningService) -> None:
    answer = served.request("POST", "/v2/models/fixed/infer", request_json())
    masks = next(one for one in json.loads(answer.body)["outputs"] if one["name"] == "masks")
    assert masks["data"] == expected_mask(IMAGES[0]).ravel().tolist()
    assert "network;dur=" in answer.headers["server-timing"]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 400, "no image"),
        (b"{", 400, "no inference request"),
        (b'{"inputs": []}', 400, "inputs"),
        (b'{"inputs": [7]}', 400, "inputs.0"),
        (request_json(data=[1, 2]), 400, "its data is not UINT8 [1, 8, 12, 3]"),
        (request_json(data=[[1], [2, 3]]), 400, "its data is not"),
        (request_json(data=[300] * 288), 400, "its data is not"),
        (request_json(data=[0.5] * 288), 400, "its data is not"),
        (request_json(data=["1"] * 288), 400, "its data is not"),
        (request_json(data=["x" * 1_000_000] + ["a"] * 500_000), 400, "its data is not"),  # 2 TB as an array
        (request_json(data=[True] + [1] * 287), 400, "its data is not"),
        (request_json(data=[[[[[[[[[1]]]]]]]]]), 400, "its data is not"),
        (request_json(shape=[1, 8, 12, -3]), 400, "greater than or equal to 0"),
        (request_json(datatype="INT64"), 400, "datatype"),
        (request_json(datatype="FP32"), 400, "send UINT8"),
        (request_json(name="pictures"), 400, "takes one tensor, 'images'"),
        (request_json(shape=[0, 8, 12, 3], data=[]), 400, "its data is not"),
        (request_json(shape=[1, 12, 8, 3]), 400, "images of [8, 12], not of [12, 8]"),
        (request_json(shape=[33, 8, 12, 3], data=[0] * 33 * 288), 413, "may hold 32 images, not 33"),
        (request_json()[:-1] + b', "outputs": [{"name": "depth"}]}', 400, "gives no depth"),
    ],
)
def test_what_is_no_request_is_refused_with_a_reason(
    served: RunningService, body: bytes, status: int, says: str
) -> None:
    answer = served.request("POST", "/v2/models/fixed/infer", body)
    assert answer.status == status, answer.body
    assert says in json.loads(answer.body)["error"]


@pytest.mark.parametrize(
    ("length", "size", "rest"),
    [("x", 4, b"abcd"), ("-1", 4, b"abcd"), ("999999", 4, b"abcd"), (None, 5, b"abcde"), (None, 4, b"abc"),
     (None, 4, b"abcde"), (None, "4", b"abcd"), (None, True, b"a")],
)  # fmt: skip
def test_binary_lengths_that_do_not_fit_are_refused(length: str | None, size: object, rest: bytes) -> None:
    tensor = {"name": "a", "shape": [1, 4], "datatype": "UINT8", "parameters": {"binary_data_size": size}}
    header = json.dumps({"inputs": [tensor]}).encode()
    with pytest.raises(DataError):
        decode_request(header + rest, length or str(len(header)))


def test_a_shape_that_no_array_has_is_refused() -> None:
    """Of no values at all, so that their number fits."""
    tensor = {"name": "a", "shape": [0, 10**30], "datatype": "UINT8", "parameters": {"binary_data_size": 0}}
    header = json.dumps({"inputs": [tensor]}).encode()
    with pytest.raises(DataError, match="is no shape of an array"):
        decode_request(header, str(len(header)))


def test_a_fixed_batch_larger_than_what_may_wait_is_served(command: CommandLine, tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path, "fixed.onnx", size=SIZE, batch=5)
    cv2.imwrite(str(tmp_path / "a.png"), IMAGES[0])
    with running_service([artifact], waiting=2) as service:
        arguments = ("--source", tmp_path / "a.png", "--out", tmp_path / "out")
        finished = command("predict", model_url(service), *arguments)
        assert finished.code == 0, finished.err


def test_what_is_no_answer_is_refused() -> None:
    with pytest.raises(DataError, match="no inference answer"):
        decode_response(b"<html>", None)
