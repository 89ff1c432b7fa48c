"""CVAT's XML, "CVAT for images 1.1": polygons, boxes, ellipses and masks, by image."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from segkc_deploy.data.annotations.json_fields import image_size
from segkc_deploy.data.annotations.shapes import AnnotatedImage, Bitmap, Polygons, Shape, ellipse, rectangle
from segkc_deploy.data.images import read_bytes
from segkc_deploy.data.pixel_limit import require_within_limit
from segkc_deploy.errors import DataError

_WITHOUT_AREA = frozenset({"polyline", "points", "tag", "skeleton"})


def read_cvat(path: Path) -> list[AnnotatedImage]:
    """Return the annotated images of a file; shapes by `z_order`, those of one by the file's order, later over earlier.

    Raises:
        DataError: the file is not such XML, or a shape is damaged.
    """
    try:
        root = ElementTree.fromstring(read_bytes(path, "annotation file"))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{path}: not XML that can be read: {error}") from None
    if root.tag != "annotations":
        raise DataError(f"{path}: not an annotation file of CVAT: its first element is <{root.tag[:40]}>")
    if root.find("track") is not None:
        raise DataError(f"{path}: tracks of a video; export the task again as `CVAT for images 1.1`")
    return [_image(element, path) for element in root.findall("image")]


def _image(element: ElementTree.Element, path: Path) -> AnnotatedImage:
    name = element.get("name", "")
    where = f"{path}: image {name!r}"
    size = image_size(_number(element, "height", where), _number(element, "width", where), where)
    shapes: list[tuple[float, Shape]] = []
    for child in element:
        shape = _shape(child, where)
        if shape is not None:
            shapes.append((_number(child, "z_order", where, 0.0), shape))
    shapes.sort(key=lambda pair: pair[0])
    return AnnotatedImage(name, size, tuple(shape for _, shape in shapes))


def _shape(element: ElementTree.Element, where: str) -> Shape | None:
    label = element.get("label", "")
    if element.tag in _WITHOUT_AREA:
        return None
    if element.tag == "polygon":
        return Polygons(label, (_points(element, where),))
    if element.tag == "box":
        left, top, right, bottom = (_number(element, key, where) for key in ("xtl", "ytl", "xbr", "ybr"))
        corners = rectangle(left, top, right, bottom, _number(element, "rotation", where, 0.0), about="center")
        return Polygons(label, (corners,))
    if element.tag == "ellipse":
        cx, cy, rx, ry = (_number(element, key, where) for key in ("cx", "cy", "rx", "ry"))
        return Polygons(label, (ellipse((cx, cy), (rx, ry), _number(element, "rotation", where, 0.0)),))
    if element.tag == "mask":
        return _mask(element, label, where)
    raise DataError(f"{where}: a <{element.tag[:40]}> is not read; use polygons, boxes, ellipses or masks")


def _points(element: ElementTree.Element, where: str) -> list[tuple[float, float]]:
    try:
        pairs = [tuple(map(float, pair.split(","))) for pair in element.get("points", "").split(";") if pair.strip()]
        return [(x, y) for x, y in pairs]
    except ValueError:
        raise DataError(f"{where}: a polygon's points should be `x,y;x,y;…`") from None


def _mask(element: ElementTree.Element, label: str, where: str) -> Bitmap:
    left, top, width, height = (int(_number(element, key, where)) for key in ("left", "top", "width", "height"))
    words = element.get("rle", "").split(",")
    counts = [int(word) for word in words if word.strip().isascii() and word.strip().isdigit()]
    if min(width, height) < 1:
        raise DataError(f"{where}: a mask has no pixels")
    require_within_limit(where, (height, width))
    if len(counts) != len(words) or sum(counts) != width * height:
        raise DataError(f"{where}: the runs of a mask do not have its {width}x{height} pixels")
    pixels = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)
    return Bitmap(label, pixels, left, top)


def _number(element: ElementTree.Element, key: str, where: str, default: float | None = None) -> float:
    text = element.get(key)
    if text is None and default is not None:
        return default
    try:
        value = float(text or "")
    except ValueError:
        raise DataError(f"{where}: {key} of <{element.tag[:40]}> should be a number, but is {text!r}") from None
    if not abs(value) < 2**31:
        raise DataError(f"{where}: {key} of <{element.tag[:40]}> should be a number, but is {text!r}")
    return value
