"""What `segkc-deploy check` learns from one sample: read once, kept small."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from segkc_deploy.data.exif import orientation
from segkc_deploy.data.headers import palette_of
from segkc_deploy.data.images import read_image
from segkc_deploy.data.mask_files import mask_values
from segkc_deploy.data.masks import size_mismatch, unknown_ids
from segkc_deploy.data.samples import ImageSets, MaskCoding, Sample
from segkc_deploy.errors import DataError
from segkc_deploy.labels import Color
from segkc_deploy.pixel_format import PixelFormat

#: 12-bit values in a file of 16 bits become 0 to 16.
_DARK = 16


@dataclass(frozen=True)
class Reading:
    """One sample after it was read. Sizes are (height, width); what could not be read is None.

    `values` counts the pixels of each value in the mask file, before `label_mapping`; where the file gives class ids as
    they are (colors, annotations), `are_ids` is set and `label_mapping` is empty; `palette` has the colors of the
    indices that a palette mask uses.
    `turned` images have an EXIF rotation that their mask lacks; `dark` ones hold no value above 16 of 255, as 12-bit
    values in a file of 16 bits do.
    `unreadable` and `mismatch` are messages that name the file.
    """

    sample: Sample
    size: tuple[int, int] | None = None
    content: bytes = b""
    values: dict[int, int] | None = None
    are_ids: bool = False
    label_mapping: Mapping[int, int] = field(default_factory=dict)
    palette: Mapping[int, Color] = field(default_factory=dict)
    turned: bool = False
    dark: bool = False
    unreadable: tuple[str, ...] = ()
    mismatch: str | None = None


def read(sample: Sample, coding: MaskCoding, pixels: PixelFormat) -> Reading:
    """Read the image and, where there is one, the mask."""
    unreadable = []
    size = values = mismatch = None
    mapping: Mapping[int, int] = {}
    content = b""
    are_ids = turned = dark = False
    try:
        image = read_image(sample.image, pixels)
        size = image.shape[:2]
        dark = pixels.is_rgb and bool(image.max() <= _DARK)
        # The pixels, not the file: the same picture saved as JPEG and again as PNG is still the same picture.
        content = hashlib.blake2b(image.data, key=repr(size).encode(), digest_size=16).digest()
    except DataError as error:
        unreadable.append(str(error))
    if sample.mask is not None:
        try:
            mask, are_ids = mask_values(sample, coding)
            mapping = {} if are_ids else coding.label_mapping
            values = _counts(mask)
            turned = orientation(sample.image) != 1 and orientation(sample.mask) == 1
            if size is not None and mask.shape != size:
                mismatch = size_mismatch(sample, size, mask.shape)
        except DataError as error:
            unreadable.append(str(error))
    palette = palette_of(sample.mask, used_only=True) if sample.mask is not None and not coding.by_color else {}
    return Reading(sample, size, content, values, are_ids, mapping, palette, turned, dark, tuple(unreadable), mismatch)


def _counts(mask: np.ndarray) -> dict[int, int]:
    if mask.dtype == np.int32:
        found, counts = np.unique(mask, return_counts=True)
        return dict(zip(found.tolist(), counts.tolist(), strict=True))
    counts = np.bincount(mask.ravel())
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def class_ids(reading: Reading) -> set[int]:
    """Return the class ids that the mask holds, `ignore_index` among them; empty where there is no mask."""
    return {reading.label_mapping.get(value, value) for value in reading.values or ()}


def unknown(reading: Reading, sets: ImageSets) -> list[int]:
    """Return the values of the mask that are not known ids; empty where there is no mask."""
    return unknown_ids(np.array(list(reading.values or ()), np.int32), sets.labels, reading.label_mapping)
