"""Images as microscopes, GIS tools, phones and file servers write them: the right pixels, or the true reason."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from data_helpers import blocks, write_image
from PIL import Image, features

from segkc_deploy.data import pixel_limit
from segkc_deploy.data.headers import upright_size
from segkc_deploy.data.images import IMAGE_SUFFIXES, decode_image, read_header, read_image
from segkc_deploy.data.mask_files import raw_mask
from segkc_deploy.errors import ConfigError, DataError

RGB = blocks(11)
DEEP = RGB.astype(np.uint16) * 257


def _write(path: Path, values: np.ndarray, **options: Any) -> Path:
    tifffile.imwrite(path, values, **options)
    return path


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("bands", [3, 4])
@pytest.mark.parametrize("pixels", [RGB, DEEP], ids=["8bit", "16bit"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_bands_may_be_stored_pixel_by_pixel_or_band_by_band(
    tmp_path: Path, planar: Any, pixels: np.ndarray, bands: int, tile: Any, compression: Any, bigtiff: bool
) -> None:
    values = np.concatenate([pixels, pixels[::-1, :, :1]], axis=2)[..., :bands]
    stored = np.moveaxis(values, 2, 0) if planar == "separate" else values
    options = {"photometric": "rgb", "planarconfig": planar, "tile": tile, "compression": compression}
    path = _write(tmp_path / "a.tif", stored, bigtiff=bigtiff, **options)
    np.testing.assert_array_equal(read_image(path), RGB)


@pytest.mark.parametrize("predictor", [None, 2])
@pytest.mark.parametrize("pixels", [RGB, DEEP], ids=["8bit", "16bit"])
def test_the_default_profile_of_gis_tools(tmp_path: Path, pixels: np.ndarray, predictor: Any) -> None:
    """Band after band, tiled, LZW, and without a color space."""
    pytest.importorskip("imagecodecs")
    options: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "separate", "tile": (16, 16)}
    stored = np.moveaxis(pixels, 2, 0)
    path = _write(tmp_path / "a.tif", stored, compression="lzw", predictor=predictor, **options)
    np.testing.assert_array_equal(read_image(path), RGB)


def test_a_compression_without_its_package_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path / "a.tif", np.moveaxis(DEEP, 2, 0), photometric="rgb", planarconfig="separate")

    def asarray(page: Any) -> None:
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", asarray)
    with pytest.raises(DataError, match=r'a\.tif: .*pip install "segkc-deploy\[tiff\]"'):
        read_image(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_one_band_is_gray_and_white_may_be_zero(tmp_path: Path, dtype: Any, photometric: Any) -> None:
    gray = RGB[..., 0].astype(dtype) * (257 if dtype == np.uint16 else 1)
    shown = RGB[..., :1] if photometric == "minisblack" else 255 - RGB[..., :1]
    path = _write(tmp_path / "a.tif", gray, photometric=photometric)
    np.testing.assert_array_equal(read_image(path), np.broadcast_to(shown, RGB.shape))


def test_three_bands_without_a_color_space_are_rgb_and_of_two_the_first_is_gray(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tif", RGB, photometric="minisblack", planarconfig="contig")
    np.testing.assert_array_equal(read_image(path), RGB)
    _write(path, RGB[..., :2], photometric="minisblack", planarconfig="contig")
    np.testing.assert_array_equal(read_image(path), np.broadcast_to(RGB[..., :1], RGB.shape))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_planar_file_is_turned_like_any_other(tmp_path: Path, orientation: int) -> None:
    tag = (274, "H", 1, orientation, True)
    options: dict[str, Any] = {"photometric": "rgb", "extratags": [tag]}
    planar = _write(tmp_path / "a.tif", np.moveaxis(DEEP, 2, 0), planarconfig="separate", **options)
    contiguous = _write(tmp_path / "b.tif", RGB, **options)
    np.testing.assert_array_equal(read_image(planar), read_image(contiguous))


@pytest.mark.parametrize(
    ("values", "options", "reason"),
    [
        (np.zeros((8, 8, 7), np.uint8), {"photometric": "minisblack", "planarconfig": "contig"}, "7 bands; "),
        (np.zeros((7, 8, 8), np.uint16), {"photometric": "minisblack", "planarconfig": "separate"}, "7 bands; "),
        (np.zeros((8, 8, 3), np.float32), {"photometric": "rgb"}, "32-bit floating-point TIFF; save it with 8 or 16"),
        (np.zeros((8, 8), np.float64), {}, "64-bit floating-point TIFF; "),
        (np.zeros((8, 8), np.int16), {}, "16-bit signed TIFF; "),
        (np.zeros((8, 8), np.uint32), {}, "32-bit TIFF; "),
    ],
)
def test_what_cannot_be_an_rgb_image_gets_the_true_reason(
    tmp_path: Path, values: np.ndarray, options: dict[str, Any], reason: str
) -> None:
    path = _write(tmp_path / "a.tif", values, **options)
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: not a readable image: {reason}")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_planar_file_cut_short_is_named(tmp_path: Path, compression: Any, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 65536, (3, 64, 64), dtype=np.uint16)
    path = _write(tmp_path / "a.tif", noise, photometric="rgb", planarconfig="separate", compression=compression)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match="not a readable image"):
        read_image(path)


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES - {".heic", ".heif"}))
def test_every_suffix_can_be_written_and_read(tmp_path: Path, suffix: str) -> None:
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    file_format = {".jpe": "JPEG", ".jfif": "JPEG", ".tif": "TIFF"}.get(suffix)
    path = tmp_path / f"a{suffix}"
    Image.fromarray(RGB).save(path, file_format)
    assert np.abs(read_image(path).astype(int) - RGB).mean() < 12


def test_heic_is_named_with_two_ways_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(DataError, match=r'HEIC; save it as JPEG or PNG, or `pip install "segkc-deploy\[heic\]"`'):
        read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tif", ".gif"])
def test_one_limit_of_pixels_holds_for_every_format(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_image(tmp_path / f"a{suffix}")
    monkeypatch.setenv(pixel_limit.VARIABLE, str(32 * 48))
    assert read_image(path).shape == (32, 48, 3)
    monkeypatch.setenv(pixel_limit.VARIABLE, str(32 * 48 - 1))
    with pytest.raises(DataError, match=f"48x32 pixels, more than the limit of 1535; .* {pixel_limit.VARIABLE}"):
        read_image(path)


def test_the_limit_lets_pass_what_pillow_would_call_a_bomb() -> None:
    pixel_limit.require_within_limit("a.tif", (14_000, 13_000))


@pytest.mark.parametrize("text", ["0", "-1", "many", "1e9", str(2**30 + 1), "9" * 40])
def test_a_limit_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(pixel_limit.VARIABLE, text)
    with pytest.raises(ConfigError, match="should be a number of pixels from 1 to"):
        pixel_limit.pixel_limit()


def test_a_decompression_bomb_is_refused_before_decoding(tmp_path: Path) -> None:
    """A few bytes that claim 60,000 x 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header
    png += struct.pack(">I", zlib.crc32(b"IHDR" + header)) + bytes(4) + b"IDAT" + bytes(4)
    bmp = bytearray(cv2.imencode(".bmp", np.zeros((2, 2, 3), np.uint8))[1].tobytes())
    bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((3, 2, 2), np.uint16), photometric="rgb", planarconfig="separate")
    tiff = bytearray(buffer.getvalue())
    for tag in (256, 257):
        place = tiff.index(struct.pack("<HHI", tag, 4, 1)) if struct.pack("<HHI", tag, 4, 1) in tiff else -1
        size, form = (4, "<I") if place >= 0 else (2, "<H")
        place = place if place >= 0 else tiff.index(struct.pack("<HHI", tag, 3, 1))
        tiff[place + 8 : place + 8 + size] = struct.pack(form, 60_000)
    for name, content in (("a.png", png), ("a.bmp", bytes(bmp)), ("a.tif", bytes(tiff))):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DataError, match="60000x60000 pixels, more than the limit"):
            read_image(path)


def _with_thousands_of_parts(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("P" if kind == "GIF" else "RGB", (8, 8)).save(buffer, kind)
    content = buffer.getvalue()
    place, part = {
        "PNG": (content.find(b"IDAT") - 4, struct.pack(">I4sI", 0, b"prVt", zlib.crc32(b"prVt"))),
        "JPEG": (2, b"\xff\xe5\x00\x02"),
        "GIF": (content.find(b",\0\0\0\0"), b"!\x01\x01a\x00"),
    }[kind]
    return content[:place] + 30_000 * part + content[place:]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF"])
def test_a_header_of_thousands_of_parts_is_refused(kind: str) -> None:
    """Pillow took minutes for a header of 20 MB."""
    content = _with_thousands_of_parts(kind)
    for read in (read_header, decode_image):
        with pytest.raises(DataError, match="its header has thousands of parts"):
            read(content, "a")


def _tiff_of_one_tile(side: int, tile: int, bits: int) -> bytes:
    """A TIFF of `side` x `side` black RGB pixels in one tile, which zlib makes small."""
    data = zlib.compress(bytes(3 * tile * tile * bits // 8), 1)
    tags = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 3, 134), (259, 3, 1, 8), (262, 3, 1, 2), (277, 3, 1, 3)]
    tags += [(322, 4, 1, tile), (323, 4, 1, tile), (324, 4, 1, 140), (325, 4, 1, len(data))]
    header = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return header + bytes(4) + struct.pack("<3H", bits, bits, bits) + data


@pytest.mark.parametrize("bits", [8, 16])
def test_tiles_far_larger_than_their_image_are_refused_before_decoding(bits: int) -> None:
    assert decode_image(_tiff_of_one_tile(16, 256, bits), "a.tif").shape == (16, 16, 3)
    content = _tiff_of_one_tile(16, 4608, bits)
    for read in (read_header, decode_image):
        with pytest.raises(DataError, match="16x16 pixels, and its tiles have 21233664; save it with smaller tiles"):
            read(content, "a.tif")


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_a_damaged_avif_is_named(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.avif")
    content = bytearray((tmp_path / "a.avif").read_bytes())
    place = content.index(b"mdat") + 4
    content[place : place + 400] = bytes(min(400, len(content) - place))
    (tmp_path / "a.avif").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.avif: not a readable image: Failed to decode"):
        read_image(tmp_path / "a.avif")


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_of_a_turned_tiff_is_that_of_its_pixels(tmp_path: Path, orientation: int) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RGB, extratags=[(274, "H", 1, orientation, True)])
    assert upright_size(tmp_path / "a.tif") == read_image(tmp_path / "a.tif").shape[:2]


@pytest.mark.parametrize("compression", ["jpeg2000", "lerc"])
def test_compressions_that_pillow_lacks(tmp_path: Path, compression: str) -> None:
    pytest.importorskip("imagecodecs")
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", compression=compression)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), RGB)


def test_masks_in_a_compression_that_pillow_lacks(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    tifffile.imwrite(tmp_path / "a.tif", RGB[..., 0], compression="lerc")
    np.testing.assert_array_equal(raw_mask(tmp_path / "a.tif"), RGB[..., 0])


def test_a_pointer_of_git_lfs_is_recognized(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(DataError, match="a pointer of Git LFS; fetch the files with `git lfs pull`"):
        read_image(tmp_path / "a.jpg")
