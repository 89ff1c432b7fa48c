"""Supervisely's JSON: one file an image, in a folder `ann`, named `IMAGE.jpg.json`."""

import base64
import binascii
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segkc_deploy.data.annotations.json_fields import field, image_size, number, points
from segkc_deploy.data.annotations.shapes import AnnotatedImage, Bitmap, Polygons, Shape, rectangle
from segkc_deploy.data.exif import PILLOW_ERRORS
from segkc_deploy.data.pixel_limit import require_within_limit
from segkc_deploy.errors import DataError

_LARGEST_BITMAP = 2**26


def is_supervisely(data: Any) -> bool:
    """Return whether JSON content is Supervisely's annotation of an image."""
    return isinstance(data, dict) and "objects" in data and isinstance(data.get("size"), dict)


def read_supervisely(data: Any, path: Path) -> AnnotatedImage:
    """Return the polygons (with their holes), rectangles and bitmaps of a file in its order, later over earlier ones.

    Raises:
        DataError: a field is missing or wrong.
    """
    where = str(path)
    size = image_size(data["size"].get("height"), data["size"].get("width"), where)
    shapes = []
    for index, one in enumerate(field(data, "objects", list, where)):
        shape = _shape(one, f"{where}: objects[{index}]")
        if shape is not None:
            shapes.append(shape)
    return AnnotatedImage(path.name.removesuffix(".json"), size, tuple(shapes))


def _shape(one: Any, where: str) -> Shape | None:
    label = field(one, "classTitle", str, where)
    kind = field(one, "geometryType", str, where)
    if kind in {"point", "line"}:
        return None
    if kind == "bitmap":
        bitmap = field(one, "bitmap", dict, where)
        origin = points([bitmap.get("origin")], where)[0]
        pixels = _decoded(field(bitmap, "data", str, where), where)
        return Bitmap(label, pixels, int(number(origin[0], where)), int(number(origin[1], where)))
    corners = field(one, "points", dict, where)
    exterior = points(corners.get("exterior"), where)
    if kind == "rectangle" and len(exterior) == 2:
        (left, top), (right, bottom) = exterior
        return Polygons(label, (rectangle(left, top, right, bottom),))
    if kind != "polygon":
        raise DataError(f"{where}: a {kind} is not read; use polygons, rectangles or bitmaps")
    interior = field(corners, "interior", list, where) if corners.get("interior") else []
    holes = tuple(points(hole, where) for hole in interior)
    return Polygons(label, (exterior,), holes)


def _decoded(text: str, where: str) -> np.ndarray:
    """Return the bool pixels of a PNG, compressed by zlib, in base64; its alpha or its value marks the region."""
    try:
        unpacked = zlib.decompressobj().decompress(base64.b64decode(text), _LARGEST_BITMAP)
        with Image.open(io.BytesIO(unpacked), formats=["PNG"]) as image:
            require_within_limit(where, (image.height, image.width))
            if image.has_transparency_data:
                return np.asarray(image.convert("RGBA"))[..., 3] > 0
            return np.asarray(image.convert("L")) > 0
    except (binascii.Error, *PILLOW_ERRORS):
        raise DataError(f"{where}: its bitmap is not a compressed PNG in base64") from None
