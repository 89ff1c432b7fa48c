"""The real images on which precision is calibrated and artifacts are verified."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segkc_deploy.data.samples import ImageSets, MaskCoding, Sample
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import ConfigError, DataError
from segkc_deploy.pixel_format import require_same_format
from segkc_deploy.sources import find_images
from segkc_deploy.training.files.network_file import NetworkMetadata


@dataclass(frozen=True)
class RealImages:
    """The images that an export uses.

    Attributes:
        sets: the data set; its `val` images, with or without masks, verify.
        verification: the images on which the artifact is verified.
        calibration: images for the ranges of activations; other than `verification` where there are any.
        labeled: images with masks, on which quantizations are compared; other than `verification`.
    """

    sets: ImageSets
    verification: tuple[Sample, ...]
    calibration: tuple[Sample, ...]
    labeled: tuple[Sample, ...]

    @property
    def calibrates_on_verification(self) -> bool:
        """Whether there are no images besides those for verification."""
        return not self.sets.labeled and not self.sets.unlabeled

    @property
    def masks(self) -> bool:
        """Whether mIoU can be measured."""
        return all(sample.mask is not None for sample in self.verification)


def real_images(
    metadata: NetworkMetadata, data: Path | None, source: str | None, verify: int, calibrate: int
) -> RealImages:
    """Find the images of a data spec, or of a folder of images without masks.

    Args:
        metadata: what the network says of itself; the data has to have its classes.
        data: a data spec; its validation images verify, its training images calibrate.
        source: an image, a folder or a glob pattern of images that verify instead of the spec's.
        verify, calibrate: how many images to use, at most, spread evenly.

    Raises:
        UserError: there are no images, or the data has other classes.
    """
    sets = load_data_spec(data).resolve() if data else ImageSets(MaskCoding(metadata.labels))
    if sets.labels.names != metadata.labels.names:
        raise DataError(f"{data}: its classes ({', '.join(sets.labels.names)}) are not those the junior was trained on")
    if data:
        require_same_format(metadata.network.pixels, sets.pixels, "the junior", data)
    else:
        sets = replace(sets, pixels=metadata.network.pixels)
    if source:
        found = tuple(Sample(image.id, image.path) for image in find_images(source))
        sets = replace(sets, val=found)
    if not sets.val and data:
        raise DataError(f"{data}: no validation images, and an artifact is verified on them (section `val:`)")
    if not sets.val:
        raise ConfigError("an artifact is verified on real images: give --data data.yaml or --verify FOLDER")
    pool = sets.unlabeled or sets.labeled or sets.val
    return RealImages(
        sets=sets,
        verification=spread(sets.val, verify),
        calibration=spread(pool, calibrate),
        labeled=spread(sets.labeled, calibrate),
    )


def spread(samples: Sequence[Sample], count: int) -> tuple[Sample, ...]:
    """Return at most `count` samples, evenly spaced."""
    chosen = np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int)
    return tuple(samples[index] for index in chosen)
