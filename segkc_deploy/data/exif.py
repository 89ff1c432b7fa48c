"""The rotation that an image file's EXIF data ask for."""

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from PIL import Image

#: Everything that Pillow raises for a damaged file.
PILLOW_ERRORS = (OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, struct.error, zlib.error)

ORIENTATION = 274


def orientation(file: Path | BinaryIO) -> int:
    """Return the EXIF orientation of an image file, 1 to 8; 1 where there is none or it cannot be read."""
    try:
        with Image.open(file) as image:
            value = image.getexif().get(ORIENTATION, 1)
    except PILLOW_ERRORS:
        return 1
    return value if value in range(1, 9) else 1
