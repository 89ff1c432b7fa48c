"""Predict image files in tiles: large photographs as PNG, TIFF as GeoTIFF."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segkc_deploy.data.images import read_image
from segkc_deploy.errors import ConfigError, DataError
from segkc_deploy.geotiff import predict_geotiff
from segkc_deploy.overlay import overlay
from segkc_deploy.prediction_files import images_to_predict, report_left_out, write_mask, write_overlay
from segkc_deploy.prediction_record import note
from segkc_deploy.predictor import Predictor
from segkc_deploy.progress import progress
from segkc_deploy.sources import SourceImage
from segkc_deploy.tiles import predict_tiled

_TIFF = frozenset({".tif", ".tiff"})


def predict_files_tiled(
    predictor: Predictor,
    images: Sequence[SourceImage],
    out: Path,
    stride: int | None = None,
    batch_size: int = 1,
    alpha: float | None = 0.5,
    resume: bool = False,
) -> int:
    """Write `out/masks/<id>.png` and `out/overlays/<id>.jpg` for each image, and `out/masks/<id>.tif` for each TIFF.

    What an earlier call wrote into `out` is deleted first, unless `resume` is set. A TIFF is never in memory as a
    whole, and has no overlay.

    Args:
        predictor: what predicts.
        images: what is predicted.
        out: the folder for the results.
        stride: pixels from one window to the next; two thirds of the window if None.
        batch_size: windows that run at once.
        alpha: how strongly the overlays show the colors (0-1); None writes no overlays.
        resume: keep what an earlier call wrote, and leave out the images whose results are there.

    Returns:
        How many images could not be read.

    Raises:
        ConfigError: a result cannot be written, or the stride leaves gaps.
        MissingDependencyError: there is a TIFF, and rasterio is not installed.
    """
    steps = None if stride is None else (stride, stride)
    images = images_to_predict(images, out, alpha is not None, resume)
    failed = 0
    with progress("Predicting") as tell:
        for done, image in enumerate(images):
            name = f"{image.path.name}, {done + 1} of {len(images)}"
            tell(done / len(images), name)
            try:
                if image.path.suffix.lower() in _TIFF:
                    target = Path("masks", f"{image.id}.tif")
                    note(out, target)
                    for share in predict_geotiff(predictor, image.path, out / target, steps, batch_size):
                        tell((done + share) / len(images), name)
                else:
                    _predict_whole(predictor, image, read_image(image.path), out, steps, batch_size, alpha)
            except DataError as error:
                failed += 1
                report_left_out(error)
            except OSError as error:
                raise ConfigError(f"{out}: cannot be written into: {error.strerror}; choose another --out") from None
    return failed


def _predict_whole(
    predictor: Predictor,
    image: SourceImage,
    pixels: np.ndarray,
    out: Path,
    stride: tuple[int, int] | None,
    batch_size: int,
    alpha: float | None,
) -> None:
    mask = predict_tiled(predictor, pixels, stride, batch_size)
    write_mask(out, image, mask)
    if alpha is not None:
        write_overlay(out, image, overlay(pixels, mask, predictor.labels, alpha))
