"""Predict image files and write the results: masks as PNG, overlays as JPEG."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from segkc_deploy import atomic
from segkc_deploy.data.images import read_image
from segkc_deploy.errors import ConfigError, DataError
from segkc_deploy.overlay import overlay
from segkc_deploy.prediction_record import note, remove_earlier, results_there
from segkc_deploy.predictor import Predictor
from segkc_deploy.prefetch import prefetch
from segkc_deploy.progress import console, track
from segkc_deploy.shrinking import SHRINK_NOTICE, ShrinkNotice
from segkc_deploy.sources import SourceImage

_JPEG_QUALITY = 92
#: libjpeg's limit along a side; larger overlays are written as PNG.
_JPEG_LONGEST_SIDE = 65500


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
    alpha: float | None = 0.5,
    shrink_notice: float = SHRINK_NOTICE,
    resume: bool = False,
) -> int:
    """Write `out/masks/<id>.png` and `out/overlays/<id>.jpg` for each image.

    A mask file is a single-channel 8-bit PNG of class ids at the image's own size. An overlay that is too wide or high
    for JPEG is written as PNG. An image that cannot be read, or for which the memory is too small, is named on stderr
    and left out. What an earlier call wrote into `out` is deleted first, unless `resume` is set; other files stay.

    Args:
        predictor: what predicts.
        images: what is predicted.
        out: the folder for the results.
        batch_size: how many images run at once, where the artifact leaves that open.
        alpha: how strongly the overlays show the colors (0-1); None writes no overlays.
        shrink_notice: how many times smaller a side may become for the network before it is said.
        resume: keep what an earlier call wrote, and leave out the images whose results are there.

    Returns:
        How many images were left out.

    Raises:
        ConfigError: a result could not be written.
    """
    batch_size = predictor.batch_size(batch_size)
    images = images_to_predict(images, out, alpha is not None, resume)
    shrinking = ShrinkNotice(predictor.contract, shrink_notice)
    failed = 0
    batch: list[tuple[SourceImage, np.ndarray]] = []
    for image, pixels in track(prefetch(_read, images), "Predicting", total=len(images)):
        if isinstance(pixels, DataError):
            failed += 1
            report_left_out(pixels)
            continue
        shrinking.look_at(image.path, pixels.shape[:2])
        batch.append((image, pixels))
        if len(batch) == batch_size:
            failed += _predict_batch(predictor, batch, out, alpha)
            batch = []
    if batch:
        failed += _predict_batch(predictor, batch, out, alpha)
    return failed


def images_to_predict(images: Sequence[SourceImage], out: Path, overlays: bool, resume: bool) -> Sequence[SourceImage]:
    """Return the images that have no results in `out` yet; without `resume` all, after deleting earlier results.

    Files appear whole or not at all, so a killed run leaves none that is incomplete. A GeoTIFF has no overlay.
    """
    if not resume:
        remove_earlier(out)
        return images
    there = results_there(out)

    def is_done(image: SourceImage) -> bool:
        if f"masks/{image.id}.tif" in there:
            return True
        overlay_there = not {f"overlays/{image.id}.jpg", f"overlays/{image.id}.png"}.isdisjoint(there)
        return f"masks/{image.id}.png" in there and (overlay_there or not overlays)

    return [image for image in images if not is_done(image)]


def report_left_out(reason: object) -> None:
    """Name a file that has no results, and why."""
    console.print(f"left out: {reason}", style="yellow", markup=False, soft_wrap=True)


def _read(image: SourceImage) -> tuple[SourceImage, np.ndarray | DataError]:
    try:
        return image, read_image(image.path)
    except DataError as error:
        return image, error


def _predict_batch(
    predictor: Predictor, batch: list[tuple[SourceImage, np.ndarray]], out: Path, alpha: float | None
) -> int:
    """Predict and write a batch; return how many of its images did not fit into memory."""
    try:
        masks = predictor.predict([pixels for _, pixels in batch], batch_size=len(batch))
        for (image, pixels), mask in zip(batch, masks, strict=True):
            write_mask(out, image, mask)
            if alpha is not None:
                write_overlay(out, image, overlay(pixels, mask, predictor.labels, alpha))
    except (MemoryError, cv2.error):  # OpenCV's resizing raises its own error where memory is short
        if len(batch) > 1:
            return sum(_predict_batch(predictor, [one], out, alpha) for one in batch)
        image, pixels = batch[0]
        height, width = pixels.shape[:2]
        report_left_out(f"{image.path}: too little memory for its {width}x{height} pixels; use --tile")
        return 1
    return 0


def write_mask(out: Path, image: SourceImage, mask: np.ndarray) -> None:
    """Write `out/masks/<id>.png`; `mask` is uint8 (H, W)."""
    _write(out, Path("masks", f"{image.id}.png"), mask, [])


def write_overlay(out: Path, image: SourceImage, picture: np.ndarray) -> None:
    """Write `out/overlays/<id>.jpg`, or `.png` where JPEG is too small; `picture` is uint8 (H, W, 3) RGB."""
    picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    if max(picture.shape[:2]) > _JPEG_LONGEST_SIDE:
        _write(out, Path("overlays", f"{image.id}.png"), picture, [])
    else:
        _write(out, Path("overlays", f"{image.id}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])


def _write(out: Path, name: Path, pixels: np.ndarray, parameters: list[int]) -> None:
    """Encode `pixels` as the suffix of `name` says and write them below `out`."""
    path = out / name
    encoded, data = cv2.imencode(path.suffix, pixels, parameters)
    assert encoded
    try:
        # Noted first: a killed run then leaves nothing that is not known as its own.
        note(out, name)
        atomic.write_bytes(path, data.tobytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}; choose another --out") from None
