"""How much of an image each class covers."""

from dataclasses import dataclass

import cv2
import numpy as np

from segkc_deploy.labels import Color, Labels

#: Up to this number single precision holds every whole one.
_EXACT = 1 << 24


@dataclass(frozen=True)
class ClassArea:
    """One class of a mask.

    Attributes:
        id, name, color: the class, its color as RGB (0-255).
        pixels: how many pixels have it.
        share: the same as a share of all pixels of the mask (0-1).
        confidence: mean confidence of these pixels (0-1); None where none was given.
    """

    id: int
    name: str
    color: Color
    pixels: int
    share: float
    confidence: float | None = None


def pixel_counts(mask: np.ndarray) -> np.ndarray:
    """Return how many pixels of a mask, uint8 (H, W), have each value: int64 (256,)."""
    values = np.ascontiguousarray(mask).reshape(-1, 1)
    counts = np.zeros(256, np.int64)
    # OpenCV counts several times faster than NumPy, in single precision.
    for start in range(0, len(values), _EXACT):
        histogram = cv2.calcHist([values[start : start + _EXACT]], [0], None, [256], [0, 256])
        counts += histogram.ravel().astype(np.int64)
    return counts


def class_areas(mask: np.ndarray, labels: Labels, confidence: np.ndarray | None = None) -> list[ClassArea]:
    """Return the classes that occur in a mask, the largest first; of equal ones the smaller id.

    Args:
        mask: uint8 (H, W) class ids. Values that are no class ids count as pixels of the mask and of no class.
        labels: the classes.
        confidence: float32 (H, W), 0-1, of the mask's pixels.
    """
    counts = pixel_counts(mask)[: labels.num_classes]
    sums = np.bincount(mask.ravel(), weights=confidence.ravel(), minlength=256) if confidence is not None else None
    present = sorted(np.flatnonzero(counts).tolist(), key=lambda index: (-counts[index], index))
    return [
        ClassArea(
            id=index,
            name=labels.names[index],
            color=labels.palette[index],
            pixels=int(counts[index]),
            share=int(counts[index]) / mask.size,
            confidence=None if sums is None else float(sums[index] / counts[index]),
        )
        for index in present
    ]
