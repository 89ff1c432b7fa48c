"""COCO's instance JSON: polygons, run lengths and crowd regions, by image."""

from pathlib import Path
from typing import Any

from segkc_deploy.data.annotations.json_fields import field, image_size, number
from segkc_deploy.data.annotations.shapes import AnnotatedImage, Polygons, RunLengths, Shape
from segkc_deploy.errors import DataError


def is_coco(data: Any) -> bool:
    """Return whether JSON content is COCO's."""
    return isinstance(data, dict) and "images" in data and "annotations" in data


def read_coco(data: Any, path: Path) -> list[AnnotatedImage]:
    """Return the annotated images of a COCO file, named by `file_name`.

    An annotation's polygons are united, as COCO does. Crowd regions are painted first, since they also cover what
    lies between and before the objects; the others follow in the file's order, later ones over earlier ones.

    Raises:
        DataError: a field is missing or wrong, or an annotation is a box without a segmentation.
    """
    where = str(path)
    categories: dict[int, str] = {}
    for one in field(data, "categories", list, where):
        number, label = (field(one, key, kind, f"{where}: categories") for key, kind in (("id", int), ("name", str)))
        if categories.setdefault(number, label) != label:
            raise DataError(f"{where}: the categories {categories[number]!r} and {label!r} have the same id {number}")
    sizes: dict[int | str, tuple[str, tuple[int, int]]] = {}
    for image in field(data, "images", list, where):
        name = field(image, "file_name", str, f"{where}: images")
        size = image_size(image.get("height"), image.get("width"), f"{where}: image {name}")
        image_id = field(image, "id", (int, str), f"{where}: image {name}")
        if sizes.setdefault(image_id, (name, size))[0] != name:
            raise DataError(f"{where}: the images {sizes[image_id][0]} and {name} have the same id {image_id}")
    crowds: dict[Any, list[Shape]] = {key: [] for key in sizes}
    others: dict[Any, list[Shape]] = {key: [] for key in sizes}
    for annotation in field(data, "annotations", list, where):
        if not isinstance(annotation, dict):
            raise DataError(f"{where}: annotations: should hold mappings")
        name = f"{where}: annotation {annotation.get('id')}"
        image_id = field(annotation, "image_id", (int, str), name)
        if image_id not in sizes:
            raise DataError(f"{name}: no image has the id {image_id}")
        label = categories.get(field(annotation, "category_id", int, name))
        if label is None:
            raise DataError(f"{name}: no category has the id {annotation['category_id']}")
        shape = _shape(annotation, label, sizes[image_id][1], name)
        (crowds if annotation.get("iscrowd") else others)[image_id].append(shape)
    return [AnnotatedImage(name, size, (*crowds[key], *others[key])) for key, (name, size) in sizes.items()]


def _shape(annotation: dict[str, Any], label: str, size: tuple[int, int], where: str) -> Shape:
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        counts = segmentation.get("counts")
        if isinstance(counts, list) and all(type(count) is int for count in counts):
            pass
        elif not isinstance(counts, str):
            raise DataError(f"{where}: the counts of a run-length mask should be a list of numbers or a string")
        if segmentation.get("size") not in (None, [*size]):
            raise DataError(f"{where}: its mask has the size {segmentation.get('size')}, its image {[*size]}")
        return RunLengths(label, counts)
    if not isinstance(segmentation, list) or not any(segmentation):
        raise DataError(f"{where}: has no segmentation; boxes cannot be trained on: export polygons or masks")
    parts = []
    for part in segmentation:
        if not isinstance(part, list) or len(part) % 2:
            raise DataError(f"{where}: a polygon should be [x1, y1, x2, y2, …]")
        values = [number(value, where) for value in part]
        parts.append(list(zip(values[::2], values[1::2], strict=True)))
    return Polygons(label, tuple(parts))
