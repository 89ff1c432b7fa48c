"""How good masks are: IoU, precision and recall per class, mIoU and pixel accuracy, from one confusion matrix."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from segkc_deploy.errors import DataError

RULE = (
    "one confusion matrix over all images; IoU = TP / (TP + FP + FN); mIoU is the mean over the classes"
    " that occur in the truth or in a prediction; pixels of ignore_index are not counted"
)

_VALUES = 256  # of an 8-bit mask


def iou_percent(intersection: np.ndarray, union: np.ndarray) -> np.ndarray:
    """Return the IoU in percent (0-100) from pixel counts of one shape, NaN where the union is empty."""
    return _percent(intersection, union)


def mean_iou(iou: np.ndarray) -> np.ndarray:
    """Return the mean over the classes (last axis) that are not NaN, NaN where all are."""
    present = ~np.isnan(iou)
    total, classes = np.where(present, iou, 0.0).sum(axis=-1), present.sum(axis=-1)
    return np.divide(total, classes, out=np.full(total.shape, np.nan), where=classes > 0)


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says.

    `iou` holds a percentage (0-100) for each class, NaN for a class that is in neither the truth nor a prediction;
    `precision`, TP / (TP + FP), is NaN for a class that was never predicted, and `recall`, TP / (TP + FN), for one that
    is not in the truth, both in percent; `miou` (percent) is the mean of `iou` without NaN, NaN if no pixel was
    counted; `pixel_accuracy` is in percent; `pixels` is the number of pixels counted; `rule` says in words how IoU and
    mIoU are counted, to stand beside the numbers.
    """

    iou: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    miou: float
    pixel_accuracy: float
    pixels: int
    rule: str = RULE


@dataclass(frozen=True, eq=False)
class ImageCounts:
    """Pixels of each image (row) and class (column): `intersection` and `union`, int64 (images, classes).

    Summed over any choice of images they give the IoU and mIoU of that choice.
    """

    intersection: np.ndarray
    union: np.ndarray


class ConfusionMatrix:
    """Counts pixels by true class (rows) and predicted class (columns).

    Args:
        num_classes: class ids are 0 to num_classes - 1.
        ignore_index: the value in truth masks whose pixels are not counted.
    """

    def __init__(self, num_classes: int, ignore_index: int) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.counts = np.zeros((num_classes, num_classes), dtype=np.int64)

    def update(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        """Count the pixels of masks of one shape.

        Args:
            truth: uint8, class ids or `ignore_index`.
            prediction: uint8, class ids; any value where the truth is `ignore_index`.

        Raises:
            DataError: the shapes differ, or a mask holds values that are not class ids.
        """
        if truth.shape != prediction.shape:
            raise DataError(f"the truth has shape {truth.shape}, the prediction {prediction.shape}; they must be equal")
        if truth.dtype != np.uint8 or prediction.dtype != np.uint8:
            raise DataError(f"masks must be uint8, not {truth.dtype} and {prediction.dtype}")
        # Counting all 256 x 256 pairs is one pass over the pixels, and shows the values that should not be there.
        pairs = (truth.astype(np.intp) * _VALUES + prediction).ravel()
        counts = np.bincount(pairs, minlength=_VALUES * _VALUES).reshape(_VALUES, _VALUES)
        counts[self.ignore_index] = 0
        self._refuse_other_values("truth", counts.sum(axis=1))
        self._refuse_other_values("prediction", counts.sum(axis=0))
        self.counts += counts[: self.num_classes, : self.num_classes]

    def scores(self) -> Scores:
        """Return the scores of everything counted so far."""
        hits, union = self.intersection_and_union()
        iou = iou_percent(hits, union)
        true, predicted = self.counts.sum(axis=1), self.counts.sum(axis=0)
        pixels = int(self.counts.sum())
        return Scores(
            iou=tuple(iou.tolist()),
            precision=tuple(_percent(hits, predicted).tolist()),
            recall=tuple(_percent(hits, true).tolist()),
            miou=float(mean_iou(iou)),
            pixel_accuracy=float(100 * hits.sum() / pixels) if pixels else float("nan"),
            pixels=pixels,
        )

    def intersection_and_union(self) -> tuple[np.ndarray, np.ndarray]:
        """Return how many pixels truth and prediction share, and have together, of each class: int64 (classes,)."""
        hits = np.diag(self.counts)
        return hits, self.counts.sum(axis=0) + self.counts.sum(axis=1) - hits

    def __add__(self, other: Self) -> "ConfusionMatrix":
        """Return the matrix of both sets of images together."""
        assert (self.num_classes, self.ignore_index) == (other.num_classes, other.ignore_index)
        total = ConfusionMatrix(self.num_classes, self.ignore_index)
        total.counts = self.counts + other.counts
        return total

    def _refuse_other_values(self, mask: str, counts: np.ndarray) -> None:
        other = np.flatnonzero(counts[self.num_classes :]) + self.num_classes
        if len(other):
            raise DataError(
                f"the {mask} holds the value(s) {', '.join(map(str, other))}, which are no class ids:"
                f" classes are 0 to {self.num_classes - 1}"
            )


def _percent(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return counts as percentages of others of the same shape, NaN where these are 0."""
    percent = np.full(whole.shape, np.nan)
    np.divide(100.0 * part, whole, out=percent, where=whole > 0)
    return percent
