"""Mean and spread of each band, measured on the training images: the normalization of networks that do not take RGB."""

from pathlib import Path

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
#: Pixels that are widened at once: of a whole image they would take many times its memory.
_PIXELS_AT_ONCE = 2**16


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
    pixels, totals, squares = 0, _zeros(sets.pixels.bands), _zeros(sets.pixels.bands)

    def sums(path: Path) -> tuple[int, np.ndarray, np.ndarray] | UnreadableFileError:
        try:
            image = read_image(path, sets.pixels)
        except UnreadableFileError as error:
            return error
        return image.shape[0] * image.shape[1], *band_sums(image)

    failed = None
    for found in track(prefetch(sums, paths), "Measuring the bands", total=len(paths)):
        if isinstance(found, UnreadableFileError):
            failed = found
            continue
        pixels += found[0]
        totals += found[1]
        squares += found[2]
    if not pixels:
        raise failed or DataError("the data spec names no training images")
    # Whole numbers until here, so that nothing is lost where the spread is small beside the mean.
    mean = (totals / (pixels * sets.pixels.largest)).astype(np.float64)
    variance = (pixels * squares - totals**2) / (pixels * sets.pixels.largest) ** 2
    std = np.sqrt(variance.astype(np.float64))
    return InputSpec(
        bands=sets.pixels.bands,
        bits=sets.pixels.bits,
        mean=tuple(mean.tolist()),
        std=tuple(np.maximum(std, _LEAST_STD).tolist()),
    )


def band_sums(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of each band's values and of their squares, exactly, as Python integers (bands,).

    Takes a few MB besides the image.

    Args:
        image: uint8 or uint16 (H, W, bands).
    """
    height, width, bands = image.shape
    totals, squares = _zeros(bands), _zeros(bands)
    rows = max(1, _PIXELS_AT_ONCE // width)
    for first in range(0, height, rows):
        # Band after band, in which sums along a band are several times as fast.
        values = image[first : first + rows].reshape(-1, bands).T.astype(np.uint64, order="C")
        totals += values.sum(axis=1).astype(object)
        squares += np.einsum("bp,bp->b", values, values).astype(object)
    return totals, squares


def _zeros(bands: int) -> np.ndarray:
    """As Python integers: 64 bits are too few for the squares of many large images."""
    return np.full(bands, 0, dtype=object)


def unmeasured_input(sets: ImageSets) -> InputSpec | None:
    """Return the same with made-up statistics, for estimates that read no image; None for RGB."""
    if sets.pixels.is_rgb:
        return None
    bands = sets.pixels.bands
    return InputSpec(bands=bands, bits=sets.pixels.bits, mean=(0.5,) * bands, std=(0.25,) * bands)
