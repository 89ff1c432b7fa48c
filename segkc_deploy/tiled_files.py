"""Predict image files in tiles: large photographs as PNG, TIFF as GeoTIFF."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segkc_deploy.data.images import read_image
from segkc_deploy.errors import ConfigError, DataError
from segkc_deploy.geotiff import predict_geotiff, reduced_pair
from segkc_deploy.overlay import overlay
from segkc_deploy.prediction_files import images_to_predict, report_left_out
from segkc_deploy.prediction_record import note
from segkc_deploy.predictor import Predictor
from segkc_deploy.progress import progress
from segkc_deploy.result_files import Outputs, write_overlay, write_results
from segkc_deploy.sources import SourceImage
from segkc_deploy.tiles import predict_tiled

_TIFF = frozenset({".tif", ".tiff"})

_EVERYTHING = Outputs()

#: Pixels along the longer side of a TIFF's overlay.
_OVERLAY_SIDE = 2048


def predict_files_tiled(
    predictor: Predictor,
    images: Sequence[SourceImage],
    out: Path,
    stride: int | None = None,
    batch_size: int = 1,
    outputs: Outputs = _EVERYTHING,
    resume: bool = False,
) -> int:
    """Write `out/masks/<id>.png`, and what `outputs` says, for each image; `out/masks/<id>.tif` for each TIFF.

    What an earlier call wrote into `out` is deleted first, unless `resume` is set. A TIFF is never in memory as a
    whole; its overlay is shrunk to 2048 pixels along the longer side.

    Args:
        predictor: what predicts.
        images: what is predicted.
        out: the folder for the results.
        stride: pixels from one window to the next; two thirds of the window if None.
        batch_size: windows that run at once.
        outputs: what is written besides masks.
        resume: keep what an earlier call wrote, and leave out the images whose results are there.

    Returns:
        How many images could not be read.

    Raises:
        ConfigError: a result cannot be written, the stride leaves gaps, or further files of a TIFF are asked for.
        MissingDependencyError: there is a TIFF, and rasterio is not installed.
    """
    if not (pixels := predictor.contract.pixels).is_rgb:
        raise ConfigError(f"--tile reads RGB of 8 bits, but the artifact takes {pixels}; leave --tile out")
    steps = None if stride is None else (stride, stride)
    images = images_to_predict(images, out, outputs, resume)
    if outputs.also and (tiffs := [image.path for image in images if _is_tiff(image)]):
        raise ConfigError(
            f"{tiffs[0]}: --also is for masks that fit into memory; with --tile a TIFF gets a GeoTIFF alone, of which"
            " gdal_polygonize makes polygons"
        )
    failed = 0
    with progress("Predicting") as tell:
        for done, image in enumerate(images):
            name = f"{image.path.name}, {done + 1} of {len(images)}"
            tell(done / len(images), name)
            try:
                if _is_tiff(image):
                    target = Path("masks", f"{image.id}.tif")
                    note(out, target)
                    for share in predict_geotiff(predictor, image.path, out / target, steps, batch_size):
                        tell((done + share) / len(images), name)
                    if outputs.alpha is not None:
                        pair = reduced_pair(image.path, out / target, _OVERLAY_SIDE)
                        write_overlay(out, image, overlay(*pair, predictor.labels, outputs.alpha))
                else:
                    _predict_whole(predictor, image, read_image(image.path), out, steps, batch_size, outputs)
            except DataError as error:
                failed += 1
                report_left_out(error)
            except OSError as error:
                raise ConfigError(f"{out}: cannot be written into: {error.strerror}; choose another --out") from None
    return failed


def _is_tiff(image: SourceImage) -> bool:
    return image.path.suffix.lower() in _TIFF


def _predict_whole(
    predictor: Predictor,
    image: SourceImage,
    pixels: np.ndarray,
    out: Path,
    stride: tuple[int, int] | None,
    batch_size: int,
    outputs: Outputs,
) -> None:
    mask = predict_tiled(predictor, pixels, stride, batch_size)
    write_results(out, image, pixels, mask, predictor.labels, outputs)
