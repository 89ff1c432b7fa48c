"""Read images of any bands as they are stored, without loss."""

import io
from pathlib import Path

import cv2
import numpy as np

from segkc_deploy.data import tiff
from segkc_deploy.data.exif import orientation
from segkc_deploy.errors import UnreadableFileError
from segkc_deploy.pixel_format import PixelFormat


def decode_bands(encoded: bytes, path: Path | str, pixels: PixelFormat) -> np.ndarray:
    """Return an encoded image as (H, W, bands) of the stored values, EXIF rotation applied; errors name it by `path`.

    TIFF in every arrangement of bands, and PNG of one, three (red first) and four bands. The caller checks the size
    that the header states.

    Raises:
        DataError: the file is damaged, has other bands or bits, or its compression needs a package that is missing.
    """
    if tiff.is_tiff(encoded):
        header = tiff.read_header(encoded, path, "image")
        found = f"{header.bands} bands of {header.bits} bits"
        fits = (header.bands, header.bits, header.kind) == (pixels.bands, pixels.bits, "u")
        image = tiff.turned(tiff.read_values(encoded, path, "image"), header.orientation) if fits else None
    else:
        image = _with_opencv(encoded)
        if image is not None:
            image = tiff.turned(image, orientation(io.BytesIO(encoded)))
        found = "an image that cannot be decoded" if image is None else f"{image.shape[2]} bands of {image.dtype}"
    if image is None or not pixels.fits(image):
        raise UnreadableFileError(f"{path}: holds {found}, but the data spec says {pixels} (`bands`, `bits`)")
    return np.ascontiguousarray(image)


def _with_opencv(encoded: bytes) -> np.ndarray | None:
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if image is None:
        return None
    if image.ndim == 2:
        return image[..., None]
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)
