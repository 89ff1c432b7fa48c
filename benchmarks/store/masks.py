"""The predicted masks of a row and its confusion counts per image, as files in one folder."""

from pathlib import Path

import cv2
import numpy as np

from segkc_deploy import atomic
from segkc_deploy.metrics import ImageCounts

_COUNTS = "counts.npz"


def mask_path(folder: Path, place: int) -> Path:
    """Return the file of the mask of the validation image at `place`."""
    return folder / f"{place:06d}.png"


def save_mask(folder: Path, place: int, mask: np.ndarray) -> None:
    """Save a predicted mask, uint8 (H, W)."""
    written = cv2.imwrite(str(mask_path(folder, place)), mask, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert written, mask_path(folder, place)


def read_mask(folder: Path, place: int) -> np.ndarray:
    """Return a mask that `save_mask` saved, uint8 (H, W)."""
    mask = cv2.imread(str(mask_path(folder, place)), cv2.IMREAD_UNCHANGED)
    assert mask is not None, mask_path(folder, place)
    return mask.astype(np.uint8, copy=False)


def mask_agreement(folder: Path, other: Path, images: int) -> float | None:
    """Return the percentage of pixels with the same class in both folders, over all pixels of all images.

    Args:
        folder: masks of the first `images` images, as `save_mask` saves them.
        other: those of another network; None is returned where one of them is missing.
        images: number of images, at least 1.
    """
    equal = pixels = 0
    for place in range(images):
        if not mask_path(other, place).exists():
            return None
        mask = read_mask(folder, place)
        equal += int(np.count_nonzero(mask == read_mask(other, place)))
        pixels += mask.size
    return 100 * equal / pixels


def save_counts(folder: Path, counts: ImageCounts) -> None:
    """Save a row's confusion counts per image beside its masks."""
    with atomic.atomic_path(folder / _COUNTS) as temporary:
        np.savez_compressed(temporary, intersection=counts.intersection, union=counts.union)


def read_counts(folder: Path) -> ImageCounts | None:
    """Return the counts that `save_counts` saved in `folder`, or None if there are none."""
    path = folder / _COUNTS
    if not path.exists():
        return None
    with np.load(path) as stored:
        return ImageCounts(stored["intersection"], stored["union"])
