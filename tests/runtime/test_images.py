"""Every kind of image file comes out as the RGB pixels that a viewer shows, or as one line that names the file."""

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from data_helpers import blocks
from PIL import Image

from segkc_deploy.data import png
from segkc_deploy.data.images import read_image
from segkc_deploy.errors import DataError

LOSSLESS = [("a.png", {}), ("a.bmp", {}), ("a.tif", {}), ("a.tiff", {"compression": "tiff_lzw"})]
LOSSLESS.append(("a.webp", {"lossless": True, "exact": True}))


def _save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize(("name", "options"), LOSSLESS)
def test_lossless_formats_are_exact(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    pixels = blocks(1)
    image = read_image(_save(tmp_path / name, Image.fromarray(pixels), **options))
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.writeable
    np.testing.assert_array_equal(image, pixels)


def test_jpeg_is_rgb_and_near_the_original(tmp_path: Path) -> None:
    pixels = blocks(2)
    image = read_image(_save(tmp_path / "a.jpg", Image.fromarray(pixels), quality=98, subsampling=0))
    assert np.abs(image.astype(int) - pixels).max() <= 6


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_values_are_divided_by_257_and_rounded(tmp_path: Path, suffix: str, channels: int) -> None:
    values = np.random.default_rng(3).integers(0, 65536, (64, 64, channels), dtype=np.uint16)
    values.flat[:4] = (0, 65535, 128, 129)
    path = tmp_path / f"a{suffix}"
    assert cv2.imwrite(str(path), values)
    expected = np.floor(values[..., ::-1].astype(np.float64) / 257 + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(read_image(path), np.broadcast_to(expected, (64, 64, 3)))


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff"])
def test_gray_palette_and_one_bit(tmp_path: Path, name: str) -> None:
    original = Image.fromarray(blocks(4))
    for mode in ("L", "P", "1"):
        converted = original.convert(mode)
        image = read_image(_save(tmp_path / name, converted))
        np.testing.assert_array_equal(image, np.asarray(converted.convert("RGB")), err_msg=mode)


def test_a_transparent_palette_color_stays_as_stored(tmp_path: Path) -> None:
    palette = Image.fromarray(blocks(5)).quantize(8)
    expected = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(read_image(_save(tmp_path / "a.png", palette, transparency=3)), expected)


@pytest.mark.parametrize(("name", "options"), [item for item in LOSSLESS if item[0] != "a.bmp"])
def test_alpha_is_dropped_and_the_color_under_it_kept(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    pixels = blocks(6, channels=4)
    pixels[:8, :, 3] = 0
    np.testing.assert_array_equal(
        read_image(_save(tmp_path / name, Image.fromarray(pixels), **options)), pixels[..., :3]
    )


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bit_alpha_is_dropped_and_the_color_under_it_kept(tmp_path: Path, suffix: str) -> None:
    values = blocks(6, channels=4).astype(np.uint16) * 257
    values[:8, :, 3] = 0
    path = tmp_path / f"a{suffix}"
    assert cv2.imwrite(str(path), values)
    np.testing.assert_array_equal(read_image(path), (values[..., 2::-1] // 257).astype(np.uint8))


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tiff"])
@pytest.mark.parametrize(
    ("orientation", "turned"),
    [(2, np.fliplr), (3, lambda a: np.rot90(a, 2)), (6, lambda a: np.rot90(a, -1)), (8, lambda a: np.rot90(a, 1))],
)
def test_exif_rotation_is_applied(tmp_path: Path, name: str, orientation: int, turned: Any) -> None:
    pixels = blocks(7)
    exif = Image.Exif()
    exif[0x112] = orientation
    options = {"a.jpg": {"quality": 98, "subsampling": 0}, "a.webp": {"lossless": True}}.get(name, {})
    image = read_image(_save(tmp_path / name, Image.fromarray(pixels), exif=exif, **options))
    assert image.flags.c_contiguous
    assert image.shape == turned(pixels).shape
    assert np.abs(image.astype(int) - turned(pixels)).max() <= (6 if name == "a.jpg" else 0)


def test_cmyk_jpeg_has_the_colors_of_its_conversion(tmp_path: Path) -> None:
    pixels = blocks(8)
    cmyk = Image.fromarray(pixels).convert("CMYK")
    image = read_image(_save(tmp_path / "a.jpg", cmyk, quality=98))
    assert np.abs(image.astype(int) - pixels).mean() < 2


def test_the_content_tells_the_format_not_the_name(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(blocks(9)).save(buffer, "PNG")
    path = tmp_path / "a.jpg"
    path.write_bytes(buffer.getvalue())
    np.testing.assert_array_equal(read_image(path), blocks(9))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own words about a cut TIFF
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
@pytest.mark.parametrize(
    ("name", "options"), [*LOSSLESS, ("a.jpg", {}), ("b.jpg", {"progressive": True}), ("c.jpg", {"quality": 100})]
)
def test_a_file_cut_short_is_named(tmp_path: Path, name: str, options: dict[str, Any], share: float) -> None:
    path = _save(tmp_path / name, Image.fromarray(blocks(10, 256, 256)), **options)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: not a readable image: ")
    assert "\n" not in str(caught.value)


def test_a_chunk_longer_than_its_file_is_refused_before_decoding(tmp_path: Path) -> None:
    """OpenCV allocates what a PNG's chunk is said to hold."""
    path = _save(tmp_path / "a.png", Image.fromarray(blocks(10)))
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") - 4] = 0x2D  # 755 MB
    path.write_bytes(content)
    with pytest.raises(DataError, match="its last bytes are missing or damaged"):
        read_image(path)
    content = path.read_bytes()
    assert png.ends_within_a_chunk(content)
    assert not png.ends_within_a_chunk(_save(tmp_path / "b.png", Image.fromarray(blocks(10))).read_bytes() + b"more")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a readable image: the file is empty"),
        (
            b"not an image",
            "not a readable image: not a JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF file, or its header is damaged",
        ),
        (None, "no such image"),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "a.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert str(caught.value) == f"{path}: {reason}"


@pytest.mark.parametrize("compression", ["zstd", "lzma"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_tiffs_with_compressions_that_opencv_lacks(
    tmp_path: Path, compression: str, kind: type[np.unsignedinteger]
) -> None:
    pytest.importorskip("imagecodecs")
    values = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(kind) * (257 if kind is np.uint16 else 1)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", compression=compression)
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image, values // 257 if kind is np.uint16 else values)


def test_a_codec_that_is_not_installed_costs_one_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.zeros((3, 20, 30), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", planarconfig="separate")

    def missing(self: object) -> np.ndarray:
        raise ModuleNotFoundError("No module named 'compression'")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", missing)
    with pytest.raises(DataError, match=r'a\.tif: its TIFF compression needs `pip install "segkc-deploy\[tiff\]"'):
        read_image(tmp_path / "a.tif")


def test_floating_point_tiff_is_refused_with_the_fix(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    assert cv2.imwrite(str(path), np.random.default_rng(0).random((16, 16), np.float32))
    with pytest.raises(DataError, match="32-bit floating-point TIFF; save it with 8 or 16 bits a channel"):
        read_image(path)
