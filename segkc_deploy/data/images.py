"""Read image files into RGB arrays, the same way in training, evaluation and prediction."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from segkc_deploy.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})

#: Everything that Pillow raises for a damaged file.
PILLOW_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)

# A damaged file becomes a DataError that names it; OpenCV would print its own lines about it, which do not.
# (OpenCV 5 moved the function.)
_set_log_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
_set_log_level(0)


def read_image(path: Path) -> np.ndarray:
    """Return the image as uint8 (H, W, 3) RGB, contiguous.

    JPEG, PNG, WebP, BMP and TIFF, told apart by their content. EXIF rotation is applied; 16-bit values become
    value / 257, rounded; gray, palette and CMYK become RGB; alpha is dropped, the color under it stays as stored.
    Of an animation or a multi-page file the first picture is read.

    Raises:
        DataError: the file is missing, cut short, damaged, or not such an image.
    """
    try:
        encoded = Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such image") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    image = _with_pillow(encoded) if _pillow_is_right(encoded) else _with_opencv(encoded)
    if image is None:
        raise DataError(f"{path}: not a readable image: {_reason(encoded)}")
    return image


def _pillow_is_right(encoded: bytes) -> bool:
    """OpenCV multiplies the color of a TIFF by its alpha and, before version 5, ignores the EXIF data of a WebP.

    For 16-bit TIFF, whose alpha OpenCV does leave alone, Pillow would drop the lower byte before we can round.
    """
    if encoded.startswith(b"RIFF"):
        return True
    if not encoded.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return False
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            bits = image.tag_v2.get(258, (1,))  # type: ignore[attr-defined]
            return max(bits) <= 8
    except PILLOW_ERRORS:
        return True


def _with_opencv(encoded: bytes) -> np.ndarray | None:
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
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
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except PILLOW_ERRORS:
        return None


def _reason(encoded: bytes) -> str:
    if not encoded:
        return "the file is empty"
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            image.load()
            if image.mode in {"F", "I"}:
                return f"32-bit {image.format}; save it with 8 or 16 bits a channel"
            return "its last bytes are missing or damaged"
    except UnidentifiedImageError:
        return "neither JPEG, PNG, WebP, BMP nor TIFF, or its header is damaged"
    except PILLOW_ERRORS as error:
        return " ".join(str(error).split())
