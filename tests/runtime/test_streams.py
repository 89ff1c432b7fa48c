"""Videos over HTTP: live streams that end, break off and stall, and the pictures of an IP camera."""

import io
import json
import socket
import socketserver
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import CommandLine
from test_video import COUNT, SIZE, frames_of, lines_of, make_video
from tiny_artifact import expected_mask, make_artifact

from segkc_deploy.video.address import shown

av = pytest.importorskip("av")


@contextmanager
def serving(kind: str, send: Callable[[io.BufferedIOBase], object], chunked: bool = False) -> Iterator[str]:
    """Serve what `send` writes, without a length as live streams are, and yield its URL.

    Only a `chunked` stream tells its end; other ones just close the connection.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1" if chunked else "HTTP/1.0"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            if chunked:
                self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            content = io.BytesIO()
            with suppress(BrokenPipeError, ConnectionResetError):  # the reader has enough
                send(content if chunked else self.wfile)
                if chunked:
                    self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(content.getvalue()), content.getvalue()))

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/live"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def transport_stream(tmp_path: Path, count: int = COUNT) -> bytes:
    return make_video(tmp_path / "source.ts", sound=None, count=count).read_bytes()


def test_a_stream_is_predicted_until_it_ends(command: CommandLine, tmp_path: Path) -> None:
    content = transport_stream(tmp_path)
    artifact = make_artifact(tmp_path / "artifact", size=SIZE)
    with serving("video/mp2t", lambda file: file.write(content), chunked=True) as url:
        finished = command("predict", artifact, "--source", url, "--out", tmp_path / "out")
    assert finished.code == 0, finished.err
    assert len(lines_of(tmp_path / "out/stream.jsonl")) == COUNT
    assert len(frames_of(tmp_path / "out/stream.mp4")) == COUNT
    assert json.loads((tmp_path / "out/stream.summary.json").read_text())["frames"] == COUNT


def test_the_pictures_of_an_ip_camera_are_a_stream(command: CommandLine, tmp_path: Path) -> None:
    """JPEG files one after the other, as `multipart/x-mixed-replace`."""
    image = np.full((*SIZE, 3), 30, np.uint8)
    image[:, : SIZE[1] // 2] = (220, 0, 0)

    def send(file: io.BufferedIOBase) -> None:
        jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
        for _ in range(12):
            file.write(
                b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg) + jpeg + b"\r\n"
            )

    artifact = make_artifact(tmp_path / "artifact", size=SIZE)
    with serving("multipart/x-mixed-replace; boundary=frame", send) as url:
        finished = command("predict", artifact, "--source", url, "--out", tmp_path / "out")
    assert finished.code == 2  # a camera that ends is one that broke down
    assert "ends early, after 12 frames" in finished.err
    lines = lines_of(tmp_path / "out/stream.jsonl")
    assert len(lines) == 12
    assert lines[0]["areas"]["red"] == pytest.approx(np.mean(expected_mask(image) == 1), abs=0.05)


def test_a_stream_that_breaks_off_leaves_whole_files(command: CommandLine, tmp_path: Path) -> None:
    content = transport_stream(tmp_path, count=60)
    artifact = make_artifact(tmp_path / "artifact", size=SIZE)
    with serving("video/mp2t", lambda file: file.write(content[: len(content) * 2 // 3])) as url:
        finished = command("predict", artifact, "--source", url, "--out", tmp_path / "out")
    assert finished.code == 2
    assert f"{url}: ends early, after" in finished.err and "Traceback" not in finished.err
    lines = lines_of(tmp_path / "out/stream.jsonl")
    assert 20 < len(lines) < 60
    assert len(frames_of(tmp_path / "out/stream.mp4")) == len(lines)


def test_a_stream_that_stalls_ends_in_time(
    command: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segkc_deploy.video.source._TIMEOUT", (10.0, 1.0))
    content = transport_stream(tmp_path, count=60)
    ended = threading.Event()

    def send(file: io.BufferedIOBase) -> None:
        file.write(content)
        file.flush()
        ended.wait(60)

    artifact = make_artifact(tmp_path / "artifact", size=SIZE)
    with serving("video/mp2t", send) as url:
        finished = command("predict", artifact, "--source", url, "--out", tmp_path / "out")
        ended.set()
    assert finished.code == 2
    assert "ends early, after" in finished.err and "Traceback" not in finished.err
    lines = lines_of(tmp_path / "out/stream.jsonl")
    assert len(lines) > 50
    assert len(frames_of(tmp_path / "out/stream.mp4")) == len(lines)


class RtspCamera(socketserver.StreamRequestHandler):
    """Answers what a player asks and sends `content`, an MPEG transport stream, as RTP within the RTSP connection."""

    content: bytes

    def handle(self) -> None:
        sdp = b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track\r\n"
        extra = {
            "OPTIONS": b"Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n",
            "DESCRIBE": b"Content-Type: application/sdp\r\nContent-Length: %d\r\n" % len(sdp),
            "SETUP": b"Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n",
            "PLAY": b"Session: 1\r\n",
        }
        while line := self.rfile.readline():
            method = line.split(b" ")[0].decode()
            headers = dict(line.strip().split(b": ", 1) for line in iter(self.rfile.readline, b"\r\n"))
            answer = b"RTSP/1.0 200 OK\r\nCSeq: %s\r\n%s\r\n" % (headers[b"CSeq"], extra[method])
            self.wfile.write(answer + (sdp if method == "DESCRIBE" else b""))
            if method == "PLAY":
                self.send_packets()
                return

    def send_packets(self) -> None:
        for number, start in enumerate(range(0, len(self.content), 7 * 188)):
            part = self.content[start : start + 7 * 188]
            header = struct.pack(">BBHII", 0x80, 33, number, 90 * number, 1)
            self.wfile.write(struct.pack(">cBH", b"$", 0, len(header) + len(part)) + header + part)


def test_an_rtsp_camera_is_predicted_until_it_goes_away(command: CommandLine, tmp_path: Path) -> None:
    camera = type("Camera", (RtspCamera,), {"content": transport_stream(tmp_path)})
    artifact = make_artifact(tmp_path / "artifact", size=SIZE)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), camera) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"rtsp://127.0.0.1:{server.server_address[1]}/live"
        finished = command("predict", artifact, "--source", url, "--out", tmp_path / "out")
        server.shutdown()
        thread.join()
    assert finished.code in (0, 2)
    assert "Traceback" not in finished.err
    lines = lines_of(tmp_path / "out/stream.jsonl")
    assert len(lines) == len(frames_of(tmp_path / "out/stream.mp4")) >= COUNT - 2


def test_a_video_is_read_from_stdin(tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "artifact", size=SIZE)

    def predict(content: bytes, out: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "segkc_deploy", "predict", str(artifact), "--source", "-"]
        return subprocess.run([*command, "--out", str(tmp_path / out)], input=content, capture_output=True, check=False)

    assert predict(transport_stream(tmp_path), "out").returncode == 0
    assert len(frames_of(tmp_path / "out/stdin.mp4")) == len(lines_of(tmp_path / "out/stdin.jsonl")) == COUNT
    with av.open(str(tmp_path / "noise.mp4"), "w") as container:  # too large to be held back until its index comes
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for index in range(60):
            noise = np.random.default_rng(index).integers(0, 256, (*SIZE, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode(None))
    index_last = predict((tmp_path / "noise.mp4").read_bytes(), "other")
    assert index_last.returncode == 2
    assert b"with their index first (faststart) can be piped" in index_last.stderr
    assert b"Traceback" not in index_last.stderr


def test_a_stream_that_is_not_there_is_one_line(command: CommandLine, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        artifact = make_artifact(tmp_path / "artifact", size=SIZE)
        for url in (f"http://127.0.0.1:{port}/live", f"rtsp://127.0.0.1:{port}/live"):
            line = command.refused("predict", artifact, "--source", url, "--out", tmp_path / "out")
            assert f"{url}: cannot be opened as a video" in line
    assert not (tmp_path / "out").exists()


def test_the_password_of_a_stream_is_neither_printed_nor_stored(command: CommandLine, tmp_path: Path) -> None:
    artifact, out = make_artifact(tmp_path / "artifact", size=SIZE), tmp_path / "out"
    content = transport_stream(tmp_path, count=60)
    arguments = ("predict", artifact, "--out", out, "--source")
    with serving("video/mp2t", lambda file: file.write(content[: len(content) * 2 // 3]), chunked=True) as url:
        with_password = url.replace("http://", "http://me:se@cret@")
        printed = [command(*arguments, with_password), command(*arguments, with_password, "--resume")]
    printed.append(command(*arguments, with_password, "--overwrite"))
    printed += [command(*arguments, with_password, *option) for option in (("--ray",), ("--palette",))]
    assert "http://***@127.0.0.1" in printed[2].err
    texts = [path.read_text() for path in out.iterdir() if path.suffix in (".json", ".jsonl")]
    assert len(texts) >= 2
    for text in [*texts, *(one.err + one.out for one in printed)]:
        assert "cret" not in text


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("rtsp://me:secret@camera.local/live", "rtsp://***@camera.local/live"),
        ("rtsp://me@camera.local:554/a@b", "rtsp://***@camera.local:554/a@b"),
        ("http://camera.local/a@b?c=d@e", "http://camera.local/a@b?c=d@e"),
        ("a:b@c.mp4", "a:b@c.mp4"),
    ],
)
def test_a_source_is_named_without_its_password(source: str, named: str) -> None:
    assert shown(source) == named
