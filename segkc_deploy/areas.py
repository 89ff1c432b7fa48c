"""How much of an image each class covers."""

from dataclasses import dataclass

import numpy as np

from segkc_deploy.labels import Color, Labels


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


def class_areas(mask: np.ndarray, labels: Labels, confidence: np.ndarray | None = None) -> list[ClassArea]:
    """Return the classes that occur in a mask, the largest first; of equal ones the smaller id.

    Args:
        mask: uint8 (H, W) class ids. Values that are no class ids count as pixels of the mask and of no class.
        labels: the classes.
        confidence: float32 (H, W), 0-1, of the mask's pixels.
    """
    flat = mask.ravel()
    counts = np.bincount(flat, minlength=256)[: labels.num_classes]
    sums = np.bincount(flat, weights=confidence.ravel(), minlength=256) if confidence is not None else None
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
