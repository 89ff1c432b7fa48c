"""What `segkc-deploy check` learns from one sample: read once, kept small."""

import hashlib
from dataclasses import dataclass

import numpy as np

from segkc_deploy.data.images import read_image
from segkc_deploy.data.masks import raw_mask, size_mismatch, unknown_ids
from segkc_deploy.data.samples import ImageSets, Sample
from segkc_deploy.errors import DataError


@dataclass(frozen=True)
class Reading:
    """One sample after it was read. Sizes are (height, width); what could not be read is None.

    `values` counts the pixels of each value in the mask file, before `label_mapping`.
    `unreadable` and `mismatch` are messages that name the file.
    """

    sample: Sample
    size: tuple[int, int] | None = None
    content: bytes = b""
    values: dict[int, int] | None = None
    unreadable: tuple[str, ...] = ()
    mismatch: str | None = None


def read(sample: Sample) -> Reading:
    """Read the image and, where there is one, the mask."""
    unreadable = []
    size = values = mismatch = None
    content = b""
    try:
        image = read_image(sample.image)
        size = image.shape[:2]
        # The pixels, not the file: the same picture saved as JPEG and again as PNG is still the same picture.
        content = hashlib.blake2b(image.data, key=repr(size).encode(), digest_size=16).digest()
    except DataError as error:
        unreadable.append(str(error))
    if sample.mask is not None:
        try:
            mask = raw_mask(sample.mask)
            counts = np.bincount(mask.ravel())
            values = {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
            if size is not None and mask.shape != size:
                mismatch = size_mismatch(sample, size, mask.shape)
        except DataError as error:
            unreadable.append(str(error))
    return Reading(sample, size, content, values, tuple(unreadable), mismatch)


def unknown(reading: Reading, sets: ImageSets) -> list[int]:
    """Return the values of the mask that are not known ids; empty where there is no mask."""
    return unknown_ids(np.array(list(reading.values or ()), np.uint16), sets.labels, sets.label_mapping)
