"""Times of recordings that begin late, were joined or started again; and pixels that are not square."""

import struct
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import CommandLine
from test_video import COUNT, SIZE, frames_of, lines_of, make_video
from tiny_artifact import make_artifact

from segkc_deploy.video.running_time import RunningTime

av = pytest.importorskip("av")


def predict(command: CommandLine, tmp_path: Path, source: Path) -> None:
    artifact = make_artifact(tmp_path / "artifact", size=SIZE)
    finished = command("predict", artifact, "--source", source, "--out", tmp_path / "out")
    assert finished.code == 0, finished.err


def sound_times(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(piece.pts * piece.time_base) for piece in container.decode(audio=0)]


def test_the_overlay_of_a_recording_that_starts_late_begins_at_zero(command: CommandLine, tmp_path: Path) -> None:
    source = make_video(tmp_path / "late.ts", "mp2", start=36000)
    predict(command, tmp_path, source)
    given = [frame.seconds for frame in frames_of(source)]
    assert given[0] == pytest.approx(36000, abs=0.1)
    assert [line["seconds"] for line in lines_of(tmp_path / "out/late.jsonl")] == pytest.approx(given, abs=1e-5)
    written = [frame.seconds for frame in frames_of(tmp_path / "out/late.mkv")]
    assert 0 <= written[0] < 0.1
    assert np.diff(written) == pytest.approx(np.diff(given), abs=0.0015)
    before = sound_times(source)[0] - given[0]
    assert sound_times(tmp_path / "out/late.mkv")[0] - written[0] == pytest.approx(before, abs=0.002)


@pytest.mark.parametrize("starts", [(0, 0, 0), (36000, 36000), (36000, 0), (5, 2)])
def test_the_times_of_joined_recordings_run_on(command: CommandLine, tmp_path: Path, starts: tuple[int, ...]) -> None:
    parts = [make_video(tmp_path / f"part{index}.ts", "mp2", start=start) for index, start in enumerate(starts)]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    predict(command, tmp_path, joined)
    alone = [frame.seconds for frame in frames_of(parts[0])]
    seconds = [line["seconds"] for line in lines_of(tmp_path / "out/joined.jsonl")]
    assert len(seconds) == len(starts) * COUNT
    for part in range(len(starts)):
        times = np.array(seconds[part * COUNT : (part + 1) * COUNT])
        assert times - times[0] == pytest.approx(np.array(alone) - alone[0], abs=1e-5)
    assert min(np.diff(seconds)) > 0.02
    assert max(np.diff(seconds)) < 0.2
    written = tmp_path / "out/joined.mkv"
    assert [frame.seconds for frame in frames_of(written)] == pytest.approx(np.array(seconds) - seconds[0], abs=0.2)
    sound = sound_times(written)
    assert sound == sorted(sound)
    # The sound of each part is shorter than its pictures, and goes with them.
    begin, length = seconds[-COUNT] - seconds[0], sound_times(parts[0])[-1] - sound_times(parts[0])[0]
    assert sound[-1] - begin == pytest.approx(length, abs=0.15)


def test_pictures_that_come_out_of_order_are_no_new_part(tmp_path: Path) -> None:
    source = tmp_path / "clip.avi"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "3"})
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        rng = np.random.default_rng(0)
        for _ in range(40):
            pixels = rng.integers(0, 255, (*SIZE, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    seconds = [frame.seconds for frame in frames_of(source)]
    assert len(seconds) == 40
    assert seconds == sorted(set(seconds))
    assert seconds[-1] - seconds[0] < 40 / 25 + 0.2


@pytest.mark.parametrize("turned", [False, True])
def test_pixels_that_are_not_square_stay_so(command: CommandLine, tmp_path: Path, turned: bool) -> None:
    source = tmp_path / "clip.mp4"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((*SIZE, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    if turned:
        content = bytearray(source.read_bytes())
        matrix = content.index(b"tkhd") + 44  # the 3 × 3 matrix that turns by a quarter
        content[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
        source.write_bytes(content)
    predict(command, tmp_path, source)
    with av.open(str(tmp_path / "out/clip.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.height, stream.width) == (SIZE[::-1] if turned else SIZE)
        assert stream.sample_aspect_ratio == (Fraction(3, 4) if turned else Fraction(4, 3))


def test_packets_without_a_time_are_left_as_they_are() -> None:
    """Damaged files have them, of the sound too."""
    stream = SimpleNamespace()
    packet = SimpleNamespace(stream=stream, stream_index=0, time_base=Fraction(1, 90000), pts=None, dts=None)
    RunningTime(stream, Fraction(25), overflows=True).move(packet)
    assert (packet.pts, packet.dts) == (None, None)


@pytest.mark.parametrize("rate", [5, 12, 25])
def test_pictures_that_are_stored_in_another_order_keep_their_times(tmp_path: Path, rate: int) -> None:
    """The first packets of Matroska have no time of decoding, and later ones have one that is smaller than theirs."""
    path = tmp_path / "reordered.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"x264-params": "bframes=8:b-adapt=0"})
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for place in range(30):
            pixels = np.full((*SIZE, 3), 4 * place, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    seconds = [frame.seconds for frame in frames_of(path)]
    assert seconds == pytest.approx([place / rate for place in range(30)], abs=0.0015)
