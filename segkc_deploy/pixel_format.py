"""What the pixels of images are: RGB of 8 bits, or any 1 to 16 bands of 8 or 16 bits as they are stored."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from segkc_deploy.errors import DataError

MAX_BANDS = 16

#: OpenCV treats a fourth channel like the others, and gives wrong or no results for more than four in some functions.
_AT_ONCE = 4


@dataclass(frozen=True)
class PixelFormat:
    """Bands and bits of an image.

    Three bands of 8 bits are RGB, into which every file is decoded. Other formats are read as they are stored, and a
    file of another format is refused.

    Attributes:
        bands: 1 to `MAX_BANDS`.
        bits: 8 or 16.
    """

    bands: int = 3
    bits: Literal[8, 16] = 8

    @property
    def is_rgb(self) -> bool:
        """Whether files are decoded into RGB of 8 bits."""
        return (self.bands, self.bits) == (3, 8)

    @property
    def dtype(self) -> type[np.unsignedinteger[Any]]:
        """The type of a value, uint8 or uint16."""
        return np.uint8 if self.bits == 8 else np.uint16

    @property
    def largest(self) -> int:
        """The largest value."""
        return 2**self.bits - 1

    def fits(self, image: np.ndarray) -> bool:
        """Whether an array is an image of this format."""
        return image.dtype == self.dtype and image.ndim == 3 and image.shape[2] == self.bands and image.size > 0

    def __str__(self) -> str:
        return "RGB of 8 bits" if self.is_rgb else f"{self.bands} band{'s' * (self.bands > 1)} of {self.bits} bits"


RGB = PixelFormat()


def require_same_format(network: PixelFormat, data: PixelFormat, network_name: object, data_name: object) -> None:
    """Raise a DataError unless a network takes the images of a data spec."""
    if network != data:
        raise DataError(
            f"{network_name} takes {network}, but the images of {data_name} are {data}; set `bands: {network.bands}`"
            f" and `bits: {network.bits}` in the data spec, or use the data it was trained on"
        )


def by_band_group(image: np.ndarray, function: Any) -> np.ndarray:
    """Return `function` of an image (H, W, bands), of as many bands at once as OpenCV takes, put together again.

    Args:
        image: the image.
        function: from (H, W, n) to (height, width, n), or for n = 1 to (height, width).
    """
    if image.shape[2] <= _AT_ONCE:
        return _with_bands(function(image))
    groups = [image[..., first : first + _AT_ONCE] for first in range(0, image.shape[2], _AT_ONCE)]
    return np.concatenate([_with_bands(function(np.ascontiguousarray(group))) for group in groups], axis=2)


def as_picture(image: np.ndarray) -> np.ndarray:
    """Return an image as uint8 (H, W, 3) RGB to look at; an RGB image of 8 bits as it is.

    The first three bands, or the first as gray, each stretched from its 2nd to its 98th percentile: values of a
    sensor seldom fill their range.
    """
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return image
    shown = image[..., :3] if image.shape[2] >= 3 else image[..., :1]
    low, high = np.percentile(shown, (2, 98), axis=(0, 1))
    stretched = (shown - low) / np.maximum(high - low, 1) * 255
    picture = np.clip(np.round(stretched), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(picture, (*picture.shape[:2], 3)))


def _with_bands(image: np.ndarray) -> np.ndarray:
    return image[..., None] if image.ndim == 2 else image
