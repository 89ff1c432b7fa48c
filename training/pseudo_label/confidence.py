"""From which confidence on a network's classes are right often enough, by the validation images.

A network's confidence is no probability of being right: networks are mostly too sure of themselves (Guo et al. 2017,
arXiv 1706.04599). So a threshold is not chosen as a number but as the least confidence from which on a wanted share of
the pixels is right, on images whose masks are known.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segkc_deploy.errors import DataError

#: Validation pixels that a class needs, as predicted, for a threshold of its own.
ENOUGH_PIXELS = 1000

#: A threshold that keeps fewer validation pixels says nothing about how many of them are right.
_LEAST_KEPT = 100

#: Parts of the validation set, of which one is measured at a time with thresholds that the others gave.
_MOST_FOLDS = 5


def _edges() -> Tensor:
    """Return the confidences that a threshold can have: evenly spaced as log-odds, since most pixels are near 1."""
    odds = 1 / (1 + np.exp(-np.linspace(-6, 16, 2201)))
    return torch.from_numpy(np.unique(np.concatenate([[0.0], odds, [1.0]]).astype(np.float32)))


EDGES = _edges()


class ConfidenceCounts:
    """How many pixels of each predicted class have a confidence of `EDGES[k]` or more, below `EDGES[k + 1]`.

    Attributes:
        pixels: int64 (classes, edges).
        right: those of them whose true class was predicted.
    """

    def __init__(self, num_classes: int) -> None:
        self.pixels = torch.zeros(num_classes, len(EDGES), dtype=torch.int64)
        self.right = torch.zeros_like(self.pixels)

    def update(self, labels: Tensor, confidence: Tensor, truth: Tensor) -> None:
        """Count pixels: their predicted class, the confidence in it from 0 to 1, and their true class, (N,) each."""
        places = torch.bucketize(confidence.float(), EDGES.to(confidence.device), right=True) - 1
        index = labels * len(EDGES) + places
        for counts, chosen in ((self.pixels, index), (self.right, index[labels == truth])):
            counts += torch.bincount(chosen, minlength=counts.numel()).cpu().reshape(counts.shape)

    @classmethod
    def sum(cls, parts: Sequence["ConfidenceCounts"]) -> "ConfidenceCounts":
        """Return the counts of all `parts` (at least one) together."""
        total = cls(len(parts[0].pixels))
        for part in parts:
            total.pixels += part.pixels
            total.right += part.right
        return total


@dataclass(frozen=True)
class Thresholds:
    """The least confidence at which each class is kept.

    Attributes:
        values: by class id, 0 to 1; infinity where nothing of a class is kept.
        own: by class id, whether the class had enough validation pixels for a threshold of its own.
    """

    values: tuple[float, ...]
    own: tuple[bool, ...]

    @classmethod
    def fixed(cls, confidence: float, num_classes: int) -> "Thresholds":
        """Return one threshold for all classes."""
        return cls((confidence,) * num_classes, (False,) * num_classes)

    def mask(self, probabilities: Tensor, ignore_index: int) -> np.ndarray:
        """Return the class of each pixel, or `ignore_index` where its confidence is too low.

        Args:
            probabilities: (C, H, W).
            ignore_index: 0 to 255.

        Returns:
            uint8 (H, W).
        """
        confidence, labels = probabilities.max(dim=0)
        least = torch.tensor(self.values, dtype=torch.float32, device=labels.device)[labels]
        mask: np.ndarray = torch.where(confidence >= least, labels, ignore_index).to(torch.uint8).cpu().numpy()
        return mask


@dataclass(frozen=True)
class ClassQuality:
    """What thresholds make of the validation pixels that were predicted as one class, or of all of them.

    Attributes:
        pixels: how many there are.
        kept: how many are kept.
        right: how many of those kept are right.
    """

    pixels: int
    kept: int
    right: int

    @property
    def precision(self) -> float | None:
        """The share of the kept pixels that are right, 0 to 1; None where none is kept."""
        return self.right / self.kept if self.kept else None

    @property
    def kept_share(self) -> float | None:
        """The share of the pixels that are kept, 0 to 1; None without pixels."""
        return self.kept / self.pixels if self.pixels else None


def choose_thresholds(counts: ConfidenceCounts, precision: float) -> Thresholds:
    """Return by class the least confidence at which `precision` (0 to 1) of the kept validation pixels are right.

    A class with fewer than `ENOUGH_PIXELS` predicted pixels takes the threshold at which this holds for the pixels of
    all classes together. Where no confidence is enough, the threshold is infinite.
    """
    shared = _least_confidence(counts.pixels.sum(dim=0), counts.right.sum(dim=0), precision)
    own = (counts.pixels.sum(dim=1) >= ENOUGH_PIXELS).tolist()
    values = tuple(
        _least_confidence(pixels, right, precision) if has_own else shared
        for pixels, right, has_own in zip(counts.pixels, counts.right, own, strict=True)
    )
    return Thresholds(values, tuple(own))


def measure(counts: ConfidenceCounts, thresholds: Thresholds) -> list[ClassQuality]:
    """Return what the thresholds make of each class, in the order of the ids."""
    qualities = []
    for pixels, right, value in zip(counts.pixels, counts.right, thresholds.values, strict=True):
        kept = torch.tensor(value, dtype=torch.float32) <= EDGES
        qualities.append(ClassQuality(int(pixels.sum()), int(pixels[kept].sum()), int(right[kept].sum())))
    return qualities


def overall(qualities: Sequence[ClassQuality]) -> ClassQuality:
    """Return the classes' qualities together."""
    return ClassQuality(*(sum(getattr(one, name) for one in qualities) for name in ("pixels", "kept", "right")))


def measure_held_out(parts: Sequence[ConfidenceCounts], precision: float) -> list[ClassQuality] | None:
    """Return what thresholds make of images that they were not chosen on, or None for a single part.

    Each part is measured with the thresholds that the other parts give. What `measure` finds on the images that a
    threshold was chosen on is too good; this is not.
    """
    if len(parts) < 2:
        return None
    measured = []
    for index, part in enumerate(parts):
        others = ConfidenceCounts.sum([*parts[:index], *parts[index + 1 :]])
        measured.append(measure(part, choose_thresholds(others, precision)))
    return [overall(of_class) for of_class in zip(*measured, strict=True)]


def fold_of(image: int, images: int) -> int:
    """Return the part of the validation set that an image belongs to: neighbors, as in a video, share one."""
    return image * min(_MOST_FOLDS, images) // images


def require_labeled_pixels(counts: ConfidenceCounts, where: str) -> None:
    """Raise a DataError unless a validation pixel with a true class was counted."""
    if not counts.pixels.any():
        raise DataError(f"{where}: no validation image has a labeled pixel; label some, or give --confidence 0.9")


def _least_confidence(pixels: Tensor, right: Tensor, precision: float) -> float:
    """Return the least of `EDGES` from which on `precision` of the counted pixels (edges,) are right, or infinity."""
    kept = pixels.flip(0).cumsum(0).flip(0)
    of_these_right = right.flip(0).cumsum(0).flip(0)
    enough = (of_these_right.double() >= precision * kept.double()) & (kept >= _LEAST_KEPT)
    return float(EDGES[enough.nonzero()[0, 0]]) if enough.any() else math.inf
