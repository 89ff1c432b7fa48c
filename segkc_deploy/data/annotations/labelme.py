"""labelme's JSON: one file an image."""

import base64
import binascii
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segkc_deploy.data.annotations.json_fields import field, image_size, points
from segkc_deploy.data.annotations.shapes import AnnotatedImage, Bitmap, Polygons, Shape, ellipse, rectangle
from segkc_deploy.data.exif import PILLOW_ERRORS
from segkc_deploy.data.pixel_limit import require_within_limit
from segkc_deploy.errors import DataError

#: Boxes may have their four corners, as labelme's oriented ones and those of its successors do.
_BOXES = frozenset({"rectangle", "oriented_rectangle", "rotation"})
_WITHOUT_AREA = frozenset({"point", "points", "line", "linestrip"})


def is_labelme(data: Any) -> bool:
    """Return whether JSON content is labelme's."""
    return isinstance(data, dict) and "shapes" in data


def read_labelme(data: Any, path: Path) -> AnnotatedImage:
    """Return the shapes of a labelme file in its order, later ones over earlier ones.

    Polygons, rectangles, circles and masks; points and lines have no area and are left out.

    Raises:
        DataError: a field is missing or wrong.
    """
    where = str(path)
    size = image_size(data.get("imageHeight"), data.get("imageWidth"), where)
    shapes = []
    for index, one in enumerate(field(data, "shapes", list, where)):
        shape = _shape(one, f"{where}: shapes[{index}]")
        if shape is not None:
            shapes.append(shape)
    name = data.get("imagePath")
    return AnnotatedImage(name if isinstance(name, str) else path.stem, size, tuple(shapes))


def _shape(one: Any, where: str) -> Shape | None:
    label = field(one, "label", str, where)
    kind = field(one, "shape_type", str, where) if one.get("shape_type") else "polygon"
    if kind in _WITHOUT_AREA:
        return None
    corners = points(one.get("points"), where)
    if kind == "polygon" or (kind in _BOXES and len(corners) == 4):
        return Polygons(label, (corners,))
    if len(corners) != 2 or kind not in {"rectangle", "circle", "mask"}:
        raise DataError(f"{where}: a {kind} of {len(corners)} points is not read; draw polygons, rectangles or circles")
    (left, top), (right, bottom) = corners
    if kind == "rectangle":
        return Polygons(label, (rectangle(left, top, right, bottom),))
    if kind == "circle":
        radius = math.hypot(right - left, bottom - top)
        return Polygons(label, (ellipse((left, top), (radius, radius)),))
    return Bitmap(label, _decoded(field(one, "mask", str, where), where), round(left), round(top))


def _decoded(text: str, where: str) -> np.ndarray:
    """Return the bool pixels of a PNG in base64."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(text)), formats=["PNG"]) as image:
            require_within_limit(where, (image.height, image.width))
            return np.asarray(image.convert("L")) > 0
    except (binascii.Error, *PILLOW_ERRORS):
        raise DataError(f"{where}: its mask is not a PNG in base64") from None
