"""Score masks against the validation masks of a data set: training, the benchmark and `eval` all do it here."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from segkc_deploy.boundary import BoundaryCounts, BoundaryScores
from segkc_deploy.data.masks import read_mask, read_sample
from segkc_deploy.data.samples import ImageSets, Sample
from segkc_deploy.errors import DataError, UnreadableFileError
from segkc_deploy.labels import Labels
from segkc_deploy.metrics import ConfusionMatrix, ImageCounts, Scores
from segkc_deploy.prefetch import prefetch
from segkc_deploy.progress import track

#: Returns the image and the mask of a sample, as `read_sample` does.
ReadSample = Callable[[Sample, ImageSets], tuple[np.ndarray, np.ndarray | None]]


@dataclass(frozen=True)
class ScoredImage:
    """One validation image: `image` uint8 (H, W, 3) RGB, `truth` and `prediction` uint8 (H, W), its own `matrix`."""

    sample: Sample
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    matrix: ConfusionMatrix

    @property
    def scores(self) -> Scores:
        """The scores of this image alone."""
        return self.matrix.scores()


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of one network on one validation set.

    `images` is how many images were scored and `resolution` says in words at which size; `image_counts` has a row for
    each, in the order of the validation set. `confusion` counts the pixels of all images, int64 (classes, classes), a
    row for each class of the truth and a column for each that was predicted.
    """

    scores: Scores
    boundary: BoundaryScores
    labels: Labels
    images: int
    resolution: str
    image_counts: ImageCounts
    confusion: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """Return the metrics as JSON values: percentages, or null where a metric is undefined, and counts of pixels."""
        return {
            "miou": _finite(self.scores.miou),
            "pixel_accuracy": _finite(self.scores.pixel_accuracy),
            "iou": self._by_class(self.scores.iou),
            "precision": self._by_class(self.scores.precision),
            "recall": self._by_class(self.scores.recall),
            "boundary_miou": _finite(self.boundary.miou),
            "boundary_iou": self._by_class(self.boundary.iou),
            "images": self.images,
            "pixels": self.scores.pixels,
            "confusion": self.confusion.tolist(),
            "resolution": self.resolution,
            "rule": self.scores.rule,
            "boundary_rule": self.boundary.rule,
        }

    def _by_class(self, values: Sequence[float]) -> dict[str, float | None]:
        return dict(zip(self.labels.names, map(_finite, values), strict=True))


def evaluate(
    predict: Callable[[np.ndarray], np.ndarray],
    sets: ImageSets,
    description: str = "Evaluating",
    on_image: Callable[[ScoredImage], None] | None = None,
) -> Evaluation:
    """Predict every validation image of `sets` at its own size and compare with its mask, which has that size too.

    Args:
        predict: from an image, uint8 (H, W, 3) RGB, to its mask, uint8 (H, W) class ids.
        sets: the data; `sets.val` is evaluated.
        description: what the progress bar says.
        on_image: called with each image after it was scored, for instance to keep the worst ones.

    Raises:
        DataError: there are no validation images, one cannot be used, or none has a labeled pixel.
    """
    require_validation_images(sets)
    labels = sets.labels
    boundary = BoundaryCounts(labels.num_classes, labels.ignore_index)
    counts: list[tuple[np.ndarray, np.ndarray]] = []

    def count_more(scored: ScoredImage) -> None:
        boundary.update(scored.truth, scored.prediction)
        counts.append(scored.matrix.intersection_and_union())
        if on_image is not None:
            on_image(scored)

    (total,), sizes = count_pixels([predict], sets, sets.val, description, count_more)
    scores = scores_of(total, sets)
    intersections, unions = zip(*counts, strict=True)
    image_counts = ImageCounts(np.stack(intersections), np.stack(unions))
    return Evaluation(scores, boundary.scores(), labels, len(sets.val), _resolution(sizes), image_counts, total.counts)


def require_validation_images(sets: ImageSets) -> None:
    """Raise DataError if there are none."""
    if not sets.val:
        raise DataError("the data spec names no validation images; add a val section with images and masks")


def require_labeled_pixels(sets: ImageSets) -> None:
    """Read validation masks until one has a labeled pixel, mostly the first; none is needed where there are no images.

    A mask that cannot be read counts as one that has: what scores it says so.

    Raises:
        DataError: a mask can be read, but not used, or all hold ignored pixels alone.
    """
    for sample in sets.val:
        try:
            if sample.mask is None or (read_mask(sample, sets.coding) != sets.labels.ignore_index).any():
                return
        except UnreadableFileError:
            return
    if sets.val:
        raise _nothing_to_score(sets)


def count_pixels(
    predictors: Sequence[Callable[[np.ndarray], np.ndarray]],
    sets: ImageSets,
    samples: Sequence[Sample],
    description: str,
    on_image: Callable[[ScoredImage], None] | None = None,
    read: ReadSample = read_sample,
) -> tuple[list[ConfusionMatrix], set[tuple[int, int]]]:
    """Return the confusion matrix of each predictor and the sizes (height, width) of the images.

    The images are `samples`, some or all of `sets.val`; each is read once for all predictors. The matrices of parts of
    a set add up to that of the whole. `read` gives what `read_sample` does; for the other arguments and the errors see
    `evaluate`.
    """
    labels = sets.labels
    totals = [ConfusionMatrix(labels.num_classes, labels.ignore_index) for _ in predictors]
    sizes: set[tuple[int, int]] = set()
    for sample, image, truth in track(prefetch(partial(_read, sets, read), samples), description, total=len(samples)):
        sizes.add(truth.shape)
        for predict, total in zip(predictors, totals, strict=True):
            prediction = predict(image)
            matrix = ConfusionMatrix(labels.num_classes, labels.ignore_index)
            try:
                matrix.update(truth, prediction)
            except DataError as error:
                raise DataError(f"{sample.image}: {error}") from None
            total.counts += matrix.counts
            if on_image is not None:
                on_image(ScoredImage(sample, image, truth, prediction, matrix))
    return totals, sizes


def scores_of(total: ConfusionMatrix, sets: ImageSets) -> Scores:
    """Return the scores of all validation images, whose matrix `total` is.

    Raises:
        DataError: no pixel was counted.
    """
    scores = total.scores()
    if scores.pixels == 0:
        raise _nothing_to_score(sets)
    return scores


def _nothing_to_score(sets: ImageSets) -> DataError:
    return DataError(
        f"{sets.val[0].mask}: like every validation mask it holds ignored pixels alone; nothing to score; look at the"
        " masks with `segkc-deploy check`"
    )


def _read(sets: ImageSets, read: ReadSample, sample: Sample) -> tuple[Sample, np.ndarray, np.ndarray]:
    image, mask = read(sample, sets)
    if mask is None:
        raise DataError(f"{sample.image}: a validation image needs a mask")
    return sample, image, mask


def _resolution(sizes: set[tuple[int, int]]) -> str:
    """Say at which sizes, (height, width) each, masks were compared."""
    smallest, largest = (bound(sizes, key=lambda size: (math.prod(size), size)) for bound in (min, max))
    texts = [f"{width}×{height}" for height, width in (smallest, largest)]
    return f"each image's own size, {' to '.join(dict.fromkeys(texts))} (width × height)"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
