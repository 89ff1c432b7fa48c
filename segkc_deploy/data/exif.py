"""The rotation that an image file's EXIF data ask for."""

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps

#: Everything that Pillow raises for a damaged file.
PILLOW_ERRORS = (
    EOFError,
    LookupError,
    OSError,
    RuntimeError,  # of the decoder of AVIF
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

ORIENTATION = 274


def orientation(file: Path | BinaryIO) -> int:
    """Return the EXIF orientation of an image file, 1 to 8; 1 where there is none or it cannot be read."""
    try:
        with Image.open(file) as image:
            return orientation_of(image)
    except PILLOW_ERRORS:
        return 1


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of an opened image, 1 to 8; 1 where there is none.

    What XMP says of it is left out, as OpenCV does, which decodes most images: Pillow alone would turn by it.

    Raises:
        OSError, ValueError, …: the file is damaged; see `PILLOW_ERRORS`.
    """
    _forget_xmp(image)
    if image.format == "PNG" and "exif" not in image.info:
        image.load()  # as `getexif` would, to look behind the pixels, where XMP may be too
        _forget_xmp(image)
    value = image.getexif().get(ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def upright(image: Image.Image) -> Image.Image:
    """Return a copy of an opened image, turned by `orientation_of`."""
    _forget_xmp(image)  # Pillow turns a TIFF as it loads it
    image.load()
    _forget_xmp(image)  # a PNG may have it behind the pixels
    return ImageOps.exif_transpose(image)


def _forget_xmp(image: Image.Image) -> None:
    for key in ("XML:com.adobe.xmp", "xmp"):
        image.info.pop(key, None)
