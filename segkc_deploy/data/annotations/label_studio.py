"""Label Studio's JSON and JSON-MIN: brush masks, polygons, rectangles and ellipses, by task."""

from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from segkc_deploy.data.annotations.brush import decode_brush
from segkc_deploy.data.annotations.json_fields import field, image_size, number, points
from segkc_deploy.data.annotations.shapes import AnnotatedImage, Bitmap, Polygons, Shape, ellipse, rectangle
from segkc_deploy.data.images import IMAGE_SUFFIXES
from segkc_deploy.errors import DataError

_LABELS = ("brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels", "labels")
#: Labels of points and of what is no image region.
_WITHOUT_AREA = frozenset({"keypointlabels", "timeserieslabels", "hypertextlabels", "paragraphlabels"})


def is_label_studio(data: Any) -> bool:
    """Return whether JSON content is a list of Label Studio's tasks."""
    return (
        isinstance(data, list)
        and bool(data)
        and all(isinstance(one, dict) for one in data)
        and (_image_of(data[0]) != "" or "annotations" in data[0])
    )


def read_label_studio(data: Any, path: Path) -> list[AnnotatedImage]:
    """Return the annotated images of an export; a task without annotation is left out.

    Of several annotations of a task the last one that was not cancelled counts. Its regions are painted in their
    order, later ones over earlier ones.

    Raises:
        DataError: a field is missing or wrong.
    """
    images = (_task(task, f"{path}: task {task.get('id', index)}") for index, task in enumerate(data))
    return [image for image in images if image is not None]


def task_images(data: Any) -> dict[int, str]:
    """Return the file name of each task's image by the task's number."""
    return {task["id"]: _image_of(task) for task in data if isinstance(task.get("id"), int)}


def _task(task: dict[str, Any], where: str) -> AnnotatedImage | None:
    results = _results(task, where)
    if results is None:
        return None
    name = _image_of(task)
    if not name:
        raise DataError(f"{where}: nothing in its data is the path or URL of an image file; add one, such as `a.jpg`")
    size = None
    shapes = []
    for index, result in enumerate(results):
        if not isinstance(result, dict) or "original_width" not in result:
            continue  # choices, text and ratings have no place in the image
        here = f"{where}: result {index}"
        if result.get("image_rotation"):
            raise DataError(
                f"{here}: drawn on an image that was rotated by {result['image_rotation']} degrees in Label Studio, so"
                " that its place is not certain; rotate the image back there"
            )
        size = image_size(result.get("original_height"), result["original_width"], here)
        value = result["value"] if isinstance(result.get("value"), dict) else result
        shapes += _shapes(value, size, here)
    if size is None:
        return None  # nothing says how large the image is; `check` then reports that it has no mask
    return AnnotatedImage(name, size, tuple(shapes))


def _results(task: dict[str, Any], where: str) -> list[Any] | None:
    if "annotations" in task:
        annotations = [
            one
            for one in field(task, "annotations", list, where)
            if isinstance(one, dict) and not one.get("was_cancelled")
        ]
        return field(annotations[-1], "result", list, where) if annotations else None
    lists = [value for value in task.values() if isinstance(value, list)]  # JSON-MIN: a list for each control
    return [result for values in lists for result in values] or None


def _shapes(value: dict[str, Any], size: tuple[int, int], where: str) -> list[Shape]:
    names = next((value[key] for key in _LABELS if isinstance(value.get(key), list)), None)
    if names is None or not all(isinstance(name, str) for name in names):
        kinds = [key for key in value if key.endswith("labels") and key not in _WITHOUT_AREA | set(_LABELS)]
        if kinds:
            raise DataError(f"{where}: {kinds[0]} are not read; use brushes, polygons, rectangles or ellipses")
        return []
    if len(names) != 1:
        raise DataError(f"{where}: has {len(names)} labels; give each region one")
    height, width = size
    if "rle" in value:
        return [Bitmap(names[0], decode_brush(field(value, "rle", list, where), size, where))]
    if "points" in value:
        corners = [(x / 100 * width, y / 100 * height) for x, y in points(value["points"], where)]
        return [Polygons(names[0], (corners,))]
    x, y = (number(value.get(key), where) / 100 for key in ("x", "y"))
    rotation = number(value.get("rotation") or 0, where)
    if "radiusX" in value:
        radii = (number(value["radiusX"], where) / 100 * width, number(value.get("radiusY"), where) / 100 * height)
        return [Polygons(names[0], (ellipse((x * width, y * height), radii, rotation),))]
    right, bottom = x + number(value.get("width"), where) / 100, y + number(value.get("height"), where) / 100
    return [Polygons(names[0], (rectangle(x * width, y * height, right * width, bottom * height, rotation),))]


def _image_of(task: dict[str, Any]) -> str:
    """Return the file name of a task's image, with its folders where they are known; empty where there is none."""
    data = task["data"] if isinstance(task.get("data"), dict) else task
    names = [_file_name(value) for value in data.values() if isinstance(value, str)]
    return next((name for name in names if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES), "")


def _file_name(image: str) -> str:
    """Return the path in a URL; of a local file of Label Studio's the one that its query names."""
    try:
        parts = urlsplit(image)
    except ValueError:  # a text with brackets, which is no URL
        return ""
    if parts.scheme == "data":
        return ""
    local = parse_qs(parts.query).get("d", [])
    return unquote(local[0] if local else parts.path).replace("\\", "/")
