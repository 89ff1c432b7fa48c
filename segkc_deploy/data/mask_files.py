"""The values of mask images as their files hold them, and class ids of masks that hold colors."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from segkc_deploy.data.exif import PILLOW_ERRORS, upright
from segkc_deploy.data.images import read_bytes
from segkc_deploy.data.pixel_limit import require_within_limit
from segkc_deploy.data.samples import MaskCoding, Sample
from segkc_deploy.errors import DataError, UnreadableFileError
from segkc_deploy.labels import Color

if TYPE_CHECKING:
    from segkc_deploy.data.tiff import TiffHeader

_LOSSLESS = ("PNG", "BMP", "DIB", "TIFF", "GIF")
_LOSSY = ("JPEG", "WEBP", "AVIF")
_LARGEST_VALUE = 2**31 - 1
_MOST_COLORS_SHOWN = 4
#: Modes of Pillow whose pixels are shown in colors of 8 bits.
_SHOWN_AS_COLORS = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA"})


class MaskValues(NamedTuple):
    """A mask, (H, W), and whether it holds class ids, to which `label_mapping` does not apply."""

    values: np.ndarray
    are_ids: bool


def mask_values(sample: Sample, coding: MaskCoding) -> MaskValues:
    """Return a sample's mask as its file holds it: uint8, uint16 for 16 bits, int32 for other integers.

    A palette file gives its indices, a file of one bit 0 and 1, a floating-point file of whole numbers these numbers.
    A file of colors gives class ids by `coding.colors`, and with `coding.by_color` one of a palette or of gray does,
    too; annotation files are rasterized into class ids. EXIF rotation is applied as for images.

    Raises:
        UnreadableFileError: the file is missing or damaged.
        DataError: it is larger than the pixel limit, or no mask.
    """
    from segkc_deploy.data.annotations.rasterize import rasterize
    from segkc_deploy.data.annotations.reading import ANNOTATION_SUFFIXES, annotated_image
    from segkc_deploy.data.annotations.task_pngs import is_task_png, read_task

    assert sample.mask is not None
    if is_task_png(sample.mask):
        task = read_task(sample.mask, raw_mask)
        return MaskValues(rasterize(task, coding, str(sample.mask)), are_ids=True)
    if sample.mask.suffix.lower() in ANNOTATION_SUFFIXES:
        image = annotated_image(sample.mask, sample.image, coding.object_names)
        where = f"{sample.mask} ({sample.image.name})"
        return MaskValues(rasterize(image, coding, where), are_ids=True)
    return _read(sample.mask, coding.colors, coding.by_color)


def is_mask_image(path: Path) -> bool:
    """Return whether a mask is one image file: neither an annotation file nor one of several PNGs of a task."""
    from segkc_deploy.data.annotations.reading import ANNOTATION_SUFFIXES
    from segkc_deploy.data.annotations.task_pngs import is_task_png

    return path.suffix.lower() not in ANNOTATION_SUFFIXES and not is_task_png(path)


def raw_mask(path: Path) -> np.ndarray:
    """Return the values of a mask image that holds no colors; see `mask_values`."""
    return _read(path).values


def _read(path: Path, colors: Mapping[Color, int] | None = None, by_color: bool = False) -> MaskValues:
    from segkc_deploy.data import tiff

    encoded = read_bytes(path, "mask")
    if tiff.is_tiff(encoded):
        header = tiff.read_header(encoded, path, "mask")
        _refuse_unclear(encoded, path, header)
        misread_by_pillow = header.planar or header.by_imagecodecs or header.photometric == tiff.MIN_IS_WHITE
        if header.kind != "u" or header.bits > 16 or header.bands not in {1, 3, 4} or misread_by_pillow:
            if by_color:
                raise DataError(f"{path}: a TIFF whose colors are not read; save it as PNG for `mask_values: colors`")
            return MaskValues(_tiff_values(encoded, path, header), are_ids=False)
    try:
        with _opened(encoded, path) as image:
            require_within_limit(path, (image.height, image.width))
            turned = upright(image)
            mode = image.mode
            if by_color and mode in _SHOWN_AS_COLORS:  # programs save RGB without any color as gray
                return MaskValues(_ids_of_colors(np.asarray(turned.convert("RGB")), colors or {}, path), are_ids=True)
            if by_color:
                raise DataError(f"{path}: a {mode} image, where `mask_values: colors` expects colors of 8 bits")
            if mode in {"1", "P", "L"}:
                return MaskValues(np.array(turned, np.uint8) // _scale_of_gray(encoded, image), are_ids=False)
            values = np.asarray(turned)
            rgb = np.asarray(turned.convert("RGB")) if mode in {"RGB", "RGBA"} else None
    except PILLOW_ERRORS as error:
        raise UnreadableFileError(f"{path}: not a readable mask: {' '.join(str(error).split())}") from None
    if rgb is not None and colors:
        return MaskValues(_ids_of_colors(rgb, colors, path), are_ids=True)
    if values.ndim == 3:
        raise DataError(f"{path}: {_colors_instead_of_ids(values, mode)}")
    return MaskValues(_as_ids(values, path), are_ids=False)


def _opened(encoded: bytes, path: Path) -> Image.Image:
    """Open a lossless image, told by its content: a JPEG named `.png` is still a JPEG."""
    try:
        return Image.open(io.BytesIO(encoded), formats=_LOSSLESS)
    except UnidentifiedImageError:
        pass
    try:
        with Image.open(io.BytesIO(encoded), formats=[name for name in _LOSSY if name in Image.OPEN]) as image:
            found = image.format
    except PILLOW_ERRORS:
        raise UnreadableFileError(
            f"{path}: not a readable mask: not an image; save it as a single-channel PNG"
        ) from None
    raise DataError(
        f"{path}: {found} data, whatever the file's name says; {found} changes class ids:"
        " export the mask again as PNG, TIFF or BMP"
    )


def _scale_of_gray(encoded: bytes, image: Image.Image) -> int:
    """Return what Pillow has multiplied gray values of 2 and 4 bits by, so that they span 0 to 255."""
    bits = 8
    if image.mode == "L" and image.format == "PNG":
        bits = encoded[24]  # the depth in the header chunk, which the standard puts first
    elif image.mode == "L" and isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = int(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (8,))[0])
    return {2: 85, 4: 17}.get(bits, 1)


def _refuse_unclear(encoded: bytes, path: Path, header: "TiffHeader") -> None:
    """Raise a DataError for a TIFF whose values are not certain to be the class ids that were meant."""
    from segkc_deploy.data import tiff

    if header.lossy:
        raise DataError(f"{path}: a TIFF with lossy compression, which changes class ids; save it without loss")
    if header.bits == 1 and header.photometric == tiff.MIN_IS_WHITE:
        raise DataError(
            f"{path}: a 1-bit TIFF in which 0 is white: programs disagree on whether 1 or 0 marks the object;"
            " save it with 8 bits, or as PNG"
        )
    if tiff.is_stack(encoded):
        raise DataError(f"{path}: a TIFF of several pages of one size, where one mask is expected; save one page")


def _tiff_values(encoded: bytes, path: Path, header: "TiffHeader") -> np.ndarray:
    from segkc_deploy.data import tiff

    if header.bands != 1:
        raise DataError(f"{path}: {header.bands} bands, where one class id a pixel is expected; save one band")
    values = tiff.read_values(encoded, path, "mask")[..., 0]
    return _as_ids(tiff.turned(values, header.orientation), path)


def _as_ids(values: np.ndarray, path: Path) -> np.ndarray:
    """Return numbers of any type as uint16 or, where they do not fit, int32."""
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        if not finite.all():
            raise DataError(f"{path}: holds NaN or infinite values, which are no class ids; replace them by 255")
        if (values != np.rint(values)).any():
            example = values[values != np.rint(values)].flat[0]
            raise DataError(f"{path}: holds fractions such as {example:.6g}; class ids are whole numbers")
    elif values.dtype.kind not in "iub":
        raise DataError(f"{path}: {values.dtype} values are no class ids; save it as a single-channel 8-bit PNG")
    least, most = (int(bound) for bound in (values.min(), values.max()))
    if least < -_LARGEST_VALUE or most > _LARGEST_VALUE:
        raise DataError(f"{path}: holds {least if least < 0 else most}, which is no class id; save 8 or 16 bits")
    return values.astype(np.uint16 if least >= 0 and most <= np.iinfo(np.uint16).max else np.int32)


def _ids_of_colors(rgb: np.ndarray, colors: Mapping[Color, int], path: Path) -> np.ndarray:
    """Return the class id of each pixel's color, uint8 (H, W)."""
    keys = np.array([_key(color) for color in colors], np.uint32)
    ids = np.array(list(colors.values()), np.uint8)
    order = np.argsort(keys)
    found = rgb.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    places = np.searchsorted(keys[order], found).clip(max=len(keys) - 1)
    if (unknown := keys[order][places] != found).any():
        raise DataError(f"{path}: {_unknown_colors(found[unknown])}")
    return ids[order][places]


def _key(color: Color) -> int:
    red, green, blue = color
    return red << 16 | green << 8 | blue


def _unknown_colors(keys: np.ndarray) -> str:
    found, counts = np.unique(keys, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:_MOST_COLORS_SHOWN]
    shown = ", ".join(f"[{found[i] >> 16}, {found[i] >> 8 & 255}, {found[i] & 255}] ({counts[i]} pixels)" for i in most)
    more = f" and {len(found) - len(most)} more" if len(found) > len(most) else ""
    return (
        f"holds colors of no class: {shown}{more}; add them to `classes`, or to `ignore_colors`"
        f"{'; many colors come from lossy saving or smoothed edges: export again without' if more else ''}"
    )


def _colors_instead_of_ids(values: np.ndarray, mode: str) -> str:
    channels = values[..., :3] if mode in {"RGB", "RGBA"} else values[..., :1]
    if (channels == channels[..., :1]).all():
        return f"a {mode} image whose color channels are equal, where one is expected; save one channel as the mask"
    return (
        f"a {mode} image, where one class id a pixel is expected; give each class its color in the data spec"
        " (`classes: {road: [128, 64, 128], …}`), or put CVAT's labelmap.txt with these classes beside it"
    )
