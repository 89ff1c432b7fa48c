"""Read mask files into arrays of class ids; each mistake in a mask is reported with its fix."""

from collections.abc import Mapping
from functools import lru_cache

import cv2
import numpy as np

from segkc_deploy.data.images import read_image
from segkc_deploy.data.mask_files import mask_values
from segkc_deploy.data.samples import ImageSets, MaskCoding, Sample
from segkc_deploy.errors import DataError
from segkc_deploy.labels import Labels

_MOST_VALUES_SHOWN = 8


def apply_label_mapping(values: np.ndarray, label_mapping: Mapping[int, int]) -> np.ndarray:
    """Return the uint8, uint16 or int32 mask with every value that is a key of `label_mapping` replaced, all at once.

    Values that are no key stay as they are. Same shape and type as `values`.
    """
    if not label_mapping:
        return values
    if values.dtype == np.int32:
        found, places = np.unique(values, return_inverse=True)
        mapped = np.array([label_mapping.get(value, value) for value in found.tolist()], np.int32)
        return mapped[places].reshape(values.shape)
    table = _lookup_table(tuple(label_mapping.items()), values.dtype.str)
    return cv2.LUT(values, table).reshape(values.shape) if values.dtype == np.uint8 else table[values]


def read_mask(sample: Sample, coding: MaskCoding) -> np.ndarray:
    """Return a sample's mask as uint8 (H, W): class ids below `labels.num_classes`, or `labels.ignore_index`.

    Raises:
        DataError: the file is no mask, or holds values that are neither a class nor ignored after `label_mapping`.
    """
    values, are_ids = mask_values(sample, coding)
    mapping = {} if are_ids else coding.label_mapping
    mask = apply_label_mapping(values, mapping)
    if _is_unknown(mask, coding.labels).any():
        unknown = unknown_ids(np.unique(values), coding.labels, mapping)
        raise DataError(f"{sample.mask}: {unknown_ids_message(unknown, coding.labels)}")
    return mask.astype(np.uint8, copy=False)


def unknown_ids(values: np.ndarray, labels: Labels, label_mapping: Mapping[int, int]) -> list[int]:
    """Return those of the raw mask `values` that are neither a class, nor ignored, nor mapped to one of these."""
    unknown: list[int] = values[_is_unknown(apply_label_mapping(values, label_mapping), labels)].tolist()
    return unknown


def unknown_ids_message(values: list[int], labels: Labels) -> str:
    """Name the unknown `values` (at least one) and what to write into the data spec."""
    if values == [255]:
        return (
            "holds 255, which is neither a class nor ignore_index"
            f" {labels.ignore_index}; if 255 marks class 1 of a 0/255 mask, add `label_mapping: {{255: 1}}`"
        )
    shown = ", ".join(map(str, values[:_MOST_VALUES_SHOWN]))
    more = f" and {len(values) - _MOST_VALUES_SHOWN} more" if len(values) > _MOST_VALUES_SHOWN else ""
    return (
        f"holds {shown}{more}, neither a class (0-{labels.num_classes - 1}) nor ignore_index {labels.ignore_index};"
        f" name the missing classes, or map the values in the data spec:"
        f" `label_mapping: {{{values[0]}: {labels.ignore_index}}}`"
    )


def read_sample(sample: Sample, sets: ImageSets) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the image, uint8 (H, W, 3) RGB or as `sets.pixels` says, and its mask, uint8 (H, W), or None without one.

    Raises:
        DataError: a file cannot be used, or the mask's size is not the image's.
    """
    image = read_image(sample.image, sets.pixels)
    if sample.mask is None:
        return image, None
    mask = read_mask(sample, sets.coding)
    require_size_of_image(sample, image.shape[:2], mask)
    return image, mask


def require_size_of_image(sample: Sample, image_size: tuple[int, ...], mask: np.ndarray) -> None:
    """Raise a DataError unless a mask (H, W) has the (height, width) of its image."""
    if mask.shape != image_size:
        raise DataError(size_mismatch(sample, image_size, mask.shape))


def size_mismatch(sample: Sample, image_size: tuple[int, ...], mask_size: tuple[int, ...]) -> str:
    """Say that a mask has another (height, width) than its image, and what may be the cause."""
    fix = "make the mask again at the image's size"
    if mask_size == image_size[::-1]:
        fix = "the mask lies on its side: rotate it as the image's EXIF data rotates the image"
    return (
        f"{sample.mask}: the mask is {mask_size[1]}x{mask_size[0]} pixels, but its image {sample.image}"
        f" is {image_size[1]}x{image_size[0]}; {fix}"
    )


@lru_cache(maxsize=8)
def _lookup_table(mapping: tuple[tuple[int, int], ...], dtype: str) -> np.ndarray:
    table = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    for value, class_id in mapping:
        if 0 <= value < len(table):
            table[value] = class_id
    return table


def _is_unknown(mapped: np.ndarray, labels: Labels) -> np.ndarray:
    return ((mapped >= labels.num_classes) | (mapped < 0)) & (mapped != labels.ignore_index)
