"""How well the edges of classes are met: boundary IoU (Cheng et al. 2021, arXiv 2103.16562) over a whole set.

The boundary region of a class holds its pixels that are within `d` pixels (in rows and in columns) of a pixel that is
not of the class, or of the image's border. Boundary IoU is the IoU of the truth's and the prediction's boundary
regions, so unlike IoU it is not decided by the insides of large areas.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from segkc_deploy.metrics import iou_percent, mean_iou

#: The width `d` of boundary regions as a share of the image's diagonal, as published.
WIDTH_OF_DIAGONAL = 0.02

BOUNDARY_RULE = (
    "IoU of the regions of truth and prediction within d pixels of their class's edge or of the image's border,"
    f" d = {WIDTH_OF_DIAGONAL:.0%} of the image's diagonal; counted over all images, then the mean over classes as in"
    " mIoU; where the truth is ignore_index, so is the prediction"
)

#: Never a class id (`labels.MAX_CLASSES`), so what is beyond the image differs from every class.
_BEYOND_IMAGE = 255


@dataclass(frozen=True)
class BoundaryScores:
    """What the pixels counted near boundaries say.

    `iou` holds a percentage (0-100) for each class, NaN for a class that is in neither the truth nor a prediction;
    `miou` (percent) is their mean without those; `rule` says all this in words, to stand beside the numbers.
    """

    iou: tuple[float, ...]
    miou: float
    rule: str = BOUNDARY_RULE


class BoundaryCounts:
    """Counts, for each class, the pixels that the boundary regions of truth and prediction share and have together.

    Args:
        num_classes: class ids are 0 to num_classes - 1.
        ignore_index: the value in truth masks whose pixels are not counted.
    """

    def __init__(self, num_classes: int, ignore_index: int) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.intersection = np.zeros(num_classes, dtype=np.int64)
        self.union = np.zeros(num_classes, dtype=np.int64)

    def update(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        """Count the pixels of one image.

        Args:
            truth: uint8 (H, W), class ids or `ignore_index`.
            prediction: uint8 (H, W), class ids; any value where the truth is `ignore_index`.
        """
        # With the truth's ignored pixels in both, a prediction that is right wherever it is judged has 100%.
        judged = np.where(truth == self.ignore_index, truth, prediction)
        width = boundary_width(truth.shape)
        true, predicted = self._boundaries(truth, width), self._boundaries(judged, width)
        shared = self._pixels(true[true == predicted])
        self.intersection += shared
        self.union += self._pixels(true) + self._pixels(predicted) - shared

    def scores(self) -> BoundaryScores:
        """Return the scores of everything counted so far."""
        iou = iou_percent(self.intersection, self.union)
        return BoundaryScores(iou=tuple(iou.tolist()), miou=float(mean_iou(iou)))

    def _boundaries(self, mask: np.ndarray, width: int) -> np.ndarray:
        """Return `mask` with `ignore_index` wherever a pixel is not in its class's boundary region."""
        # A pixel is inside its class if the square around it has one value: one pass for all classes, not one for each.
        square = np.ones((2 * width + 1, 2 * width + 1), dtype=np.uint8)
        spread = cv2.morphologyEx(
            mask, cv2.MORPH_GRADIENT, square, borderType=cv2.BORDER_CONSTANT, borderValue=_BEYOND_IMAGE
        )
        return np.where(spread > 0, mask, self.ignore_index)

    def _pixels(self, mask: np.ndarray) -> np.ndarray:
        return np.bincount(mask.ravel(), minlength=self.num_classes)[: self.num_classes]


def boundary_width(shape: tuple[int, ...]) -> int:
    """Return the width of boundary regions in pixels for an image of `shape` (height, width): at least one."""
    return max(1, round(WIDTH_OF_DIAGONAL * math.hypot(*shape)))
