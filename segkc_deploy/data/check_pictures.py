"""Pictures for the eye, where no figure can tell which of two readings of a mask is right."""

import io
from collections.abc import Container, Sequence
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

from segkc_deploy import atomic
from segkc_deploy.data.exif import orientation
from segkc_deploy.data.images import read_image
from segkc_deploy.data.masks import read_mask
from segkc_deploy.data.samples import ImageSets, Sample
from segkc_deploy.data.tiff import turned
from segkc_deploy.errors import DataError
from segkc_deploy.overlay import blend
from segkc_deploy.pixel_format import as_picture
from segkc_deploy.preprocess import resize_image, resize_mask, size_within

_LONGEST_SIDE = 640
_GAP = 8


def write_turned_pictures(samples: Sequence[Sample], sets: ImageSets, folder: Path) -> list[Path]:
    """Write `<id>.turned.jpg` for each sample whose image has an EXIF rotation that its mask lacks.

    The ending tells the pictures from photographs, which may lie in the same folder. The left picture shows the mask as
    it is read, the right one the mask rotated like the image. If the right one fits, the mask was drawn on the
    unrotated image.

    Returns:
        The files, in the order of `samples`; samples that cannot be read have none.
    """
    written: dict[Path, None] = {}
    for sample in samples:
        try:
            image, mask = as_picture(read_image(sample.image, sets.pixels)), read_mask(sample, sets.coding)
        except DataError:
            continue  # the check reports the file
        rotated = turned(mask, orientation(sample.image))
        panels = [_panel(image, one, sets) for one in (mask, rotated)]
        gap = np.full((panels[0].shape[0], _GAP, 3), 255, np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(np.hstack([panels[0], gap, panels[1]])).save(buffer, "JPEG", quality=90)
        path = _free(folder / sample.id, written)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(path, buffer.getvalue())
        written[path] = None
    return list(written)


def _free(place: Path, written: Container[Path]) -> Path:
    """Return a path for a picture: images of two sets may have one id."""
    endings = (f"-{number}" if number > 1 else "" for number in count(1))
    names = (place.with_name(f"{place.name}{ending}.turned.jpg") for ending in endings)
    return next(path for path in names if path not in written)


def _panel(image: np.ndarray, mask: np.ndarray, sets: ImageSets) -> np.ndarray:
    size = size_within(image.shape[:2], _LONGEST_SIDE)
    # A mask that lies on its side is stretched over the image: that it does not fit is what the picture shows.
    return blend(resize_image(image, size), resize_mask(mask, size), sets.labels)
