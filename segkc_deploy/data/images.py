"""Read image files into RGB arrays, the same way in training, evaluation and prediction."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from segkc_deploy.data import png
from segkc_deploy.data.exif import PILLOW_ERRORS, upright
from segkc_deploy.data.pixel_limit import require_within_limit
from segkc_deploy.errors import DataError, UnreadableFileError
from segkc_deploy.pixel_format import RGB, PixelFormat

if TYPE_CHECKING:
    from segkc_deploy.data.tiff import TiffHeader

#: Files with other suffixes are not taken for images. HEIC is named here so that such a file is reported.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif"}
)

#: Lossless formats alone: JPEG changes class ids.
MASK_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".bmp", ".gif"})

#: A format as Pillow names it, and (height, width) in pixels.
Header = tuple[str, tuple[int, int]]

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "AVIF", "HEIF")
#: What libjpeg decodes at half the size; a camera's MPO file is a JPEG with further pictures behind it.
_HALVED = ("JPEG", "MPO")
#: Pillow takes a header apart in Python, a few microseconds a read. Real files need tens to hundreds of reads; millions
#: of empty chunks or markers before a tiny picture would take minutes.
_MOST_READS = 20_000
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")

# Our own limit holds for all formats (`pixel_limit`); Pillow's would refuse a TIFF of a size that a JPEG may have.
Image.MAX_IMAGE_PIXELS = None

# A damaged file becomes a DataError that names it; OpenCV would print its own lines about it, which do not.
# (OpenCV 5 moved the function.)
_set_log_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
_set_log_level(0)


def read_image(path: Path, pixels: PixelFormat = RGB) -> np.ndarray:
    """Return the image as uint8 (H, W, 3) RGB, contiguous, or where `pixels` are not RGB as `decode_bands` does.

    JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF, and with the package `pillow-heif` HEIC, told apart by their content. EXIF
    rotation is applied; 16-bit values become value / 257, rounded; gray, palette and CMYK become RGB; alpha and a
    fourth band are dropped, the color under alpha stays as stored. Of an animation or a multi-page file the first
    picture is read.

    Raises:
        UnreadableFileError: the file is missing, cut short, damaged, or not such an image.
        DataError: it is larger than the pixel limit, or needs a package that is not installed.
    """
    encoded = read_bytes(path, "image")
    if pixels.is_rgb:
        return decode_image(encoded, path)
    from segkc_deploy.data.bands import decode_bands

    require_within_limit(path, read_header(encoded, path)[1])
    return decode_bands(encoded, path, pixels)


def decode_image(encoded: bytes, path: Path | str, header: Header | None = None) -> np.ndarray:
    """Return an encoded image as `read_image` does; errors name it by `path`.

    `header` is what `read_header` returned, where it was called.
    """
    from segkc_deploy.data import tiff

    if tiff.is_tiff(encoded):
        return _decode_tiff(encoded, path, tiff.read_header(encoded, path, "image"))
    file_format, size = header or _identify(encoded, path)
    require_within_limit(path, size)
    if file_format == "PNG" and png.ends_within_a_chunk(encoded):
        raise UnreadableFileError(f"{path}: not a readable image: its last bytes are missing or damaged")
    # OpenCV before version 5 ignores the EXIF data of a WebP, and reads neither GIF nor AVIF in every build.
    image = _with_opencv(encoded) if file_format in {"JPEG", "MPO", "PNG", "BMP", "DIB"} else _with_pillow(encoded)
    if image is None:
        _require_memory(size)
        raise UnreadableFileError(f"{path}: not a readable image: {_reason(encoded)}")
    return image


def has_half_size(path: Path) -> bool:
    """Return whether `read_half_size` reads an image: a JPEG with even sides. It looks at the header alone."""
    try:
        with Image.open(path, formats=_HALVED) as image:
            return image.width % 2 == image.height % 2 == 0
    except PILLOW_ERRORS:
        return False


def read_half_size(path: Path) -> np.ndarray:
    """Return a JPEG image at half its size, uint8 (H / 2, W / 2, 3) RGB, in a third of the time of `read_image`.

    The decoder leaves the higher frequencies out, which comes close to the mean of each 2 by 2 pixels.

    Raises:
        UnreadableFileError: the file is missing, cut short or damaged.
        DataError: it is larger than the pixel limit.
    """
    encoded = read_bytes(path, "image")
    require_within_limit(path, _identify(encoded, path)[1])
    image = _with_opencv(encoded, cv2.IMREAD_REDUCED_COLOR_2)
    if image is None:
        raise UnreadableFileError(f"{path}: not a readable image: {_reason(encoded)}")
    return image


def read_header(encoded: bytes, path: Path | str) -> Header:
    """Return the format and the (height, width) in pixels that an image's header states, before any EXIF rotation.

    Nothing is decoded, so an image can be refused for its size before it takes memory. Errors name it by `path`.

    Raises:
        DataError: the header is damaged, or of no format that `decode_image` reads.
    """
    from segkc_deploy.data import tiff

    if tiff.is_tiff(encoded):
        return "TIFF", tiff.read_header(encoded, path, "image").size
    return _identify(encoded, path)


def read_bytes(path: Path, what: str) -> bytes:
    """Return a file's content; raise an UnreadableFileError that calls the file `what` where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise UnreadableFileError(f"{path}: no such {what}") from None
    except (OSError, ValueError) as error:  # a path with a null byte is a ValueError
        raise UnreadableFileError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


class _TooManyReadsError(Exception):
    """A file has more parts than a real one."""


class _FewReads(io.BytesIO):
    """A file in memory that may be read from `_MOST_READS` times."""

    _left = _MOST_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise _TooManyReadsError
        return super().read(size)


def _identify(encoded: bytes, path: Path | str) -> Header:
    """Return the format and the size (height, width) that the header names."""
    if encoded[4:8] == b"ftyp" and encoded[8:12] in _HEIC_BRANDS:
        _register_heic(path)
    try:
        with Image.open(_FewReads(encoded), formats=_known_formats()) as image:
            return str(image.format), (image.height, image.width)
    except _TooManyReadsError:
        raise UnreadableFileError(f"{path}: not a readable image: its header has thousands of parts") from None
    except PILLOW_ERRORS:
        raise UnreadableFileError(f"{path}: not a readable image: {_reason(encoded)}") from None


def _register_heic(path: Path | str) -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise DataError(
            f'{path}: not a readable image: HEIC; save it as JPEG or PNG, or `pip install "segkc-deploy[heic]"`'
        ) from None
    register_heif_opener()


def _known_formats() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]  # AVIF and HEIF depend on how Pillow was built


def _decode_tiff(encoded: bytes, path: Path | str, header: "TiffHeader") -> np.ndarray:
    """Choose the library that reads this TIFF right.

    Pillow knows every color space of 8 bits; OpenCV, which multiplies 8-bit color by alpha, leaves 16 bits alone.
    Both misread or refuse files that store band after band, and bands without a color space.
    """
    from segkc_deploy.data import tiff

    if reason := _unreadable_kind(header):
        raise UnreadableFileError(f"{path}: not a readable image: {reason}")
    plain_bands = (header.photometric != tiff.MIN_IS_BLACK or header.bands == 1) and not header.by_imagecodecs
    if not header.planar and plain_bands and header.bands <= 4 and header.bits <= 8:
        image = _with_pillow(encoded)
    elif not header.planar and plain_bands and header.bands != 2 and header.bits == 16 and header.photometric != 0:
        image = _with_opencv(encoded)
        if image is None:  # it lacks compressions such as ZSTD
            image = _bands_to_rgb(tiff.read_values(encoded, path, "image"), header)
    else:
        return _bands_to_rgb(tiff.read_values(encoded, path, "image"), header)
    if image is None:
        raise UnreadableFileError(f"{path}: not a readable image: {_reason(encoded)}")
    return image


def _unreadable_kind(header: "TiffHeader") -> str | None:
    from segkc_deploy.data import tiff

    if header.kind == "f":
        return f"{header.bits}-bit floating-point TIFF; save it with 8 or 16 bits a channel"
    if header.kind != "u" or header.bits > 16:
        sign = "signed " if header.kind == "i" else ""
        return f"{header.bits}-bit {sign}TIFF; save it with 8 or 16 bits a channel, unsigned"
    if header.bands > 4:
        return (
            f"{header.bands} bands; add `bands: {header.bands}` and `bits: {header.bits}` to the data spec to use all"
        )
    if header.photometric not in {tiff.MIN_IS_WHITE, tiff.MIN_IS_BLACK, tiff.RGB} and (
        header.planar or header.bits > 8 or header.by_imagecodecs
    ):
        return f"a TIFF of {header.bits} bits in a color space other than gray and RGB; save it as RGB"
    return None


def _bands_to_rgb(values: np.ndarray, header: "TiffHeader") -> np.ndarray:
    from segkc_deploy.data import tiff

    # One band is gray, of two the second is alpha or something else, of three and four three are RGB.
    values = values[..., :1] if header.bands < 3 else values[..., header.rgb]
    if header.bits != 8:
        values = np.floor(values / (2**header.bits - 1) * 255 + 0.5).astype(np.uint8)
    if header.photometric == tiff.MIN_IS_WHITE:
        values = 255 - values
    return tiff.turned(np.broadcast_to(values, (*values.shape[:2], 3)), header.orientation)


def _with_opencv(encoded: bytes, flags: int = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) -> np.ndarray | None:
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error:
        return None
    if image is None or image.dtype not in (np.uint8, np.uint16):
        return None
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    if image.dtype == np.uint16:
        image = cv2.convertScaleAbs(image, alpha=1 / 257)
    return image


def _with_pillow(encoded: bytes) -> np.ndarray | None:
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return np.array(upright(image).convert("RGB"))
    except PILLOW_ERRORS:
        return None


def _require_memory(size: tuple[int, int]) -> None:
    """Raise a MemoryError where memory is too small to decode an image of (height, width): decoders do not say so.

    They give no image then, as for a damaged file. Beside the image, OpenCV holds rows or a copy, and BGR becomes RGB.
    """
    np.empty((3, *size, 3), np.uint8)


def _reason(encoded: bytes) -> str:
    if not encoded:
        return "the file is empty"
    if encoded.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS; fetch the files with `git lfs pull`"
    try:
        with Image.open(_FewReads(encoded), formats=_known_formats()) as image:
            image.load()
            return "its last bytes are missing or damaged"
    except _TooManyReadsError:  # of a large PNG, whose header was read before
        return "its last bytes are missing or damaged"
    except UnidentifiedImageError:
        return "not a JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF file, or its header is damaged"
    except PILLOW_ERRORS as error:
        return " ".join(str(error).split())
