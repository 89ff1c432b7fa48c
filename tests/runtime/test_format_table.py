"""Every row of the table of annotation formats in docs/data.md: the tool's files, converted to PNG masks and back."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from annotation_writers import (
    HEIGHT,
    IMAGES,
    WIDTH,
    expected_mask_of,
    write_coco,
    write_cvat,
    write_label_studio,
    write_label_studio_brush,
    write_labelme,
    write_supervisely,
    write_yolo,
)
from data_helpers import write_spec
from PIL import Image

from segkc_deploy.data.convert import convert
from segkc_deploy.data.masks import read_mask
from segkc_deploy.data.spec import load_data_spec

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' decode

NAMES = ("background", "road", "tree")
COLORS = np.array([(0, 0, 0), (128, 64, 128), (107, 142, 35)], np.uint8)


def _write_cvat_masks(root: Path) -> str:
    lines = [f"{name}:{','.join(map(str, color))}::" for name, color in zip(NAMES, COLORS.tolist(), strict=True)]
    (root / "labelmap.txt").write_text("\n".join(["# label:color_rgb:parts:actions", *lines]))
    for name, shapes in IMAGES.items():
        _save(root / "SegmentationClass" / f"{name}.png", COLORS[expected_mask_of(shapes)])
    return "SegmentationClass"


def _write_label_studio_min(root: Path) -> str:
    write_label_studio(root)
    path = root / "project.json"
    tasks = []
    for task in json.loads(path.read_text()):
        results = [result for one in task["annotations"] if not one.get("was_cancelled") for result in one["result"]]
        sizes = ("original_width", "original_height")
        flat = [result["value"] | {key: result[key] for key in sizes} for result in results]
        tasks.append({"id": task["id"], "image": task["data"]["image"], "label": flat, "annotator": 1})
    path.write_text(json.dumps(tasks))
    return "project.json"


def _write_label_studio_pngs(root: Path) -> str:
    for task, shapes in enumerate(IMAGES.values()):
        for class_id in (1, 2):
            region = expected_mask_of(shapes) == class_id
            file = f"task-{task}-annotation-4-by-1-tag-{NAMES[class_id]}-0.png"
            _save(root / "pngs" / file, region.astype(np.uint8) * 255)
    tasks = [{"id": task, "data": {"image": f"/x/{name}.png"}} for task, name in enumerate(IMAGES)]
    (root / "project.json").write_text(json.dumps(tasks))
    return "pngs"


def _write_roboflow(root: Path) -> str:
    values = {"road": 3, "background": 0, "tree": 1}  # in the file's own order
    with (root / "images" / "_classes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["Pixel Value", " Class"], *([value, f" {name}"] for name, value in values.items())]
        )
    table = np.array([values[name] for name in NAMES], np.uint8)
    for name, shapes in IMAGES.items():
        _save(root / "images" / f"{name}_mask.png", table[expected_mask_of(shapes)])
    return "images"


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)


#: What writes the files of each row, by the row's first column.
WRITERS: dict[str, tuple[Callable[[Path], str], ...]] = {
    "COCO JSON (also from CVAT, Roboflow and Label Studio)": (write_coco,),
    "YOLO segmentation text": (write_yolo,),
    "labelme JSON": (write_labelme,),
    "CVAT for images 1.1": (write_cvat,),
    "CVAT Segmentation mask 1.1": (_write_cvat_masks,),
    "Label Studio JSON, JSON-MIN": (write_label_studio, write_label_studio_brush, _write_label_studio_min),
    "Label Studio PNG": (_write_label_studio_pngs,),
    "Roboflow semantic masks": (_write_roboflow,),
    "Supervisely JSON": (write_supervisely,),
}


def test_every_row_of_the_table_has_a_round_trip() -> None:
    page = Path(__file__).parents[2] / "docs" / "data.md"
    section = page.read_text().partition("## Annotation files")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+?) \|", section, re.MULTILINE)
    assert set(rows) - {"tool", "---"} == set(WRITERS)


@pytest.mark.parametrize(
    "write", [pytest.param(write, id=f"{row}-{write.__name__}") for row, some in WRITERS.items() for write in some]
)
def test_a_round_trip_changes_no_pixel(tmp_path: Path, write: Callable[[Path], str]) -> None:
    for name in IMAGES:
        _save(tmp_path / "images" / f"{name}.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    masks = write(tmp_path)
    text = f"classes: [{', '.join(NAMES)}]\nlabeled: {{images: images, masks: {masks}}}\n"
    out = tmp_path / "out"
    assert convert(load_data_spec(write_spec(tmp_path, text)), out) == (len(IMAGES), 0)
    sets = load_data_spec(out / "data.yaml").resolve()
    assert sets.labels.names == NAMES
    assert [sample.id for sample in sets.labeled] == sorted(IMAGES)
    for sample in sets.labeled:
        assert sample.mask is not None
        assert sample.mask.suffix == ".png"
        np.testing.assert_array_equal(read_mask(sample, sets.coding), expected_mask_of(IMAGES[sample.id]))
