"""CVAT's `labelmap.txt`: the names and colors of the classes in masks that CVAT exports."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from segkc_deploy.data.images import read_bytes
from segkc_deploy.errors import DataError
from segkc_deploy.labels import Color

NAME = "labelmap.txt"


def class_colors(colors: Mapping[str, Color], classes: Iterable[str]) -> dict[str, Color] | None:
    """Return the color of each class from those of a labelmap; None where it lacks one.

    Upper and lower case are the same, since CVAT writes the background as `background`. Where the file has no color of
    the background, it is black, which CVAT paints it in.
    """
    known = {name.lower(): color for name, color in colors.items()}
    if (0, 0, 0) not in colors.values():
        known.setdefault("background", (0, 0, 0))
    names = list(classes)
    if not all(name.lower() in known for name in names):
        return None
    return {name: known[name.lower()] for name in names}


def read_labelmap(path: Path) -> dict[str, Color]:
    """Return the RGB color of each class, in the file's order.

    A line is `label:red,green,blue:parts:actions`, as CVAT's formats "Segmentation mask" and "Pascal VOC" write it.

    Raises:
        DataError: the file cannot be read, or a line is of another form.
    """
    colors: dict[str, Color] = {}
    try:
        text = read_bytes(path, "file").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start})") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, rest = line.partition(":")
        channels = rest.partition(":")[0].split(",")
        values = [int(text) for text in channels if text.strip().isascii() and text.strip().isdigit()]
        if not name.strip() or len(channels) != 3 or len(values) != 3 or max(values) > 255:
            raise DataError(f"{path}: line {number}: should be `label:red,green,blue:parts:actions`, but is {line!r}")
        if name.strip() in colors:
            raise DataError(f"{path}: line {number}: the label {name.strip()!r} is given twice")
        red, green, blue = values
        colors[name.strip()] = (red, green, blue)
    return colors
