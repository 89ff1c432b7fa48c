"""Videos: frames, timing and sound kept, lines of JSON, smoothing, damage and Ctrl-C."""

import json
import os
import signal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from command_line import CommandLine
from tiny_artifact import expected_mask, make_artifact

import segkc_deploy
from segkc_deploy.errors import ConfigError, DataError
from segkc_deploy.predictor import Predictor
from segkc_deploy.video import pipeline, source
from segkc_deploy.video.smoothing import Flicker, LogitAverage
from segkc_deploy.video.source import AudioPacket, Frame, names_video, open_video

av = pytest.importorskip("av")
SIZE = (48, 64)
COUNT = 20


def make_video(
    path: Path, sound: str | None = "aac", count: int = COUNT, size: tuple[int, int] = SIZE, start: int = 0
) -> Path:
    """A red square on green that moves; every frame after the tenth comes late, so that the rate varies.

    Its first picture is at `start` seconds.
    """
    with av.open(str(path), "w") as container:
        odd = size[0] % 2 or size[1] % 2
        stream = container.add_stream("ffv1", rate=25) if odd else container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv444p" if odd else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        audio = container.add_stream(sound, rate=48000) if sound else None
        for index in range(count):
            pixels = np.zeros((*size, 3), np.uint8)
            pixels[...] = (0, 220, 0)
            pixels[8:24, 2 * index : 2 * index + 16] = (220, 0, 0)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            late = max(index - 10, 0) * 15
            frame.pts, frame.time_base = start * 1000 + index * 40 + late, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None:
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 1024), np.int16), format="s16", layout="stereo")
            samples.rate = 48000
            for index in range(30):
                samples.pts = start * 48000 + index * 1024
                container.mux(audio.encode(samples))
            container.mux(audio.encode(None))
    return path


def frames_of(path: Path) -> list[Frame]:
    with open_video(str(path)) as video:
        return [item for item in video.read() if isinstance(item, Frame)]


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_overlay_keeps_timing_and_sound_and_every_frame_has_a_line(command: CommandLine, tmp_path: Path) -> None:
    source = make_video(tmp_path / "clip.mp4")
    artifact = make_artifact(tmp_path / "artifact", size=SIZE)
    finished = command(
        "predict", artifact, "--source", source, "--out", tmp_path / "out", "--frames", "rle", "--batch", 3
    )
    assert finished.code == 0, finished.err
    assert f"{COUNT} frames predicted" in finished.out
    given, written = frames_of(source), frames_of(tmp_path / "out/clip.mp4")
    assert [frame.seconds for frame in written] == pytest.approx([frame.seconds for frame in given], abs=0.001)
    with open_video(str(source)) as one, open_video(str(tmp_path / "out/clip.mp4")) as other:
        sounds = [
            [bytes(item.packet) for item in video.read() if isinstance(item, AudioPacket)] for video in (one, other)
        ]
    assert sounds[0] == sounds[1]
    assert len(sounds[0]) > 20
    lines = lines_of(tmp_path / "out/clip.jsonl")
    assert [line["frame"] for line in lines] == list(range(COUNT))
    for line, frame in zip(lines, given, strict=True):
        mask = expected_mask(frame.pixels)
        assert line["areas"]["red"] == pytest.approx(np.mean(mask == 1), abs=1e-6)
        assert line["rle"]["red"]["size"] == list(SIZE)


def test_sound_that_mp4_cannot_hold_becomes_matroska_and_odd_sides_even(tmp_path: Path) -> None:
    source = make_video(tmp_path / "clip.mkv", sound="pcm_s16le", size=(47, 63))
    (tmp_path / "out").mkdir()
    options = pipeline.VideoOptions(detail="polygons")
    with (
        segkc_deploy.load(make_artifact(tmp_path, size=(47, 63)), "cpu") as predictor,
        open_video(str(source)) as video,
    ):
        result = pipeline.predict_video(predictor, video, tmp_path / "out", options)
    assert result.files[1] == tmp_path / "out/clip.mkv"
    with open_video(str(result.files[1])) as written:
        assert written.audio is not None
        frames = [item for item in written.read() if isinstance(item, Frame)]
    assert [frame.pixels.shape for frame in frames] == [(48, 64, 3)] * COUNT
    first = lines_of(tmp_path / "out/clip.jsonl")[0]
    assert {one["properties"]["class"] for one in first["polygons"]["features"]} == {"red", "green"}


@pytest.mark.parametrize(
    ("source", "options", "told"),
    [
        ("clip.mp4", ("--tile",), "clip.mp4: --tile is for images"),
        ("clip.mp4", ("--palette",), "clip.mp4: --also and --palette are for images"),
        ("photo.png", ("--smooth", 0.5), "photo.png: --smooth and --frames are for videos"),
        ("photo.png", ("--frames", "rle"), "photo.png: --smooth and --frames are for videos"),
    ],
)
def test_options_of_the_other_kind_are_refused(
    command: CommandLine, tmp_path: Path, source: str, options: tuple[str, ...], told: str
) -> None:
    make_video(tmp_path / "clip.mp4")
    cv2.imwrite(str(tmp_path / "photo.png"), np.zeros((48, 64, 3), np.uint8))
    artifact = make_artifact(tmp_path / "artifact", size=SIZE)
    assert told in command.refused(
        "predict", artifact, "--source", tmp_path / source, "--out", tmp_path / "o", *options
    )
    assert not (tmp_path / "o").exists()


def test_smoothing_lowers_the_flicker(tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "artifact", size=SIZE, outputs=("logits",))
    rng = np.random.default_rng(0)
    still = np.full((*SIZE, 3), 80, np.uint8)
    noisy = [np.clip(still + rng.normal(0, 25, still.shape), 0, 255).astype(np.uint8) for _ in range(12)]
    with segkc_deploy.load(artifact, "cpu") as predictor:
        average, plain, smoothed = LogitAverage(predictor, 0.8), Flicker(), Flicker()
        expected: np.ndarray | None = None
        for image in noisy:
            logits = predictor.infer(image[None])["logits"][0]
            expected = logits if expected is None else 0.8 * expected + 0.2 * logits
            mask = average.mask(logits, SIZE)
            assert np.mean(mask == expected.argmax(axis=2)) > 0.999
            plain.add(expected_mask(image))
            smoothed.add(mask)
    assert plain.mean is not None and smoothed.mean is not None
    assert smoothed.mean < 0.5 * plain.mean


def test_smoothing_needs_logits(tmp_path: Path) -> None:
    with (
        segkc_deploy.load(make_artifact(tmp_path), "cpu") as predictor,
        pytest.raises(ConfigError, match="--outputs logits"),
    ):
        LogitAverage(predictor, 0.5)


def test_flicker_is_the_share_of_pixels_that_change() -> None:
    flicker = Flicker()
    assert flicker.mean is None
    for mask in ([[0, 0], [0, 0]], [[1, 0], [0, 0]], [[1, 1], [1, 0]]):
        flicker.add(np.array(mask, np.uint8))
    assert flicker.mean == (0.25 + 0.5) / 2


def test_a_video_that_is_cut_gives_what_there_is_and_says_so(command: CommandLine, tmp_path: Path) -> None:
    source = make_video(tmp_path / "clip.ts", sound=None, count=60)
    data = bytearray(source.read_bytes())
    source.write_bytes(data[: len(data) * 2 // 3])
    artifact = make_artifact(tmp_path / "artifact", size=SIZE)
    finished = command("predict", artifact, "--source", source, "--out", tmp_path / "out")
    assert finished.code in (0, 2)
    assert "Traceback" not in finished.err
    lines = lines_of(tmp_path / "out/clip.jsonl")
    assert 20 < len(lines) < 60
    assert len(frames_of(tmp_path / "out/clip.mp4")) == len(lines)


@pytest.mark.parametrize("content", [b"", b"no video at all"])
def test_what_is_no_video_is_one_line(command: CommandLine, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clip.mp4").write_bytes(content)
    artifact = make_artifact(tmp_path / "artifact", size=SIZE)
    line = command.refused("predict", artifact, "--source", tmp_path / "clip.mp4", "--out", tmp_path / "out")
    assert "clip.mp4: cannot be opened as a video" in line
    assert not (tmp_path / "out").exists()


def test_a_video_of_somebody_else_is_never_replaced(command: CommandLine, tmp_path: Path) -> None:
    artifact, out = make_artifact(tmp_path, size=(8, 12)), tmp_path / "out"
    make_video(tmp_path / "clip.mov", None, 3)
    out.mkdir()
    (out / "clip.mp4").write_bytes(b"mine")
    arguments = ("predict", artifact, "--source", tmp_path / "clip.mov", "--out", out, "--overwrite")
    assert "no earlier call wrote it" in command.refused(*arguments)
    assert (out / "clip.mp4").read_bytes() == b"mine"
    (out / "clip.mp4").unlink()
    assert command(*arguments).code == 0
    assert command(*arguments).code == 0  # its own


@pytest.mark.parametrize("name", ["clip.jsonl", "clip.summary.json", "clip.mp4"])
def test_no_file_of_somebody_else_is_replaced_and_no_result_lost(
    command: CommandLine, tmp_path: Path, name: str
) -> None:
    artifact, out = make_artifact(tmp_path, size=(8, 12)), tmp_path / "out"
    make_video(tmp_path / "clip.mov", None, 3)
    arguments = ("predict", artifact, "--source", tmp_path / "clip.mov", "--out", out, "--overwrite")
    assert command(*arguments).code == 0
    (out / name).write_text('{"mine": 1}')
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert f"{out / name}: is there, and no earlier call wrote it" in command.refused(*arguments)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_lines_beside_a_video_of_somebody_else_do_not_make_it_ours(command: CommandLine, tmp_path: Path) -> None:
    artifact, out = make_artifact(tmp_path, size=(8, 12)), tmp_path / "out"
    make_video(tmp_path / "clip.mov", None, 3)
    out.mkdir()
    make_video(out / "clip.mp4", None, 4)
    before = (out / "clip.mp4").read_bytes()
    arguments = ("predict", artifact, "--source", tmp_path / "clip.mov", "--out", out, "--overwrite")
    assert command(*arguments, "--no-overlay").code == 0
    assert "no earlier call wrote it" in command.refused(*arguments)
    assert (out / "clip.mp4").read_bytes() == before


@pytest.mark.parametrize(("sound", "suffix"), [(None, "mp4"), ("pcm_s16le", "mkv")])
def test_overwrite_leaves_no_overlay_of_an_earlier_call(
    command: CommandLine, tmp_path: Path, sound: str | None, suffix: str
) -> None:
    artifact, out = make_artifact(tmp_path, size=(8, 12)), tmp_path / "out"
    make_video(tmp_path / "clip.mkv", sound, 3)
    make_video(tmp_path / "other.mkv", None, 3)
    arguments = ("predict", artifact, "--out", out, "--overwrite", "--source")
    assert command(*arguments, tmp_path / "clip.mkv").code == 0
    assert (out / f"clip.{suffix}").is_file()
    assert command(*arguments, tmp_path / "other.mkv").code == 0  # results of another video stay
    assert command(*arguments, tmp_path / "clip.mkv", "--no-overlay").code == 0
    assert {path.name for path in out.iterdir()} == {
        "clip.jsonl",
        "clip.summary.json",
        "other.jsonl",
        "other.mp4",
        "other.summary.json",
    }


def test_a_video_is_never_replaced_by_its_own_overlay(command: CommandLine, tmp_path: Path) -> None:
    source = make_video(tmp_path / "clip.mp4")
    before = source.read_bytes()
    artifact = make_artifact(tmp_path / "artifact", size=SIZE)
    line = command.refused("predict", artifact, "--source", source, "--out", tmp_path, "--overwrite")
    assert "would replace the video that is predicted" in line
    assert not (tmp_path / "clip.jsonl").exists()
    assert source.read_bytes() == before


@pytest.mark.slow
def test_memory_does_not_grow_with_the_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    psutil = pytest.importorskip("psutil")
    source = make_video(tmp_path / "clip.mp4", sound=None, count=3000)
    memory: list[float] = []
    with segkc_deploy.load(make_artifact(tmp_path / "artifact", size=SIZE), "cpu", 1) as predictor:
        infer = predictor.infer

        def watched(images: np.ndarray) -> dict[str, np.ndarray]:
            memory.append(psutil.Process().memory_info().rss / 2**20)
            return infer(images)

        monkeypatch.setattr(predictor, "infer", watched)
        (tmp_path / "out").mkdir()
        with open_video(str(source)) as video:
            assert pipeline.predict_video(predictor, video, tmp_path / "out", pipeline.VideoOptions()).frames == 3000
    # Far below what 2,000 frames of 9 KiB and their masks would take if they stayed.
    assert memory[-1] - memory[1000] < 10


def test_ctrl_c_closes_complete_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_video(tmp_path / "clip.mp4", count=40)
    with segkc_deploy.load(make_artifact(tmp_path / "artifact", size=SIZE), "cpu") as predictor:
        infer = predictor.infer
        calls: list[int] = []

        def interrupted(images: np.ndarray) -> dict[str, np.ndarray]:
            calls.append(len(images))
            if len(calls) == 5:
                os.kill(os.getpid(), signal.SIGINT)
            return infer(images)

        monkeypatch.setattr(predictor, "infer", interrupted)
        (tmp_path / "out").mkdir()
        with open_video(str(source)) as video:
            result = pipeline.predict_video(predictor, video, tmp_path / "out", pipeline.VideoOptions())
    assert result.interrupted
    assert result.frames == 5
    assert len(lines_of(tmp_path / "out/clip.jsonl")) == 5
    assert len(frames_of(tmp_path / "out/clip.mp4")) == 5


def test_ctrl_c_during_a_file_is_no_success(
    command: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, infer = make_video(tmp_path / "clip.mp4", None), Predictor.infer

    def interrupted(predictor: Predictor, images: np.ndarray) -> dict[str, np.ndarray]:
        os.kill(os.getpid(), signal.SIGINT)
        monkeypatch.setattr(Predictor, "infer", infer)
        return infer(predictor, images)

    monkeypatch.setattr(Predictor, "infer", interrupted)
    artifact = make_artifact(tmp_path / "artifact", size=SIZE)
    finished = command("predict", artifact, "--source", source, "--out", tmp_path / "out", "--streams", 1)
    assert finished.code == 130
    assert "interrupted after 1 frames predicted" in finished.out


def test_what_is_not_pictures_is_said_as_it_is(command: CommandLine, tmp_path: Path) -> None:
    source, artifact = tmp_path / "clip.mp4", make_artifact(tmp_path / "artifact", size=SIZE)
    arguments = ("predict", artifact, "--source", source, "--out", tmp_path / "out")
    with av.open(str(source), "w") as container:
        audio = container.add_stream("aac", rate=48000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 1024), np.int16), format="s16", layout="stereo")
        samples.rate, samples.pts = 48000, 0
        container.mux([*audio.encode(samples), *audio.encode(None)])
    assert "clip.mp4: holds no pictures, only sound" in command.refused(*arguments)
    make_video(source)
    source.write_bytes(source.read_bytes().replace(b"avc1", b"zzzz").replace(b"mp4a", b"zzzz"))
    assert "clip.mp4: its pictures are in a format that FFmpeg does not know" in command.refused(*arguments)
    assert not (tmp_path / "out").exists()


def test_a_video_without_a_single_picture_leaves_no_empty_files(command: CommandLine, tmp_path: Path) -> None:
    source, artifact = make_video(tmp_path / "clip.mp4", None), make_artifact(tmp_path / "artifact", size=SIZE)
    content = bytearray(source.read_bytes())
    begin, end = content.index(b"mdat") + 4, content.index(b"moov") - 4
    content[begin:end] = bytes(end - begin)
    source.write_bytes(content)
    line = command.refused("predict", artifact, "--source", source, "--out", tmp_path / "out")
    assert "clip.mp4: " in line
    assert list((tmp_path / "out").iterdir()) == []


def test_a_cover_is_not_the_video() -> None:
    """Some files have it as their first stream; PyAV cannot write one."""
    picture = SimpleNamespace(disposition=av.stream.Disposition.attached_pic, codec_context=object())
    film = SimpleNamespace(disposition=av.stream.Disposition.default, codec_context=object())
    for best in (picture, film, None):
        streams = SimpleNamespace(video=(picture, film), audio=(), best=lambda kind, best=best: best)
        assert source._pictures(SimpleNamespace(streams=streams), "clip.mp4") is film
    streams = SimpleNamespace(video=(picture,), audio=(object(),), best=lambda kind: picture)
    with pytest.raises(DataError, match="holds no pictures, only sound"):
        source._pictures(SimpleNamespace(streams=streams), "clip.mp4")
    streams = SimpleNamespace(video=(), audio=(), best=lambda kind: None)
    with pytest.raises(DataError, match="holds no pictures and no sound"):
        source._pictures(SimpleNamespace(streams=streams), "clip.mp4")


@pytest.mark.parametrize("suffix", ["3gp", "flv", "m2ts", "mts", "mxf", "ogv", "vob"])
def test_files_of_cameras_are_videos(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"clip.{suffix.upper()}"
    codec = {"ogv": "ffv1", "mxf": "mpeg2video", "vob": "mpeg2video"}.get(suffix, "libx264")
    kind = {"m2ts": "mpegts", "mts": "mpegts", "ogv": "matroska"}.get(suffix, suffix)
    with av.open(str(source), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((*SIZE, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    assert names_video(str(source))
    assert len(frames_of(source)) == 5


def test_what_names_a_video() -> None:
    videos = ("-", "camera", "camera:1", "0", "rtsp://camera/1", "https://host/live.m3u8", "a/b.MP4")
    assert all(map(names_video, videos))
    assert not any(map(names_video, ("photos", "a.jpg", "photos/*.png", "cameras")))
