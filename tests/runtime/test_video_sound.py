"""The sound of a video: which file holds it, and that it never keeps the overlay from being written."""

from pathlib import Path

import pytest
from command_line import CommandLine
from test_video import COUNT, SIZE, frames_of, make_video
from tiny_artifact import make_artifact

av = pytest.importorskip("av")


def sound_of(path: Path) -> tuple[str, int] | None:
    """Return the codec of a file's sound, and how many pieces of it can be decoded."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return None
        return container.streams.audio[0].codec_context.codec.canonical_name, sum(1 for _ in container.decode(audio=0))


@pytest.mark.parametrize(
    ("name", "codec", "written"),
    [
        ("clip.ts", "aac", "clip.mkv"),  # has a header in each packet and none in front
        ("clip.mp4", "aac", "clip.mp4"),
        ("clip.mp4", "libmp3lame", "clip.mp4"),
        ("clip.ts", "ac3", "clip.mkv"),
        ("clip.mkv", "eac3", "clip.mkv"),
        ("clip.avi", "pcm_s16le", "clip.mkv"),
    ],
)
def test_sound_is_copied_into_a_file_that_holds_it(
    command: CommandLine, tmp_path: Path, name: str, codec: str, written: str
) -> None:
    source, out = make_video(tmp_path / name, codec), tmp_path / "out"
    finished = command("predict", make_artifact(tmp_path / "artifact", size=SIZE), "--source", source, "--out", out)
    assert finished.code == 0, finished.err
    assert len(frames_of(out / written)) == COUNT
    given, copied = sound_of(source), sound_of(out / written)
    assert given is not None and given[1] > 10
    assert copied is not None and copied[0] == given[0]
    assert given[1] - copied[1] in (0, 1)  # the encoder's run-up, before time zero, is not copied


@pytest.mark.parametrize(("name", "codec"), [("clip.mov", "pcm_alaw"), ("clip.avi", "adpcm_ms")])
def test_sound_that_no_file_holds_is_left_out_and_said_so(
    command: CommandLine, tmp_path: Path, name: str, codec: str
) -> None:
    source, out = make_video(tmp_path / name, codec), tmp_path / "out"
    artifact = make_artifact(tmp_path / "artifact", size=SIZE)
    finished = command("predict", artifact, "--source", source, "--out", out)
    assert finished.code == 0, finished.err
    assert finished.err == f"{source}: neither MP4 nor Matroska holds its sound ({codec}); the overlay has none\n"
    assert sound_of(out / "clip.mp4") is None
    assert len(frames_of(out / "clip.mp4")) == COUNT
    assert command("predict", artifact, "--source", source, "--out", out, "--no-overlay", "--overwrite").err == ""


def test_sound_of_an_unknown_codec_is_left_out(command: CommandLine, tmp_path: Path) -> None:
    source = make_video(tmp_path / "clip.mov", "ac3")
    source.write_bytes(source.read_bytes().replace(b"ac-3", b"zzzz"))
    artifact = make_artifact(tmp_path / "artifact", size=SIZE)
    finished = command("predict", artifact, "--source", source, "--out", tmp_path / "out")
    assert finished.code == 0, finished.err
    assert "holds its sound (an unknown codec)" in finished.err
    assert len(frames_of(tmp_path / "out/clip.mp4")) == COUNT
