"""Predict image files in tiles: large photographs as PNG, TIFF as GeoTIFF."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from segkc_deploy.data.images import read_image
from segkc_deploy.errors import ConfigError, DataError
from segkc_deploy.geotiff import import_rasterio, predict_geotiff, reduced_pair
from segkc_deploy.overlay import overlay
from segkc_deploy.prediction_files import OUT_OF_MEMORY, images_to_predict, network_of, report_left_out, settings_of
from segkc_deploy.prediction_record import Further, ResultFolder
from segkc_deploy.predictor import Predictor
from segkc_deploy.progress import progress
from segkc_deploy.result_files import Outputs, results_of, write_overlay, write_results
from segkc_deploy.sources import SourceImage
from segkc_deploy.tiles import (
    Tiling,
    default_stride,
    predict_tiled,
    predict_tiled_with_confidence,
    require_tiled_confidence,
)

_TIFF = frozenset({".tif", ".tiff"})

_EVERYTHING = Outputs()

#: What helps where memory is short: other files are read as a whole, and a TIFF strip by strip, however large.
_SAVE_IN_TILES = "save it as a TIFF in tiles, as `gdal_translate -co TILED=YES` does"

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
    whole; its overlay is shrunk to 2048 pixels along the longer side. An image that cannot be read, or for which the
    memory is too small, is named on stderr and left out.

    Args:
        predictor: what predicts.
        images: what is predicted.
        out: the folder for the results.
        stride: pixels from one window to the next; two thirds of the window if None.
        batch_size: windows that run at once.
        outputs: what is written besides masks.
        resume: keep what an earlier call wrote, and leave out the images whose results are there.

    Returns:
        How many images were left out.

    Raises:
        ConfigError: a result cannot be written, the stride leaves gaps, or further files of a TIFF are asked for.
        MissingDependencyError: there is a TIFF, and rasterio is not installed.
    """
    check_tiling(predictor, images, outputs, stride)
    settings = settings_of(network_of(predictor), outputs, tile=True, stride=stride)
    images = images_to_predict(images, out, outputs, resume, settings)
    failed = 0
    with progress("Predicting") as tell:
        for reason in predict_each_tiled(predictor, images, ResultFolder(out), stride, batch_size, outputs, tell):
            if reason is not None:
                failed += 1
                report_left_out(reason)
    return failed


def predict_each_tiled(
    predictor: Predictor,
    images: Sequence[SourceImage],
    folder: ResultFolder,
    stride: int | None,
    batch_size: int,
    outputs: Outputs,
    tell: Callable[[float, str], None],
) -> Iterator[str | None]:
    """Predict images in tiles and write their results; yield for each why it was left out, or None.

    `tell` is called with the share that is done (0-1) and what is done; see `predict_files_tiled` for the rest.
    """
    steps = None if stride is None else (stride, stride)
    for done, image in enumerate(images):
        name = f"{image.path.name}, {done + 1} of {len(images)}"
        tell(done / len(images), name)
        try:
            for share in _predict_one(predictor, image, folder, steps, batch_size, outputs):
                tell((done + share) / len(images), name)
        except DataError as error:
            yield str(error)
            continue
        except OUT_OF_MEMORY:
            yield f"{image.path}: too little memory to predict it; {_SAVE_IN_TILES}"
            continue
        except OSError as error:
            raise ConfigError(
                f"{folder.path}: cannot be written into: {error.strerror}; choose another --out"
            ) from None
        yield None


def check_tiling(
    predictor: Predictor, images: Sequence[SourceImage], outputs: Outputs, stride: int | None = None
) -> None:
    """Refuse what cannot be predicted in tiles.

    Raises:
        ArtifactError: the confidence is wanted, and the artifact gives neither it nor logits.
        ConfigError: the artifact takes other pixels than RGB, the stride leaves gaps, or further files of a TIFF are
            asked for.
        MissingDependencyError: there is a TIFF, and rasterio is not installed.
    """
    window = predictor.contract.size
    Tiling(window, window, default_stride(window) if stride is None else (stride, stride))  # or it is refused
    if any(map(_is_tiff, images)):
        import_rasterio()
    if not (pixels := predictor.contract.pixels).is_rgb:
        raise ConfigError(f"--tile reads RGB of 8 bits, but the artifact takes {pixels}; leave --tile out")
    if Further.CONFIDENCE in outputs.also:
        require_tiled_confidence(predictor)
    if set(outputs.also) - {Further.CONFIDENCE} and (tiffs := [image.path for image in images if _is_tiff(image)]):
        raise ConfigError(
            f"{tiffs[0]}: with --tile, --also {'|'.join(kind for kind in Further if kind != Further.CONFIDENCE)} is for"
            " masks that fit into memory; gdal_polygonize makes polygons of the GeoTIFF"
        )


def _predict_one(
    predictor: Predictor,
    image: SourceImage,
    folder: ResultFolder,
    stride: tuple[int, int] | None,
    batch_size: int,
    outputs: Outputs,
) -> Iterator[float]:
    """Predict an image and write its results; yield the share that is done."""
    wanted = Further.CONFIDENCE in outputs.also
    if not _is_tiff(image):
        pixels = read_image(image.path)
        mask, confidence = _predict_whole(predictor, pixels, stride, batch_size, wanted)
        write_results(folder, results_of(folder.path, image, pixels, mask, predictor.labels, outputs, confidence))
        return
    target = Path("masks", f"{image.id}.tif")
    beside = Path(Further.CONFIDENCE, f"{image.id}.tif")
    folder.note(target, *([beside] if wanted else []))
    second = folder.path / beside if wanted else None
    yield from predict_geotiff(predictor, image.path, folder.path / target, stride, batch_size, second)
    if outputs.alpha is not None:
        pair = reduced_pair(image.path, folder.path / target, _OVERLAY_SIDE)
        write_overlay(folder, image, overlay(*pair, predictor.labels, outputs.alpha))


def _is_tiff(image: SourceImage) -> bool:
    return image.path.suffix.lower() in _TIFF


def _predict_whole(
    predictor: Predictor, pixels: np.ndarray, stride: tuple[int, int] | None, batch_size: int, with_confidence: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the mask of an image in memory and, where it is wanted, its confidence."""
    if with_confidence:
        return predict_tiled_with_confidence(predictor, pixels, stride, batch_size)
    return predict_tiled(predictor, pixels, stride, batch_size), None
