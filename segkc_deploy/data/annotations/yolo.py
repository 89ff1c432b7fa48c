"""YOLO's segmentation text: one object a line, its class number and its polygon in fractions of the image's sides."""

from collections.abc import Sequence
from pathlib import Path

from segkc_deploy.data.annotations.shapes import AnnotatedImage, Polygons
from segkc_deploy.data.images import read_bytes
from segkc_deploy.errors import DataError

#: Outlines may leave the image by a little, where tools smooth or round them; farther points are no fractions.
_MOST_OUTSIDE = 0.1


def read_yolo(path: Path, size: tuple[int, int], names: Sequence[str]) -> AnnotatedImage:
    """Return the objects of a label file, later lines over earlier ones.

    Args:
        path: the `.txt` file; an empty one says that the image holds no object.
        size: (height, width) of the image.
        names: the label of each class number.

    Raises:
        DataError: a line is no polygon, or its number has no name.
    """
    shapes = []
    try:
        text = read_bytes(path, "label file").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start})") from None
    for line_number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}: line {line_number}"
        try:
            index, *values = (float(word) for word in line.split())
        except ValueError:
            raise DataError(f"{where}: should be a class number and a polygon, but is {line[:60]!r}") from None
        if len(values) == 4:
            raise DataError(f"{where}: a box, where a polygon is expected; export YOLO segmentation labels")
        if len(values) < 6 or len(values) % 2:
            raise DataError(f"{where}: should be a class number and x y of at least three points")
        if any(not -_MOST_OUTSIDE <= value <= 1 + _MOST_OUTSIDE for value in values):
            raise DataError(f"{where}: coordinates should be fractions of the image's sides, from 0 to 1")
        if not 0 <= index < len(names) or index != int(index):
            raise DataError(f"{where}: class {index:g} has no name; the names known are {', '.join(names) or 'none'}")
        points = [(x * size[1], y * size[0]) for x, y in zip(values[::2], values[1::2], strict=True)]
        shapes.append(Polygons(names[int(index)], (points,)))
    return AnnotatedImage(path.stem, size, tuple(shapes))
