"""How often two networks see the same class."""

from pathlib import Path

import numpy as np

from segkc_deploy.benchmarks.report.pictures import mask_path, read_mask


def mask_agreement(folder: Path, other: Path, images: int) -> float | None:
    """Return the percentage of pixels with the same class, over all pixels of all images.

    Args:
        folder: masks of the first `images` images, as `save_mask` keeps them.
        other: those of another network; None is returned where one of them is missing.
        images: how many images, at least 1.
    """
    equal = pixels = 0
    for place in range(images):
        if not mask_path(other, place).exists():
            return None
        mask = read_mask(folder, place)
        equal += int(np.count_nonzero(mask == read_mask(other, place)))
        pixels += mask.size
    return 100 * equal / pixels
