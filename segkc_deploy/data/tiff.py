"""TIFF files that Pillow and OpenCV misread or refuse: planar ones, more bands, signed and floating-point values."""

import io
import logging
import math
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile

from segkc_deploy.data.pixel_limit import require_within_limit
from segkc_deploy.errors import DataError, UnreadableFileError

#: Everything that tifffile and its codecs raise for a damaged file.
TIFFFILE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,  # of a codec that newer versions of Python bring
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6

#: Compression tags of JPEG in its three forms, JPEG 2000, lossy WebP and JPEG XL: they change class ids.
_LOSSY = frozenset({6, 7, 33003, 33005, 34712, 34892, 50001, 50002, 52546})
#: Of these and LERC those that Pillow's libtiff decodes, where at all, on some systems alone.
_BY_IMAGECODECS = (_LOSSY | {34887}) - {6, 7}
_MOST_BANDS = 64
#: What GDAL notes of a band in the tag `GDAL_METADATA`: its number from 0, and its color.
_COLOR_OF_BAND = re.compile(r'<Item name="COLORINTERP" sample="(\d+)"[^>]*>(\w+)</Item>')
_GDAL_METADATA = 42112

#: Tiles pad an image to whole ones, and a decoder takes memory and time for all of these pixels.
_MOST_PADDING = 4096 * 4096

# A damaged file becomes a DataError that names it; tifffile would also log its own lines, which do not.
logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True)
class TiffHeader:
    """What the first page of a TIFF file says about itself.

    `kind` is NumPy's: `u` unsigned, `i` signed, `f` floating point. `planar` files store band after band.
    `orientation` is the EXIF value, 1 to 8. `by_imagecodecs` files have a compression that Pillow may lack.
    `padded` is how many pixels the tiles or strips hold, beyond the image's edges too. `rgb` are the bands that GDAL
    has marked as red, green and blue, the first three where it has not.
    """

    size: tuple[int, int]
    bands: int
    bits: int
    kind: str
    planar: bool
    photometric: int
    orientation: int
    lossy: bool
    by_imagecodecs: bool = False
    padded: int = 0
    rgb: tuple[int, int, int] = (0, 1, 2)


def is_tiff(encoded: bytes) -> bool:
    """Return whether the bytes begin as TIFF or BigTIFF files do."""
    return encoded.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))


def read_header(encoded: bytes, path: Path | str, what: Literal["image", "mask"]) -> TiffHeader:
    """Return the header of a TIFF file.

    Raises:
        UnreadableFileError: it is damaged, or has tiles far larger than the image.
        DataError: the image is larger than the pixel limit.
    """
    try:
        with tifffile.TiffFile(io.BytesIO(encoded)) as file:
            header = _header_of(file)
    except TIFFFILE_ERRORS as error:
        raise UnreadableFileError(
            f"{path}: not a readable {what}: its TIFF header is damaged ({_in_one_line(error)})"
        ) from None
    if 0 in header.size:
        raise UnreadableFileError(f"{path}: not a readable {what}: its header names no pixels")
    require_within_limit(path, header.size)
    height, width = header.size
    if header.padded > 4 * height * width + _MOST_PADDING:
        raise UnreadableFileError(
            f"{path}: not a readable {what}: it has {width}x{height} pixels, and its tiles have {header.padded};"
            " save it with smaller tiles"
        )
    if header.bands > _MOST_BANDS:
        raise UnreadableFileError(f"{path}: not a readable {what}: its header names {header.bands} bands")
    return header


def read_values(encoded: bytes, path: Path | str, what: Literal["image", "mask"]) -> np.ndarray:
    """Return the values of the first page as stored, (H, W, bands), with no rotation applied.

    Call `read_header` first, which checks the size.

    Raises:
        UnreadableFileError: the file is damaged or cut short.
        DataError: its compression needs the package `imagecodecs`.
    """
    try:
        with tifffile.TiffFile(io.BytesIO(encoded)) as file:
            page = _first_page(file)
            ends = (start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=True))
            if max(ends, default=0) > len(encoded):
                raise UnreadableFileError(f"{path}: not a readable {what}: its last bytes are missing")
            header = _header_of(file)
            values = page.asarray()
    except TIFFFILE_ERRORS as error:
        text = _in_one_line(error)
        if "imagecodecs" in text or isinstance(error, ImportError):
            raise DataError(
                f'{path}: its TIFF compression needs `pip install "segkc-deploy[tiff]"`, or save it uncompressed'
            ) from None
        raise UnreadableFileError(f"{path}: not a readable {what}: {text}") from None
    height, width = header.size
    shape = (header.bands, height, width) if header.planar else (height, width, header.bands)
    if values.size != np.prod(shape):
        raise UnreadableFileError(f"{path}: not a readable {what}: its header contradicts its data")
    values = values.reshape(shape)
    return np.moveaxis(values, 0, 2) if header.planar else values


def is_stack(encoded: bytes) -> bool:
    """Return whether the second page is as large as the first, and neither a copy of it nor its transparency."""
    try:
        with tifffile.TiffFile(io.BytesIO(encoded)) as file:
            first, second = _first_page(file), file.pages[1]
            reduced_or_mask = int(getattr(second, "subfiletype", 0)) & 0b101
            return not reduced_or_mask and second.shape == first.shape
    except TIFFFILE_ERRORS:  # there is one page, or the others are damaged
        return False


def stored_header(path: Path) -> TiffHeader | None:
    """Return the header of a TIFF file, of which nothing else is read; None where it is damaged."""
    try:
        with tifffile.TiffFile(path) as file:
            return _header_of(file)
    except TIFFFILE_ERRORS:
        return None


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return (H, W, …) pixels as a viewer shows them that follows the EXIF `orientation` (1 to 8)."""
    if orientation in {5, 6, 7, 8}:
        pixels = pixels.swapaxes(0, 1)
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _first_page(file: tifffile.TiffFile) -> tifffile.TiffPage:
    page = file.pages[0]
    if not isinstance(page, tifffile.TiffPage):
        raise ValueError("no image")
    return page


def _header_of(file: tifffile.TiffFile) -> TiffHeader:
    page = _first_page(file)
    if page.dtype is None:
        raise ValueError("bits or sample format that no array has")
    tag = page.tags.get(274)
    orientation = tag.value if tag is not None else 1
    return TiffHeader(
        size=(int(page.imagelength), int(page.imagewidth)),
        bands=int(page.samplesperpixel),
        bits=int(page.bitspersample),
        kind=page.dtype.kind if page.dtype.kind != "b" else "u",
        planar=int(page.planarconfig) == 2 and int(page.samplesperpixel) > 1,
        photometric=int(page.photometric),
        orientation=orientation if orientation in range(1, 9) else 1,
        lossy=int(page.compression) in _LOSSY,
        by_imagecodecs=int(page.compression) in _BY_IMAGECODECS,
        padded=_padded_pixels(page),
        rgb=_rgb_bands(page),
    )


def _rgb_bands(page: tifffile.TiffPage) -> tuple[int, int, int]:
    tag = page.tags.get(_GDAL_METADATA)
    marked = {color: int(band) for band, color in _COLOR_OF_BAND.findall(str(tag.value) if tag is not None else "")}
    red, green, blue = (marked.get(color, page.samplesperpixel) for color in ("Red", "Green", "Blue"))
    return (red, green, blue) if max(red, green, blue) < page.samplesperpixel else (0, 1, 2)


def _padded_pixels(page: tifffile.TiffPage) -> int:
    """Return how many pixels the tiles hold, or the strips, which end with the image."""
    size = (int(page.imagedepth), int(page.imagelength), int(page.imagewidth))
    if not page.is_tiled:
        return math.prod(size)
    tile = (int(page.tiledepth), int(page.tilelength), int(page.tilewidth))
    return math.prod(-(-side // one) * one for side, one in zip(size, tile, strict=True))


def _in_one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
