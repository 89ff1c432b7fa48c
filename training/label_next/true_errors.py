"""Where true masks are known: how wrong the junior is on each image, and whether the scores would have told."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from segkc_deploy.data.files import files_by_id
from segkc_deploy.data.images import MASK_SUFFIXES
from segkc_deploy.data.masks import read_mask, size_mismatch
from segkc_deploy.data.samples import MaskCoding, Sample
from segkc_deploy.errors import DataError
from segkc_deploy.metrics import ConfusionMatrix

#: How wrong a mask of one image is, in percent.
ERRORS = {"pixel_error": "100 - pixel accuracy", "miou_error": "100 - mIoU of the image alone"}


@dataclass(frozen=True)
class Truth:
    """The true masks by image id, and what their values mean."""

    masks: Mapping[str, Path]
    coding: MaskCoding

    @classmethod
    def of_folder(cls, folder: Path, ending: str, coding: MaskCoding) -> "Truth":
        """Find the masks below `folder`, named id + `ending` + suffix."""
        return cls(files_by_id(folder, MASK_SUFFIXES, ending), coding)

    def errors(self, sample: Sample, prediction: np.ndarray) -> dict[str, float] | None:
        """Return the errors of a predicted mask, uint8 (H, W); None where nothing of the sample is labeled.

        Raises:
            DataError: the mask cannot be used, or has another size than the image.
        """
        file = self.masks.get(sample.id)
        if file is None:
            return None
        true = read_mask(replace(sample, mask=file), self.coding)
        if true.shape != prediction.shape:
            raise DataError(size_mismatch(replace(sample, mask=file), prediction.shape, true.shape))
        labels = self.coding.labels
        matrix = ConfusionMatrix(labels.num_classes, labels.ignore_index)
        matrix.update(true, prediction)
        scores = matrix.scores()
        if scores.pixels == 0:
            return None
        return {"pixel_error": 100 - scores.pixel_accuracy, "miou_error": 100 - scores.miou}


@dataclass(frozen=True)
class Comparison:
    """Scores beside true errors.

    Attributes:
        images: how many images have a true mask.
        correlations: for each score Spearman's correlation with each of `ERRORS`, -1 to 1.
        mean_of_highest: for each score the mean pixel error of the images where it is highest, as many as were chosen.
        mean_of_chosen: the mean pixel error of the chosen images; NaN where none of them has a mask.
        mean_of_all: the mean pixel error of all.
    """

    images: int
    correlations: Mapping[str, Mapping[str, float]]
    mean_of_highest: Mapping[str, float]
    mean_of_chosen: float
    mean_of_all: float

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values, null where one does not exist."""
        return {
            "images": self.images,
            "correlations": {
                name: {error: _finite(value) for error, value in values.items()}
                for name, values in self.correlations.items()
            },
            "mean_of_highest": dict(self.mean_of_highest),
            "mean_of_chosen": _finite(self.mean_of_chosen),
            "mean_of_all": self.mean_of_all,
        }


def compare(
    scores: Mapping[str, np.ndarray], errors: Sequence[Mapping[str, float] | None], chosen: Sequence[int]
) -> Comparison:
    """Compare the scores of all images, (N,) each, with the errors of those that have a true mask.

    Args:
        scores: by name.
        errors: of each image, None where there is no mask.
        chosen: the indices of the chosen images.

    Raises:
        DataError: no image has a mask with a labeled pixel.
    """
    if all(error is None for error in errors):
        raise DataError("--masks: no mask of a ranked image has a labeled pixel; nothing to compare with")
    known = np.flatnonzero([error is not None for error in errors])
    true = {name: np.array([error[name] for error in errors if error is not None]) for name in ERRORS}
    pixel_error = true["pixel_error"]
    of_chosen = pixel_error[np.isin(known, chosen)]
    highest = {name: np.argsort(-values[known], kind="stable")[: len(chosen)] for name, values in scores.items()}
    return Comparison(
        images=len(known),
        correlations={
            name: {error: _rank_correlation(values[known], true[error]) for error in ERRORS}
            for name, values in scores.items()
        },
        mean_of_highest={name: float(pixel_error[places].mean()) for name, places in highest.items()},
        mean_of_chosen=float(of_chosen.mean()) if len(of_chosen) else float("nan"),
        mean_of_all=float(pixel_error.mean()),
    )


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return Spearman's correlation of two arrays (N,), -1 to 1; NaN where one of them is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan
    return float(spearmanr(first, second).statistic)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
