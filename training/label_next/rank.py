"""Every candidate image scored, one at a time: what is kept of each is a few numbers and a pooled feature."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from segkc_deploy.data.images import read_image
from segkc_deploy.data.samples import Sample
from segkc_deploy.errors import DataError
from segkc_deploy.pixel_format import PixelFormat
from segkc_deploy.prefetch import prefetch
from segkc_deploy.progress import console, track
from segkc_deploy.training.label_next.networks import RunNetworks
from segkc_deploy.training.label_next.true_errors import Truth
from segkc_deploy.training.label_next.uncertainty import ImageScores


@dataclass(frozen=True)
class RankedImage:
    """An image and what the networks make of it.

    Attributes:
        sample: the image.
        scores: by their name in `SCORES`, 0 to 1.
        class_shares: the share of the junior's mask that each class has, 0 to 1.
        feature: (D,), unit length; look-alikes have features close to each other.
        errors: the junior's true errors, by their names in `true_errors.ERRORS`, where there is a mask.
        has_bad_mask: whether there is a true mask that cannot be used.
    """

    sample: Sample
    scores: Mapping[str, float]
    class_shares: tuple[float, ...]
    feature: np.ndarray
    errors: Mapping[str, float] | None = None
    has_bad_mask: bool = False


def rank_images(networks: RunNetworks, samples: tuple[Sample, ...], truth: Truth | None) -> list[RankedImage]:
    """Score `samples` in their order.

    An image that cannot be read is named on stderr and left out. So is a true mask, whose image is ranked without it.
    """
    return [
        _rank(networks, sample, image, truth)
        for sample, image in readable(samples, "Ranking unlabeled images", networks.pixels)
    ]


def readable(samples: tuple[Sample, ...], description: str, pixels: PixelFormat) -> Iterator[tuple[Sample, np.ndarray]]:
    """Yield each sample with its image, (H, W, bands); name those that cannot be read on stderr."""
    read = partial(_read, pixels=pixels)
    for sample, image in track(prefetch(read, samples), description, total=len(samples)):
        if isinstance(image, DataError):
            console.print(f"left out: {image}", style="yellow", markup=False, soft_wrap=True)
        else:
            yield sample, image


def _read(sample: Sample, pixels: PixelFormat) -> tuple[Sample, np.ndarray | DataError]:
    try:
        return sample, read_image(sample.image, pixels)
    except DataError as error:
        return sample, error


def _rank(networks: RunNetworks, sample: Sample, image: np.ndarray, truth: Truth | None) -> RankedImage:
    scores, parts = ImageScores(), []
    for junior, senior in networks.probabilities(image):
        scores.add(junior, senior)
        parts.append(junior.argmax(dim=0).to(torch.uint8).cpu().numpy())
    mask = np.concatenate(parts)
    counts = np.bincount(mask.ravel(), minlength=networks.labels.num_classes)
    shares = tuple((counts / mask.size).tolist())
    ranked = RankedImage(sample, scores.means(), shares, networks.feature())
    if truth is None:
        return ranked
    try:
        return replace(ranked, errors=truth.errors(sample, mask))
    except DataError as error:
        console.print(f"not compared: {error}", style="yellow", markup=False, soft_wrap=True)
        return replace(ranked, has_bad_mask=True)
