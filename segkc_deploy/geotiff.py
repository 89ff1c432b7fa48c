"""Masks of GeoTIFF files of any size: read, predicted and written window by window, the georeference kept."""

import contextlib
import errno
import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from segkc_deploy import atomic
from segkc_deploy.data import tiff
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
        source: up to 16 bits a channel, unsigned and stored upright; gray, palette, or the bands marked as RGB, or else
            the first three.
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
    rasterio = import_rasterio()
    window = predictor.contract.size
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_MB), _opened(rasterio, source) as image:
        bands = _Bands(image, source)
        tiling = Tiling((image.height, image.width), window, stride or default_stride(window))
        with contextlib.ExitStack() as files:

            def into(path: Path, labels: Labels | None) -> Write:
                """Return what writes parts to a new file: class ids where there are labels, else a confidence."""
                temporary = files.enter_context(atomic.atomic_path(path))
                raster = files.enter_context(_created(rasterio, temporary, image, labels))

                def write(top: int, left: int, part: np.ndarray) -> None:
                    values = as_bytes(part) if labels is None else part.astype(np.uint8)
                    if bands.has_gaps:
                        empty = bands.empty(top, left, *part.shape)
                        values[empty] = 0 if labels is None else labels.ignore_index
                    raster.write(values, 1, window=rasterio.windows.Window(left, top, part.shape[1], part.shape[0]))

                return write

            write = into(target, predictor.labels)
            second = None if confidence is None else into(confidence, None)
            yield from predict_windows(predictor, tiling, bands.read, write, batch_size, second)


def reduced_pair(source: Path, mask: Path, longest_side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a TIFF file, uint8 (H, W, 3) RGB, and its mask's file, uint8 (H, W), shrunk to at most `longest_side`.

    Raises:
        DataError: one of them cannot be read.
    """
    rasterio = import_rasterio()
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_MB), _opened(rasterio, source) as image:
        factor = max(1.0, max(image.height, image.width) / longest_side)
        size = max(round(image.height / factor), 1), max(round(image.width / factor), 1)
        with _opened(rasterio, mask) as classes, _reading(mask):
            return _Bands(image, source).read_reduced(*size), classes.read(1, out_shape=size)


class _Bands:
    """Reads parts of a raster as RGB, with the values that `data.images.read_image` gives.

    Raises:
        DataError: its values are neither 8-bit nor 16-bit and unsigned, it has a palette of 16 bits or a color space
            that GDAL does not turn into RGB, an orientation tag turns it, or it has more than four bands and does not
            say which are red, green and blue.
    """

    def __init__(self, image: Any, path: Path) -> None:
        from rasterio.enums import ColorInterp, MaskFlags

        # A mask turned like the image would not lie where the transform says; GDAL does not turn it either.
        header = tiff.stored_header(path)
        if header is not None and header.orientation != 1:
            raise DataError(
                f"{path}: its orientation tag is {header.orientation}, which --tile does not follow; save it upright,"
                " as `magick OLD.tif -auto-orient NEW.tif` does"
            )
        colors = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        if set(colors) <= set(image.colorinterp):
            self._indexes = [image.colorinterp.index(color) + 1 for color in colors]
        elif image.count > 4:
            raise DataError(
                f"{path}: {image.count} bands, not marked as red, green and blue; choose these, as"
                " `gdal_translate -b 3 -b 2 -b 1 -co PHOTOMETRIC=RGB OLD.tif NEW.tif` does"
            )
        else:
            self._indexes = [1, 2, 3] if image.count >= 3 else [1]
        # A file that GDAL alone can read has no header here.
        if image.colorinterp[0] == ColorInterp.cyan or (header is not None and not _becomes_rgb(header)):
            raise DataError(f"{path}: in a color space that --tile does not turn into RGB; save it as RGB")
        kinds = set(image.dtypes[:3])
        if len(kinds) > 1 or not kinds <= {"uint8", "uint16"}:
            raise DataError(f"{path}: values are {', '.join(sorted(kinds))}; save it with 8 or 16 bits, unsigned")
        self._image = image
        self._path = path
        # Values of fewer bits, such as 12, come as they are stored, in 8 or 16.
        bits = image.tags(1, ns="IMAGE_STRUCTURE").get("NBITS") or np.iinfo(image.dtypes[0]).bits
        self._largest = 2 ** int(bits) - 1
        self._white_is_zero = image.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES"
        self._colors: np.ndarray | None = None
        # GDAL gives some files in which white is 0 a palette of its own, with up to 65536 colors.
        if image.colorinterp[0] == ColorInterp.palette and not self._white_is_zero:
            if image.dtypes[0] != "uint8":
                raise DataError(f"{path}: has a palette of 16 bits; save it as RGB")
            self._colors = np.zeros((256, 3), np.uint8)
            for value, color in image.colormap(1).items():
                self._colors[value] = color[:3]
        self.has_gaps = any(MaskFlags.all_valid not in flags for flags in image.mask_flag_enums)

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Return a part of the image, uint8 (height, width, 3) RGB; other than 8 bits are scaled and rounded."""
        from rasterio.windows import Window

        with _reading(self._path):
            return self._as_rgb(self._image.read(self._indexes, window=Window(left, top, width, height)))

    def read_reduced(self, height: int, width: int) -> np.ndarray:
        """Return the whole image, uint8 (height, width, 3) RGB, of whose pixels the nearest ones are taken."""
        with _reading(self._path):
            return self._as_rgb(self._image.read(self._indexes, out_shape=(len(self._indexes), height, width)))

    def empty(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Return where a part of the image has no data, bool (height, width)."""
        from rasterio.windows import Window

        with _reading(self._path):
            valid: np.ndarray = self._image.dataset_mask(window=Window(left, top, width, height))
        return valid == 0

    def _as_rgb(self, values: np.ndarray) -> np.ndarray:
        if self._colors is not None:
            return self._colors[values[0]]
        if self._largest != 255:
            values = np.floor(values / self._largest * 255 + 0.5).astype(np.uint8)
        if self._white_is_zero:
            values = 255 - values
        return np.ascontiguousarray(np.broadcast_to(np.moveaxis(values, 0, 2), (*values.shape[1:], 3)))


def _becomes_rgb(header: tiff.TiffHeader) -> bool:
    """Return whether GDAL gives gray or RGB, as `read_image` does; of CIELAB it gives other colors."""
    if header.photometric in {tiff.MIN_IS_WHITE, tiff.MIN_IS_BLACK, tiff.RGB, tiff.PALETTE}:
        return True
    return header.bits == 8 and header.photometric in {tiff.CMYK, tiff.YCBCR}


def import_rasterio() -> Any:
    """Return rasterio.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import rasterio
        import rasterio.windows
    except ImportError:
        raise MissingDependencyError(
            'TIFF files are predicted in tiles by rasterio, which is not installed: pip install "segkc-deploy[geo]"'
        ) from None
    return rasterio


@contextlib.contextmanager
def _opened(rasterio: Any, path: Path) -> Iterator[Any]:
    """Open a raster to read, and do not warn in the block where one is not georeferenced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with _reading(path):
            image = rasterio.open(path)
        with image:
            yield image


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what rasterio raises about a file that is read into a DataError."""
    from rasterio.errors import RasterioIOError

    try:
        yield
    except RasterioIOError as error:
        raise DataError(f"{path}: not a readable TIFF: {' '.join(str(error).split())}") from None
    except UnicodeEncodeError:
        raise DataError(f"{path}: its name is not UTF-8, which --tile needs; rename it") from None


@contextlib.contextmanager
def _created(rasterio: Any, path: Path, image: Any, labels: Labels | None) -> Iterator[Any]:
    """Create a GeoTIFF for the mask of `image`, or without labels for its confidence, to write into in the block.

    Raises:
        OSError: it cannot be written, or not all of it.
    """
    points, points_crs = image.gcps
    place = {"gcps": points, "crs": points_crs} if points else {"crs": image.crs, "transform": image.transform}
    try:
        with rasterio.open(
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
        ) as raster:
            if labels is None:
                raster.scales = (1 / 255,)
            else:
                raster.write_colormap(1, {index: (*color, 255) for index, color in enumerate(labels.palette)})
                raster.update_tags(1, **{f"CLASS_{index}": name for index, name in enumerate(labels.names)})
            yield raster
        _require_whole(rasterio, path)
    except rasterio.errors.RasterioIOError:
        raise OSError(errno.EIO, "a GeoTIFF came out incomplete, as where the disk is full", str(path)) from None


def _require_whole(rasterio: Any, path: Path) -> None:
    """Raise a RasterioIOError unless every block of a file can be read: GDAL does not say where closing it failed."""
    with rasterio.open(path) as raster:
        rows, columns = (range(-(-side // BLOCK)) for side in raster.shape)
        for row, column in itertools.product(rows, columns):
            # A block that was never stored would be read as empty.
            if raster.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=1) is None:
                raise rasterio.errors.RasterioIOError("a block is missing")
            raster.read(1, window=rasterio.windows.Window(column * BLOCK, row * BLOCK, BLOCK, BLOCK))
