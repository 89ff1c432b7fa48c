"""CVAT's `labelmap.txt`: the names and colors of the classes in masks that CVAT exports."""

from pathlib import Path

from segkc_deploy.data.images import read_bytes
from segkc_deploy.errors import DataError
from segkc_deploy.labels import Color

NAME = "labelmap.txt"


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
        if not line.strip() or line.startswith("#"):
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
