"""Mean and spread of each band, measured on the training images: the normalization of networks that do not take RGB."""

import numpy as np

from segkc_deploy.data.images import read_image
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.errors import DataError, UnreadableFileError
from segkc_deploy.prefetch import prefetch
from segkc_deploy.progress import track
from segkc_deploy.training.models.spec import InputSpec

#: Images beyond these change the statistics hardly at all.
_MOST_IMAGES = 500
#: A band of one value would be divided by zero.
_LEAST_STD = 1e-4


def measured_input(sets: ImageSets) -> InputSpec | None:
    """Return bands, bits, and the mean and the standard deviation of each band; None for RGB.

    Over all pixels of the labeled and unlabeled images, of more than 500 those that are evenly spaced over the list, as
    shares of the largest value. Files that cannot be read are passed over; the training reports them.

    Raises:
        DataError: no image can be read.
    """
    if sets.pixels.is_rgb:
        return None
    samples = sets.labeled + sets.unlabeled
    places = np.linspace(0, len(samples) - 1, min(len(samples), _MOST_IMAGES)).round().astype(int)
    paths = [samples[place].image for place in places]
    count, total, squares = 0, np.zeros(sets.pixels.bands), np.zeros(sets.pixels.bands)

    def sums(path: object) -> tuple[int, np.ndarray, np.ndarray] | UnreadableFileError:
        try:
            image = read_image(path, sets.pixels)  # type: ignore[arg-type]
        except UnreadableFileError as error:
            return error
        values = image.reshape(-1, sets.pixels.bands) / sets.pixels.largest
        return len(values), values.sum(axis=0), np.square(values).sum(axis=0)

    failed = None
    for found in track(prefetch(sums, paths), "Measuring the bands", total=len(paths)):
        if isinstance(found, UnreadableFileError):
            failed = found
            continue
        count += found[0]
        total += found[1]
        squares += found[2]
    if not count:
        raise failed or DataError("the data spec names no training images")
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return InputSpec(
        bands=sets.pixels.bands,
        bits=sets.pixels.bits,
        mean=tuple(mean.tolist()),
        std=tuple(np.maximum(std, _LEAST_STD).tolist()),
    )


def unmeasured_input(sets: ImageSets) -> InputSpec | None:
    """Return the same with made-up statistics, for estimates that read no image; None for RGB."""
    if sets.pixels.is_rgb:
        return None
    bands = sets.pixels.bands
    return InputSpec(bands=bands, bits=sets.pixels.bits, mean=(0.5,) * bands, std=(0.25,) * bands)
