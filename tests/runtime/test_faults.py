"""What goes wrong on a device: odd files, full disks, folders that cannot be written, hostile artifacts, cut videos.

Nothing may show a traceback, lose the other results or leave a file that is incomplete. A killed run is in
`test_predict_resume.py`, a changed artifact in `test_manifest.py`.
"""

import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from command_line import CommandLine
from data_helpers import blocks
from onnx import TensorProto
from PIL import Image
from test_video import make_video
from tiny_artifact import expected_mask, make_artifact, manifest_of, network

from segkc_deploy.manifest import write_manifest
from segkc_deploy.video.source import Frame, open_video

SIZE = (32, 48)
RGB = blocks(3)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(image: Image.Image, **options: object) -> bytes:
    return encoded(image, "JPEG", quality=95, **options)


def huge_png() -> bytes:
    """A PNG of a few bytes whose header promises 100,000 x 100,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header) - 4) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + encoded(picture(), "PNG")[33:]


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter to the right
    return exif


def picture() -> Image.Image:
    return Image.fromarray(RGB)


def deep() -> bytes:
    assert RGB.shape[:2] == SIZE
    done, data = cv2.imencode(".png", RGB[..., ::-1].astype(np.uint16) * 257)
    assert done
    return data.tobytes()


#: Name, content, and the (height, width) of the mask; None where the file is to be left out.
FILES: dict[str, tuple[bytes, tuple[int, int] | None]] = {
    "plain.png": (encoded(picture(), "PNG"), SIZE),
    "truncated.jpg": (jpeg(picture())[:400], None),
    "truncated.png": (encoded(picture(), "PNG")[:60], None),
    "empty.png": (b"", None),
    "text.jpg": (b"no image at all", None),
    "huge.png": (huge_png(), None),
    "1x1.png": (encoded(Image.new("RGB", (1, 1), (220, 0, 0)), "PNG"), (1, 1)),
    "1x4000.png": (encoded(Image.new("RGB", (4000, 1), (220, 0, 0)), "PNG"), (1, 4000)),
    "deep.png": (deep(), SIZE),
    "cmyk.jpg": (jpeg(picture().convert("CMYK")), SIZE),
    "palette.png": (encoded(picture().quantize(16), "PNG"), SIZE),
    "gray.png": (encoded(picture().convert("L"), "PNG"), SIZE),
    "alpha.png": (encoded(picture().convert("RGBA"), "PNG"), SIZE),
    "animated.gif": (encoded(picture(), "GIF", save_all=True, append_images=[Image.new("RGB", (48, 32))]), SIZE),
    "turned.jpg": (jpeg(picture(), exif=turned()), SIZE[::-1]),
    "jpeg-named.png": (jpeg(picture()), SIZE),
    "png-named.jpg": (encoded(picture(), "PNG"), SIZE),
}


@pytest.mark.parametrize("options", [(), ("--tile",), ("--batch", 4)], ids=["whole", "tiles", "batch"])
def test_odd_files_are_predicted_or_listed(command: CommandLine, tmp_path: Path, options: tuple[object, ...]) -> None:
    (tmp_path / "in").mkdir()
    for name, (content, _) in FILES.items():
        (tmp_path / "in" / name).write_bytes(content)
    artifact = make_artifact(tmp_path / "artifact", size=SIZE)
    finished = command("predict", artifact, "--source", tmp_path / "in", "--out", tmp_path / "out", *options)
    assert finished.code == 2
    assert "Traceback" not in finished.err
    left_out = [line for line in finished.err.splitlines() if line.startswith("left out: ")]
    expected = {name for name, (_, size) in FILES.items() if size is None}
    assert {Path(line.removeprefix("left out: ").split(": ")[0]).name for line in left_out} == expected
    assert finished.err.splitlines()[-1].startswith(f"error: {len(expected)} of {len(FILES)} images were left out")
    written = {path.name: path for path in (tmp_path / "out/masks").iterdir()}
    assert len(written) == len(FILES) - len(expected)
    for name, (_, size) in FILES.items():
        if size is not None:
            path = written.get(f"{name}.png") or written[f"{Path(name).stem}.png"]
            assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED).shape == size, name
    for name in ("plain", "deep", "alpha", "png-named"):
        mask = cv2.imread(str(written[f"{name}.png"]), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(mask, expected_mask(RGB), err_msg=name)


#: Runs the command line with files of at most `argv[1]` bytes: every write beyond fails as on a full disk.
_SMALL_FILES = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
del sys.argv[1]
from segkc_deploy.cli import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
@pytest.mark.parametrize("source", ["image.png", "clip.mp4"])
def test_a_full_disk_is_one_line_and_leaves_no_half_file(tmp_path: Path, source: str) -> None:
    size = (240, 320)
    artifact = make_artifact(tmp_path / "artifact", size=size)
    if source == "clip.mp4":
        pytest.importorskip("av")
        make_video(tmp_path / source, sound=None, count=120, size=size)
    else:
        noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        (tmp_path / source).write_bytes(encoded(Image.fromarray(noise), "PNG"))
    arguments = ("predict", artifact, "--source", tmp_path / source, "--out", tmp_path / "out")
    finished = subprocess.run(
        [sys.executable, "-c", _SMALL_FILES, "6000", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 2, finished.stderr
    *_, error = finished.stderr.splitlines()
    assert error.startswith("error: ")
    assert "out" in error
    assert "Traceback" not in finished.stderr
    assert not list((tmp_path / "out").rglob("*.png"))
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.startswith(".")]
    for line in (tmp_path / "out/clip.jsonl").read_text().splitlines()[:-1] if source == "clip.mp4" else ():
        json.loads(line)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
@pytest.mark.parametrize(
    ("source", "options", "result"),
    [("image.tif", ("--tile", "--no-overlay"), "masks/image.tif"), ("clip.mp4", (), "clip.mp4")],
)
@pytest.mark.parametrize("share", [0.3, 0.8, 1.0])
def test_a_disk_that_is_full_at_the_end_is_no_success(
    command: CommandLine, tmp_path: Path, source: str, options: tuple[str, ...], result: str, share: float
) -> None:
    """The writers of GeoTIFF and video do not say that their last bytes are missing."""
    if source == "clip.mp4":
        pytest.importorskip("av")
        make_video(tmp_path / source, sound=None, size=(48, 64))
    else:
        pytest.importorskip("rasterio")
        noise = np.random.default_rng(0).integers(0, 256, (600, 700, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / source)
    artifact = make_artifact(tmp_path / "artifact", size=(240, 320) if options else (48, 64))
    arguments = ("predict", artifact, "--source", tmp_path / source, *options, "--out")
    assert command(*arguments, tmp_path / "whole").code == 0
    limit = int(share * (tmp_path / "whole" / result).stat().st_size) - 1
    finished = subprocess.run(
        [sys.executable, "-c", _SMALL_FILES, str(limit), *map(str, arguments), tmp_path / "out"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 2, finished.stderr
    error = finished.stderr.splitlines()[-1]
    assert error.startswith(f"error: {tmp_path / 'out'}")
    assert error.endswith("; choose another --out")
    assert "left out" not in finished.stderr
    assert not [*(tmp_path / "out").glob("masks/*"), *(tmp_path / "out").glob("masks/.*")]


@pytest.mark.parametrize("source", ["image.png", "clip.mp4"])
def test_a_folder_that_cannot_be_written_is_one_line(command: CommandLine, tmp_path: Path, source: str) -> None:
    artifact = make_artifact(tmp_path / "artifact", size=SIZE)
    (tmp_path / "file").write_text("in the way")
    if source == "clip.mp4":
        pytest.importorskip("av")
        make_video(tmp_path / source, sound=None)
    else:
        (tmp_path / source).write_bytes(FILES["plain.png"][0])
    line = command.refused("predict", artifact, "--source", tmp_path / source, "--out", tmp_path / "file" / "out")
    assert "cannot be used as the output folder" in line


def external_data(location: str) -> Callable[[onnx.ModelProto], None]:
    """Move the bias into another file."""

    def change(model: onnx.ModelProto) -> None:
        bias = next(tensor for tensor in model.graph.initializer if tensor.name == "bias")
        bias.ClearField("raw_data")
        bias.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", "16")):
            bias.external_data.add(key=key, value=value)

    return change


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../secret", "link", "missing", ""])
def test_weights_outside_the_artifacts_folder_are_not_read(command: CommandLine, tmp_path: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(64))
    (tmp_path / "image.png").write_bytes(FILES["plain.png"][0])
    artifact = hostile(tmp_path / "artifact", external_data(location))
    (tmp_path / "artifact" / "link").symlink_to(tmp_path / "secret")
    line = command.refused("predict", artifact, "--source", tmp_path / "image.png", "--out", tmp_path / "out")
    assert "hostile.onnx: onnxruntime cannot load it" in line


def huge_strings(model: onnx.ModelProto) -> None:
    model.producer_name = model.graph.name = model.doc_string = "x" * 1_000_000
    model.metadata_props.add(key="k" * 100_000, value="\n" * 1_000_000)


def wrong_json(model: onnx.ModelProto) -> None:
    for key in ("names", "classes", "contract", "labels", "stride", "imgsz"):
        model.metadata_props.add(key=key, value='{"a": ' * 10_000 + "__import__('os').abort()")


@pytest.mark.parametrize("change", [huge_strings, wrong_json])
def test_metadata_in_the_graph_is_not_believed(
    command: CommandLine, tmp_path: Path, change: Callable[[onnx.ModelProto], None]
) -> None:
    """What an artifact is stands in its manifest alone."""
    (tmp_path / "image.png").write_bytes(FILES["plain.png"][0])
    artifact = hostile(tmp_path / "artifact", change)
    finished = command("predict", artifact, "--source", tmp_path / "image.png", "--out", tmp_path / "out")
    assert (finished.code, finished.err) == (0, "")
    mask = cv2.imread(str(tmp_path / "out/masks/image.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask, expected_mask(RGB))


def other_types(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Format\nDisk"


@pytest.mark.parametrize("change", [other_types, unknown_operator])
def test_a_graph_that_is_no_network_is_one_line(
    command: CommandLine, tmp_path: Path, change: Callable[[onnx.ModelProto], None]
) -> None:
    (tmp_path / "image.png").write_bytes(FILES["plain.png"][0])
    artifact = hostile(tmp_path / "artifact", change)
    line = command.refused("predict", artifact, "--source", tmp_path / "image.png", "--out", tmp_path / "out")
    assert "hostile.onnx" in line


def hostile(folder: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    """Write a changed network with a manifest that fits it."""
    folder.mkdir()
    model = network(SIZE, -1)
    change(model)
    path = folder / "hostile.onnx"
    path.write_bytes(model.SerializeToString())
    write_manifest(path, manifest_of(path, size=SIZE))
    return path


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6])
def test_a_video_cut_anywhere_is_refused_or_predicted_up_to_there(
    command: CommandLine, tmp_path: Path, name: str, share: float
) -> None:
    pytest.importorskip("av")
    source = make_video(tmp_path / name, sound=None, count=60)
    data = source.read_bytes()
    source.write_bytes(data[: int(share * len(data))])
    artifact = make_artifact(tmp_path / "artifact", size=SIZE)
    finished = command("predict", artifact, "--source", source, "--out", tmp_path / "out")
    assert "Traceback" not in finished.err
    lines = tmp_path / "out/clip.jsonl"
    frames = [json.loads(line)["frame"] for line in lines.read_text().splitlines()] if lines.exists() else []
    assert frames == [*range(len(frames))]
    if frames and name == "clip.avi":  # its duration is counted from what is there
        assert finished.code == 0
        return
    assert finished.code == 2
    assert finished.err.splitlines()[-1].startswith(f"error: {source}: ")
    assert not frames or "ends early" in finished.err


def test_a_whole_video_does_not_count_as_cut(tmp_path: Path) -> None:
    pytest.importorskip("av")
    for name in ("clip.mp4", "clip.mkv", "clip.avi", "clip.ts", "clip.mov"):
        with open_video(str(make_video(tmp_path / name, count=60))) as video:
            assert len([item for item in video.read() if isinstance(item, Frame)]) == 60
            assert video.broken is None
