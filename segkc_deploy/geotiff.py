"""Masks of GeoTIFF files of any size: read, predicted and written window by window, the georeference kept."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from segkc_deploy import atomic
from segkc_deploy.errors import DataError, MissingDependencyError
from segkc_deploy.labels import Labels
from segkc_deploy.predictor import Predictor
from segkc_deploy.result_files import as_bytes
from segkc_deploy.tiles import BLOCK, Tiling, Write, default_stride, predict_windows

#: Megabytes of GDAL's cache of blocks; by default it would take a twentieth of the machine's memory.
_CACHE_MB = 256


def predict_geotiff(
    predictor: Predictor,
    source: Path,
    target: Path,
    stride: tuple[int, int] | None = None,
    batch_size: int = 1,
    confidence: Path | None = None,
) -> Iterator[float]:
    """Write the mask of a TIFF file as a GeoTIFF; yield, now and then, the share that is done.

    The mask has one 8-bit band of class ids with the classes' colors and names, and the source's size, coordinate
    reference system, transform or ground control points. Where the source has no data it has `ignore_index`, which is
    its nodata value. It appears when it is complete.

    Args:
        predictor: what predicts.
        source: 8 or 16 bits a channel; gray, palette, or the first three bands as RGB.
        target: the file to write.
        stride: see `tiles.predict_tiled`.
        batch_size: windows that run at once.
        confidence: a second file to write, one 8-bit band of 255 times the confidence, 0 where the source has no data.

    Raises:
        DataError: the source cannot be read.
        ConfigError: the stride leaves gaps.
        MissingDependencyError: rasterio is not installed.
        OSError: the target cannot be written.
    """
    rasterio = _import_rasterio()
    window = predictor.contract.size
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_MB), _reading(rasterio, source), rasterio.open(source) as image:
        bands = _Bands(image, source)
        tiling = Tiling((image.height, image.width), window, stride or default_stride(window))
        with contextlib.ExitStack() as files:

            def into(path: Path, labels: Labels | None) -> Write:
                """Return what writes parts to a new file: class ids where there are labels, else a confidence."""
                temporary = files.enter_context(atomic.atomic_path(path))
                raster = files.enter_context(_created(rasterio, temporary, image, labels))

                def write(top: int, left: int, part: np.ndarray) -> None:
                    where = rasterio.windows.Window(left, top, part.shape[1], part.shape[0])
                    values = as_bytes(part) if labels is None else part.astype(np.uint8)
                    if bands.has_gaps:
                        values[image.dataset_mask(window=where) == 0] = 0 if labels is None else labels.ignore_index
                    raster.write(values, 1, window=where)

                return write

            write = into(target, predictor.labels)
            second = None if confidence is None else into(confidence, None)
            yield from predict_windows(predictor, tiling, bands.read, write, batch_size, second)


def reduced_pair(source: Path, mask: Path, longest_side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a TIFF file, uint8 (H, W, 3) RGB, and its mask's file, uint8 (H, W), shrunk to at most `longest_side`.

    Raises:
        DataError: one of them cannot be read.
    """
    rasterio = _import_rasterio()
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_MB), _reading(rasterio, source), rasterio.open(source) as image:
        factor = max(1.0, max(image.height, image.width) / longest_side)
        size = max(round(image.height / factor), 1), max(round(image.width / factor), 1)
        with rasterio.open(mask) as classes:
            return _Bands(image, source).read_reduced(*size), classes.read(1, out_shape=size)


class _Bands:
    """Reads parts of a raster as RGB.

    Raises:
        DataError: its values are neither 8-bit nor 16-bit and unsigned.
    """

    def __init__(self, image: Any, path: Path) -> None:
        from rasterio.enums import ColorInterp, MaskFlags

        kinds = set(image.dtypes[:3])
        if len(kinds) > 1 or not kinds <= {"uint8", "uint16"}:
            raise DataError(f"{path}: values are {', '.join(sorted(kinds))}; save it with 8 or 16 bits, unsigned")
        self._image = image
        self._indexes = [1, 2, 3] if image.count >= 3 else [1]
        self._colors: np.ndarray | None = None
        if image.colorinterp[0] == ColorInterp.palette:
            self._colors = np.zeros((256, 3), np.uint8)
            for value, color in image.colormap(1).items():
                self._colors[value] = color[:3]
        self.has_gaps = any(MaskFlags.all_valid not in flags for flags in image.mask_flag_enums)

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Return a part of the image, uint8 (height, width, 3) RGB; 16-bit values become value / 257, rounded."""
        from rasterio.windows import Window

        return self._as_rgb(self._image.read(self._indexes, window=Window(left, top, width, height)))

    def read_reduced(self, height: int, width: int) -> np.ndarray:
        """Return the whole image, uint8 (height, width, 3) RGB, of whose pixels the nearest ones are taken."""
        return self._as_rgb(self._image.read(self._indexes, out_shape=(len(self._indexes), height, width)))

    def _as_rgb(self, values: np.ndarray) -> np.ndarray:
        if self._colors is not None:
            return self._colors[values[0]]
        if values.dtype == np.uint16:
            values = np.floor(values / 257 + 0.5).astype(np.uint8)
        return np.ascontiguousarray(np.broadcast_to(np.moveaxis(values, 0, 2), (*values.shape[1:], 3)))


def _import_rasterio() -> Any:
    try:
        import rasterio
        import rasterio.windows
    except ImportError:
        raise MissingDependencyError(
            'TIFF files are predicted in tiles by rasterio, which is not installed: pip install "segkc-deploy[geo]"'
        ) from None
    return rasterio


@contextlib.contextmanager
def _reading(rasterio: Any, source: Path) -> Iterator[None]:
    """Turn what rasterio raises about the source into a DataError, and do not warn that it is not georeferenced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            yield
        except rasterio.errors.RasterioIOError as error:
            raise DataError(f"{source}: not a readable TIFF: {' '.join(str(error).split())}") from None


def _created(rasterio: Any, path: Path, image: Any, labels: Labels | None) -> Any:
    """Return a new GeoTIFF for the mask of `image`, or without labels for its confidence, open for writing."""
    points, points_crs = image.gcps
    place = {"gcps": points, "crs": points_crs} if points else {"crs": image.crs, "transform": image.transform}
    raster = rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=image.height,
        width=image.width,
        count=1,
        dtype="uint8",
        nodata=labels.ignore_index if labels else 0,
        tiled=True,
        blockxsize=BLOCK,
        blockysize=BLOCK,
        compress="deflate",
        bigtiff="if_safer",
        **place,
    )
    if labels is None:
        raster.scales = (1 / 255,)
        return raster
    raster.write_colormap(1, {index: (*color, 255) for index, color in enumerate(labels.palette)})
    raster.update_tags(1, **{f"CLASS_{index}": name for index, name in enumerate(labels.names)})
    return raster
