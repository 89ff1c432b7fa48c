"""How often each class is labeled: in all, and in which images."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from segkc_deploy.data.masks import read_mask
from segkc_deploy.data.samples import ImageSets, Sample
from segkc_deploy.errors import UnreadableFileError
from segkc_deploy.progress import track


@dataclass(frozen=True)
class Census:
    """`pixels` counts the pixels of each class in each labeled image, int64 (images, classes); ignored ones nowhere."""

    pixels: np.ndarray

    @property
    def class_pixels(self) -> np.ndarray:
        """The pixels of each class, (classes,)."""
        return self.pixels.sum(axis=0)

    @property
    def shares(self) -> np.ndarray:
        """The share of each class in the labeled pixels, (classes,), 0 to 1."""
        return self.class_pixels / max(self.pixels.sum(), 1)

    def rare(self, share: float) -> list[int]:
        """Return the classes that occur, but in less than `share` of the labeled pixels."""
        return [int(index) for index in np.flatnonzero((self.shares > 0) & (self.shares < share))]


def count_classes(samples: Sequence[Sample], sets: ImageSets, workers: int = 4) -> Census:
    """Read the masks of `samples` and count the pixels of their classes; none where a file cannot be read.

    Such a file is replaced and named when training meets it.

    Raises:
        DataError: a mask can be read, but not used.
    """
    classes = sets.labels.num_classes

    def counts(sample: Sample) -> np.ndarray:
        try:
            mask = read_mask(sample, sets.coding)
        except UnreadableFileError:
            return np.zeros(classes, np.int64)
        return np.bincount(mask.ravel(), minlength=256)[:classes]

    with ThreadPoolExecutor(workers) as executor:
        rows = list(track(executor.map(counts, samples), "Counting classes", total=len(samples)))
    return Census(np.array(rows, np.int64).reshape(len(samples), classes))
