"""Masks of 1, 2 and 4 bits, with white as zero, and in several pages: ids as they are stored, or the true reason."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from segkc_deploy.data.mask_files import raw_mask
from segkc_deploy.errors import DataError

IDS = np.resize(np.array([0, 1, 2], np.uint8), (11, 13))


def _packed_rows(values: np.ndarray, bits: int) -> list[bytes]:
    unpacked = np.unpackbits(values[..., None], axis=2)[..., 8 - bits :].reshape(len(values), -1)
    return [row.tobytes() for row in np.packbits(unpacked, axis=1)]


def _gray_png(path: Path, values: np.ndarray, bits: int) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = values.shape
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    rows = b"".join(b"\0" + row for row in _packed_rows(values, bits))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def _gray_tiff(path: Path, values: np.ndarray, bits: int) -> None:
    height, width = values.shape
    data = b"".join(_packed_rows(values, bits))
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<I", 8 + len(data))
    path.write_bytes(head + data + struct.pack("<H", len(tags)) + entries + bytes(4))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("write", [_gray_png, _gray_tiff])
def test_gray_files_of_few_bits_hold_ids(tmp_path: Path, write, bits: int) -> None:
    """Pillow multiplies them, so that id 3 of two bits would be 255 and ignored without a word."""
    values = np.resize(np.arange(2**bits, dtype=np.uint8), (11, 13))
    write(tmp_path / "a", values, bits)
    np.testing.assert_array_equal(raw_mask(tmp_path / "a"), values)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_files_of_few_bits_hold_indices(tmp_path: Path, bits: int) -> None:
    values = np.minimum(IDS, 2**bits - 1)
    image = Image.fromarray(values).convert("P")
    image.putdata(values.ravel().tolist())
    image.putpalette([channel for index in range(2**bits) for channel in (index, 64, 128)])
    image.save(tmp_path / "a.png", transparency=0)
    assert (tmp_path / "a.png").read_bytes()[24] == bits
    np.testing.assert_array_equal(raw_mask(tmp_path / "a.png"), values)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_ids_where_zero_is_white_are_those_that_are_stored(tmp_path: Path, dtype: type) -> None:
    tifffile.imwrite(tmp_path / "a.tif", IDS.astype(dtype), photometric="miniswhite")
    np.testing.assert_array_equal(raw_mask(tmp_path / "a.tif"), IDS)


def test_one_bit_where_zero_is_white_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", IDS > 0, photometric="miniswhite")
    with pytest.raises(DataError, match="in which 0 is white: programs disagree"):
        raw_mask(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", IDS > 0, photometric="minisblack")
    np.testing.assert_array_equal(raw_mask(tmp_path / "a.tif"), IDS > 0)


def test_a_stack_of_pages_is_refused_and_a_pyramid_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.stack([IDS == 0, IDS == 1, IDS == 2]).astype(np.uint8), photometric="minisblack")
    with pytest.raises(DataError, match="several pages of one size, where one mask is expected"):
        raw_mask(path)
    with tifffile.TiffWriter(path) as file:
        file.write(IDS)
        file.write(IDS[::2, ::2], subfiletype=1)
    np.testing.assert_array_equal(raw_mask(path), IDS)
    with tifffile.TiffWriter(path) as file:
        file.write(IDS)
        file.write(IDS >= 0, subfiletype=4, photometric=4)  # a mask of transparent pixels, as GDAL writes it
    np.testing.assert_array_equal(raw_mask(path), IDS)
