"""The same polygons as the labeling tools export them, and the masks that they mean."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from segkc_deploy.data.annotations.brush import encode_brush

HEIGHT, WIDTH = 60, 80
Objects = list[tuple[str, list[tuple[float, float]]]]
Images = Mapping[str, Objects]


def objects(seed: int) -> Objects:
    """Overlapping polygons of whole pixels, in the order in which they are painted."""
    rng = np.random.default_rng(seed)
    found: Objects = []
    for label in ("road", "tree", "road"):
        center, angles = rng.integers(15, 45, 2), np.sort(rng.uniform(0, 2 * np.pi, 7))
        radii = rng.uniform(8, 16, 7)
        xs, ys = center[0] + radii * np.cos(angles), center[1] + radii * np.sin(angles)
        found.append((label, [(round(x), round(y)) for x, y in zip(xs, ys, strict=True)]))
    return found


IMAGES = {f"{name}{index}": objects(index) for index, name in enumerate(["a", "b", "c"])}


def write_coco(root: Path, images: Images = IMAGES) -> str:
    listed, annotations = [], []
    for index, (name, shapes) in enumerate(images.items()):
        listed.append({"id": index, "file_name": f"{name}.png", "height": HEIGHT, "width": WIDTH})
        for label, points in shapes:
            segmentation = [[float(value) for point in points for value in point]]
            category = ["road", "tree"].index(label) + 1
            annotations.append({"image_id": index, "category_id": category, "segmentation": segmentation})
    annotations = [{"id": index, "iscrowd": 0} | one for index, one in enumerate(annotations)]
    categories = [{"id": 1, "name": "road"}, {"id": 2, "name": "tree"}]
    content = {"images": listed, "annotations": annotations, "categories": categories}
    (root / "instances.json").write_text(json.dumps(content))
    return "instances.json"


def write_yolo(root: Path, images: Images = IMAGES) -> str:
    (root / "labels").mkdir()
    (root / "yolo.yaml").write_text("names: {0: tree, 1: road}\nnc: 2\ntrain: images\n")
    for name, shapes in images.items():
        lines = []
        for label, points in shapes:
            numbers = [f"{value:.6f}" for x, y in points for value in (x / WIDTH, y / HEIGHT)]
            lines.append(" ".join([str(["tree", "road"].index(label)), *numbers]))
        (root / "labels" / f"{name}.txt").write_text("\n".join(lines))
    return "labels"


def write_labelme(root: Path, images: Images = IMAGES) -> str:
    (root / "labelme").mkdir()
    for name, shapes in images.items():
        content = {
            "version": "5.5.0",
            "shapes": [{"label": label, "points": points, "shape_type": "polygon"} for label, points in shapes],
            "imagePath": f"../images/{name}.png",
            "imageHeight": HEIGHT,
            "imageWidth": WIDTH,
        }
        (root / "labelme" / f"{name}.json").write_text(json.dumps(content))
    return "labelme"


def write_cvat(root: Path, images: Images = IMAGES) -> str:
    lines = ["<?xml version='1.0' encoding='utf-8'?>", "<annotations><version>1.1</version>"]
    for name, shapes in images.items():
        lines.append(f'<image id="0" name="{name}.png" width="{WIDTH}" height="{HEIGHT}">')
        numbered = list(enumerate(shapes))[::-1]  # z_order decides, not the order in the file
        for order, (label, points) in numbered:
            text = ";".join(f"{x:.2f},{y:.2f}" for x, y in points)
            lines.append(f'<polygon label="{label}" occluded="0" points="{text}" z_order="{order}"></polygon>')
        lines.append("</image>")
    (root / "annotations.xml").write_text("\n".join([*lines, "</annotations>"]))
    return "annotations.xml"


def _label_studio_result(label: str, points: list[tuple[float, float]], brush: bool) -> dict[str, Any]:
    value: dict[str, Any] = {"points": [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in points]}
    value |= {"polygonlabels": [label]}
    if brush:
        value = {"format": "rle", "rle": encode_brush(filled(points)), "brushlabels": [label]}
    kind = "brushlabels" if brush else "polygonlabels"
    return {"original_width": WIDTH, "original_height": HEIGHT, "type": kind, "value": value}


def write_label_studio(root: Path, images: Images = IMAGES, brush: bool = False) -> str:
    tasks = [
        {
            "id": 7 + index,
            "data": {"image": f"/data/upload/1/0a1b2c3d-{name}.png"},
            "annotations": [
                {"was_cancelled": False, "result": []},
                {"result": [_label_studio_result(label, points, brush) for label, points in shapes]},
                {"was_cancelled": True, "result": []},
            ],
        }
        for index, (name, shapes) in enumerate(images.items())
    ]
    (root / "project.json").write_text(json.dumps(tasks))
    return "project.json"


def write_label_studio_brush(root: Path, images: Images = IMAGES) -> str:
    return write_label_studio(root, images, brush=True)


def write_supervisely(root: Path, images: Images = IMAGES) -> str:
    (root / "ann").mkdir()
    for name, shapes in images.items():
        content = {
            "size": {"height": HEIGHT, "width": WIDTH},
            "objects": [
                {"classTitle": label, "geometryType": "polygon", "points": {"exterior": points, "interior": []}}
                for label, points in shapes
            ],
        }
        (root / "ann" / f"{name}.png.json").write_text(json.dumps(content))
    return "ann"


WRITERS = [
    write_coco,
    write_yolo,
    write_labelme,
    write_cvat,
    write_label_studio,
    write_label_studio_brush,
    write_supervisely,
]


def filled(points: list[tuple[float, float]]) -> np.ndarray:
    """COCO's own rasterization."""
    flat = [[float(value) for point in points for value in point]]
    return coco_mask.decode(coco_mask.frPyObjects(flat, HEIGHT, WIDTH))[..., 0]


def expected_mask_of(shapes: Objects) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for label, points in shapes:
        mask[filled(points) > 0] = ["background", "road", "tree"].index(label)
    return mask
