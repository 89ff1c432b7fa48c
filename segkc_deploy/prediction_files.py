"""Predict image files and write the results."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from segkc_deploy.data.images import read_image
from segkc_deploy.errors import ConfigError, DataError
from segkc_deploy.pixel_format import PixelFormat
from segkc_deploy.prediction_record import ResultFolder, remove_earlier, results_there
from segkc_deploy.predictor import Predictor
from segkc_deploy.prefetch import prefetch
from segkc_deploy.progress import console, track
from segkc_deploy.result_files import Outputs, write_results
from segkc_deploy.shrinking import SHRINK_NOTICE, ShrinkNotice
from segkc_deploy.sources import SourceImage

_EVERYTHING = Outputs()


def prepare_folder(out: Path, overwrite: bool) -> None:
    """Make the folder for the results.

    Raises:
        ConfigError: it cannot be made, or holds files already and `overwrite` is not set.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        occupied = any(out.iterdir())
    except OSError as error:
        raise ConfigError(f"{out}: cannot be used as the output folder: {error.strerror}; choose another") from None
    if occupied and not overwrite:
        raise ConfigError(f"{out}: the folder is not empty; choose another, or add --overwrite to write into it")


def predict_files(
    predictor: Predictor,
    images: Sequence[SourceImage],
    out: Path,
    batch_size: int = 1,
    outputs: Outputs = _EVERYTHING,
    shrink_notice: float = SHRINK_NOTICE,
    resume: bool = False,
) -> int:
    """Write `out/masks/<id>.png`, and what `outputs` says, for each image.

    A mask file is a single-channel 8-bit PNG of class ids at the image's own size. An overlay that is too wide or high
    for JPEG is written as PNG. An image that cannot be read, or for which the memory is too small, is named on stderr
    and left out. What an earlier call wrote into `out` is deleted first, unless `resume` is set; other files stay.

    Args:
        predictor: what predicts.
        images: what is predicted.
        out: the folder for the results.
        batch_size: how many images run at once, where the artifact leaves that open.
        outputs: what is written besides masks.
        shrink_notice: how many times smaller a side may become for the network before it is said.
        resume: keep what an earlier call wrote, and leave out the images whose results are there.

    Returns:
        How many images were left out.

    Raises:
        ConfigError: a result could not be written.
    """
    images = images_to_predict(images, out, outputs, resume)
    shrinking = ShrinkNotice(predictor.contract, shrink_notice)
    each = predict_each(predictor, images, ResultFolder(out), batch_size, outputs, shrinking)
    failed = 0
    for reason in track(each, "Predicting", total=len(images), unit="images"):
        if reason is not None:
            failed += 1
            report_left_out(reason)
    return failed


def predict_each(
    predictor: Predictor,
    images: Sequence[SourceImage],
    folder: ResultFolder,
    batch_size: int,
    outputs: Outputs,
    shrinking: ShrinkNotice,
) -> Iterator[str | None]:
    """Predict images and write their results; yield for each why it was left out, or None.

    Raises:
        ConfigError: a result could not be written.
    """
    batch_size = predictor.batch_size(batch_size)
    read = partial(_read, pixels=predictor.contract.pixels)
    batch: list[tuple[SourceImage, np.ndarray]] = []
    for image, pixels in prefetch(read, images):
        if isinstance(pixels, DataError):
            yield str(pixels)
            continue
        shrinking.look_at(image.path, pixels.shape[:2])
        batch.append((image, pixels))
        if len(batch) == batch_size:
            yield from _predict_batch(predictor, batch, folder, outputs)
            batch = []
    if batch:
        yield from _predict_batch(predictor, batch, folder, outputs)


def images_to_predict(
    images: Sequence[SourceImage], out: Path, outputs: Outputs, resume: bool
) -> Sequence[SourceImage]:
    """Return the images that have no results in `out` yet; without `resume` all, after deleting earlier results.

    Files appear whole or not at all, so a killed run leaves none that is incomplete.
    """
    if not resume:
        remove_earlier(out)
        return images
    there = results_there(out)

    return [image for image in images if not outputs.are_there(image.id, there)]


def report_left_out(reason: str) -> None:
    """Name a file that has no results, and why."""
    console.print(f"left out: {reason}", style="yellow", markup=False, soft_wrap=True)


def _read(image: SourceImage, pixels: PixelFormat) -> tuple[SourceImage, np.ndarray | DataError]:
    try:
        return image, read_image(image.path, pixels)
    except DataError as error:
        return image, error


def _predict_batch(
    predictor: Predictor, batch: list[tuple[SourceImage, np.ndarray]], folder: ResultFolder, outputs: Outputs
) -> list[str | None]:
    """Predict and write a batch; return for each image why it was left out, where it did not fit into memory."""
    try:
        masks = predictor.predict([pixels for _, pixels in batch], batch_size=len(batch))
        for (image, pixels), mask in zip(batch, masks, strict=True):
            write_results(folder, image, pixels, mask, predictor.labels, outputs)
    except (MemoryError, cv2.error):  # OpenCV's resizing raises its own error where memory is short
        if len(batch) > 1:
            return [reason for one in batch for reason in _predict_batch(predictor, [one], folder, outputs)]
        image, pixels = batch[0]
        height, width = pixels.shape[:2]
        return [f"{image.path}: too little memory for its {width}x{height} pixels; use --tile"]
    return [None] * len(batch)
