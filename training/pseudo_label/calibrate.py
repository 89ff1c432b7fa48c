"""The thresholds of a run's network, by its confidence on the validation images."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segkc_deploy.data.masks import read_sample
from segkc_deploy.data.samples import ImageSets, Sample
from segkc_deploy.prefetch import prefetch
from segkc_deploy.progress import track
from segkc_deploy.training.evaluation.prediction import most_probable
from segkc_deploy.training.pseudo_label.confidence import (
    ClassQuality,
    ConfidenceCounts,
    Thresholds,
    choose_thresholds,
    fold_of,
    measure,
    measure_held_out,
    require_labeled_pixels,
)


@dataclass(frozen=True)
class Calibration:
    """Thresholds, and what they make of the validation images.

    Attributes:
        thresholds: by class.
        images: how many validation images there were.
        qualities: by class, on the images that the thresholds were chosen on; empty without validation images.
        held_out: by class, with thresholds that other images gave; None where they were given or one image is all.
    """

    thresholds: Thresholds
    images: int = 0
    qualities: tuple[ClassQuality, ...] = ()
    held_out: tuple[ClassQuality, ...] | None = None


def calibrate(
    probabilities: Callable[[np.ndarray], Iterable[Tensor]],
    sets: ImageSets,
    precision: float,
    given: Thresholds | None,
    where: str,
) -> Calibration:
    """Choose thresholds on `sets.val`, or measure those that are `given`.

    Args:
        probabilities: from an image, uint8 (H, W, 3) RGB, to class probabilities in parts (C, rows, W).
        sets: with validation images.
        precision: the share of the kept pixels, 0 to 1, that is to be right.
        given: thresholds to measure instead of choosing some.
        where: what an error names.

    Raises:
        DataError: an image or a mask cannot be used, or no pixel is labeled.
    """
    folds = [ConfidenceCounts(sets.labels.num_classes) for _ in range(fold_of(len(sets.val) - 1, len(sets.val)) + 1)]

    def read(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        image, mask = read_sample(sample, sets)
        assert mask is not None
        return image, mask

    images = track(prefetch(read, sets.val), "Measuring confidence on validation images", total=len(sets.val))
    for index, (image, mask) in enumerate(images):
        confidence, labels = most_probable(probabilities(image))
        truth = torch.from_numpy(mask.astype(np.int64)).to(labels.device)
        known = truth != sets.labels.ignore_index
        folds[fold_of(index, len(sets.val))].update(labels[known], confidence[known], truth[known])
    total = ConfidenceCounts.sum(folds)
    require_labeled_pixels(total, where)
    thresholds = given or choose_thresholds(total, precision)
    held_out = None if given else measure_held_out(folds, precision)
    return Calibration(
        thresholds, len(sets.val), tuple(measure(total, thresholds)), None if held_out is None else tuple(held_out)
    )
