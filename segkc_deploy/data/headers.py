"""What the headers of image and mask files say that changes the meaning of their pixels: EXIF turns and palettes."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, TiffImagePlugin

from segkc_deploy.data.exif import PILLOW_ERRORS, orientation_of
from segkc_deploy.data.images import MASK_SUFFIXES, read_image
from segkc_deploy.labels import Color

PALETTES_DIFFER = (
    "the same palette index has different colors in different masks, so it is not the same class in all of them;"
    " save all masks with one palette, or give each class its color in `classes` and add `mask_values: colors`"
)
TURNED = (
    "images with an EXIF rotation whose masks have none: the image is rotated as a viewer shows it, the mask is read"
    " as stored; if a mask was drawn on the unrotated image, its pixels get wrong labels without any other sign."
    " Keep the pixels and remove the rotation with `exiftool -Orientation= FILE`"
)


def upright_size(path: Path) -> tuple[int, int]:
    """Return the (height, width) of an image file as `read_image` gives it, from the header where that suffices.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with Image.open(path) as image:
            width, height = _stored_size(image)
            turned = orientation_of(image) in {5, 6, 7, 8}
    except PILLOW_ERRORS:
        height, width = read_image(path).shape[:2]
        turned = False
    return (width, height) if turned else (height, width)


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Return (width, height) before any rotation; newer versions of Pillow state that of a TIFF after it."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return image.tag_v2[TiffImagePlugin.IMAGEWIDTH], image.tag_v2[TiffImagePlugin.IMAGELENGTH]
    return image.size


def palette_of(path: Path, used_only: bool = False) -> dict[int, Color]:
    """Return the RGB color of each index of a palette mask; empty for other files and unreadable ones.

    Args:
        path: the mask file.
        used_only: leave out the indices that no pixel has, which takes decoding the file.
    """
    if path.suffix.lower() not in MASK_SUFFIXES:
        return {}
    try:
        with Image.open(path) as image:
            if image.mode != "P":
                return {}
            flat = image.getpalette("RGB") or []
            used = set(np.unique(np.asarray(image)).tolist()) if used_only else set(range(len(flat) // 3))
    except PILLOW_ERRORS:
        return {}
    colors = (tuple(flat[start : start + 3]) for start in range(0, len(flat), 3))
    return {index: (red, green, blue) for index, (red, green, blue) in enumerate(colors) if index in used}


@dataclass(frozen=True)
class PaletteConflict:
    """An index of a palette mask that has another color in the masks before it."""

    mask: Path
    index: int
    color: Color
    elsewhere: Color

    def __str__(self) -> str:
        return f"{self.mask}: index {self.index} is {list(self.color)}, but {list(self.elsewhere)} in other masks"


def palette_conflicts(palettes: Iterable[tuple[Path, Mapping[int, Color]]]) -> Iterator[PaletteConflict]:
    """Yield, for each mask that differs from those before it, the first index that does."""
    first: dict[int, Color] = {}
    for path, palette in palettes:
        for index, color in palette.items():
            if first.setdefault(index, color) != color:
                yield PaletteConflict(path, index, color, first[index])
                break
