"""The same objects in the files of every labeling tool: the same masks, and one line for each damaged file."""

import base64
import io
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from annotation_writers import (
    HEIGHT,
    IMAGES,
    WIDTH,
    WRITERS,
    expected_mask_of,
    filled,
    write_coco,
    write_cvat,
    write_label_studio,
    write_labelme,
    write_supervisely,
    write_yolo,
)
from data_helpers import write_image, write_spec
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from segkc_deploy.data.annotations.brush import decode_brush, encode_brush
from segkc_deploy.data.check import check
from segkc_deploy.data.masks import read_mask
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import ConfigError, DataError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' decode

CLASSES = "classes: [background, road, tree]\n"


def _data(root: Path, write: Callable[[Path], str], spec: str = CLASSES) -> ImageSets:
    for index, name in enumerate(IMAGES):
        write_image(root / "images" / f"{name}.png", seed=index, height=64, width=80)
        Image.open(root / "images" / f"{name}.png").crop((0, 0, WIDTH, HEIGHT)).save(root / "images" / f"{name}.png")
    masks = write(root)
    path = write_spec(root, f"{spec}labeled: {{images: images, masks: {masks}}}\n")
    return load_data_spec(path).resolve()


@pytest.mark.parametrize("write", WRITERS)
def test_every_tool_gives_the_same_masks(tmp_path: Path, write: Callable[[Path], str]) -> None:
    sets = _data(tmp_path, write)
    assert [sample.id for sample in sets.labeled] == sorted(IMAGES)
    for sample in sets.labeled:
        np.testing.assert_array_equal(read_mask(sample, sets.coding), expected_mask_of(IMAGES[sample.id]))
    assert check(sets, workers=2).errors == 0


def test_polygons_are_those_of_the_other_tools_but_for_their_edges() -> None:
    """Ultralytics fills with OpenCV and labelme with Pillow, which both include the outline."""
    for shapes in IMAGES.values():
        for _, points in shapes:
            ours = filled(points) > 0
            opencv = cv2.fillPoly(np.zeros((HEIGHT, WIDTH), np.uint8), [np.array(points, np.int32)], 1) > 0
            image = Image.new("1", (WIDTH, HEIGHT))
            ImageDraw.Draw(image).polygon(points, outline=1, fill=1)
            edge = cv2.polylines(np.zeros((HEIGHT, WIDTH), np.uint8), [np.array(points, np.int32)], True, 1, 2) > 0
            for other in (opencv, np.asarray(image)):
                assert (ours == other)[~edge].all()
                assert (ours != other).mean() < 0.04


def test_coco_crowds_lie_below_the_objects_and_run_lengths_may_be_compressed(tmp_path: Path) -> None:
    region = np.zeros((HEIGHT, WIDTH), np.uint8)
    region[10:50, 10:70] = 1
    packed = coco_mask.encode(np.asfortranarray(region))
    inner = [20, 20, 40, 20, 40, 40, 20, 40]

    def write(root: Path) -> str:
        write_coco(root)
        content = json.loads((root / "instances.json").read_text())
        counts = [10 * HEIGHT + 10, *[40, 20] * 59, 40, 10 + 10 * HEIGHT]
        content["annotations"] = [
            {"id": 1, "image_id": 0, "category_id": 2, "iscrowd": 0, "segmentation": [inner]},
            {"id": 2, "image_id": 0, "category_id": 1, "iscrowd": 1, "segmentation": {"counts": counts}},
            {
                "id": 3,
                "image_id": 1,
                "category_id": 1,
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": packed["counts"].decode()},
            },
        ]
        (root / "instances.json").write_text(json.dumps(content))
        return "instances.json"

    sets = _data(tmp_path, write)
    first, second, third = (read_mask(sample, sets.coding) for sample in sets.labeled)
    np.testing.assert_array_equal(second, region)
    assert not third.any()
    expected = region.copy()
    expected[20:40, 20:40] = 2
    np.testing.assert_array_equal(first, expected)


def test_other_shapes_of_labelme(tmp_path: Path) -> None:
    bitmap = np.zeros((6, 9), bool)
    bitmap[1:4, 2:7] = True
    buffer = io.BytesIO()
    Image.fromarray(bitmap.astype(np.uint8) * 255).save(buffer, "PNG")

    def write(root: Path) -> str:
        write_labelme(root)
        path = root / "labelme" / "a0.json"
        content = json.loads(path.read_text())
        content["shapes"] = [
            {"label": "road", "points": [[10, 10], [30, 25]], "shape_type": "rectangle"},
            {"label": "tree", "points": [[50, 30], [60, 30]], "shape_type": "circle"},
            {"label": "__ignore__", "points": [[70, 50], [78, 55]], "shape_type": "mask"}
            | {"mask": base64.b64encode(buffer.getvalue()).decode()},
            {"label": "road", "points": [[1, 1]], "shape_type": "point"},
        ]
        path.write_text(json.dumps(content))
        return "labelme"

    sets = _data(tmp_path, write)
    mask = read_mask(sets.labeled[0], sets.coding)
    assert (mask[10:25, 10:30] == 1).all()
    assert (mask == 1).sum() == 300
    rows, columns = np.nonzero(mask == 2)
    inside = np.hypot(columns - 49.5, rows - 29.5)
    assert inside.max() < 10.8
    assert (mask == 2).sum() == pytest.approx(np.pi * 100, rel=0.04)
    np.testing.assert_array_equal(mask[50:56, 70:79] == 255, bitmap)


def test_holes_and_bitmaps_of_supervisely(tmp_path: Path) -> None:
    bitmap = np.zeros((5, 7), bool)
    bitmap[1:4, 2:6] = True
    buffer = io.BytesIO()
    Image.fromarray(bitmap).save(buffer, "PNG")
    data = base64.b64encode(zlib.compress(buffer.getvalue())).decode()

    def write(root: Path) -> str:
        write_supervisely(root)
        outer, inner = [[10, 10], [50, 10], [50, 50], [10, 50]], [[20, 20], [40, 20], [40, 40], [20, 40]]
        content = json.loads((root / "ann" / "a0.png.json").read_text())
        content["objects"] = [
            {"classTitle": "road", "geometryType": "polygon", "points": {"exterior": outer, "interior": [inner]}},
            {"classTitle": "tree", "geometryType": "bitmap", "bitmap": {"data": data, "origin": [60, 30]}},
        ]
        (root / "ann" / "a0.png.json").write_text(json.dumps(content))
        return "ann"

    sets = _data(tmp_path, write)
    mask = read_mask(sets.labeled[0], sets.coding)
    assert (mask[20:40, 20:40] == 0).all()
    assert (mask == 1).sum() == 40 * 40 - 20 * 20
    np.testing.assert_array_equal(mask[30:35, 60:67] == 2, bitmap)


def test_boxes_ellipses_and_masks_of_cvat(tmp_path: Path) -> None:
    def write(root: Path) -> str:
        (root / "annotations.xml").write_text(
            f'<annotations><image id="0" name="a0.png" width="{WIDTH}" height="{HEIGHT}">'
            '<box label="road" xtl="5" ytl="6" xbr="15" ybr="26" z_order="0"/>'
            '<ellipse label="tree" cx="40" cy="30" rx="12" ry="6" z_order="0"/>'
            '<mask label="road" rle="1, 2, 3" left="70" top="50" width="3" height="2" z_order="0"/>'
            '<points label="tree" points="1,1" z_order="0"/></image></annotations>'
        )
        return "annotations.xml"

    sets = _data(tmp_path, write)
    (sample,) = sets.labeled
    mask = read_mask(sample, sets.coding)
    assert (mask[6:26, 5:15] == 1).all()
    assert mask[50:52, 70:73].tolist() == [[0, 1, 1], [0, 0, 0]]
    assert (mask == 1).sum() == 202
    assert (mask == 2).sum() == pytest.approx(np.pi * 72, rel=0.05)


@pytest.mark.parametrize("with_json", [False, True])
def test_label_studios_png_files_are_paired_by_the_json_or_by_order(tmp_path: Path, with_json: bool) -> None:
    order = [2, 0, 1]  # the tasks' order is not the images'

    def write(root: Path) -> str:
        (root / "pngs").mkdir()
        for task, index in enumerate(order if with_json else range(3)):
            shapes = list(IMAGES.values())[index]
            for label in ("road", "tree"):
                region = expected_mask_of(shapes) == ["background", "road", "tree"].index(label)
                name = f"task-{task}-annotation-4-by-1-tag-{label}-0.png"
                Image.fromarray(region.astype(np.uint8) * 255).save(root / "pngs" / name)
        if with_json:
            tasks = [{"id": task, "data": {"image": f"/x/{list(IMAGES)[i]}.png"}} for task, i in enumerate(order)]
            (root / "project.json").write_text(json.dumps(tasks))
        return "pngs"

    sets = _data(tmp_path, write)
    for sample in sets.labeled:
        np.testing.assert_array_equal(read_mask(sample, sets.coding), expected_mask_of(IMAGES[sample.id]))
    kinds = [finding.kind for finding in check(sets, workers=1).findings]
    assert kinds == ([] if with_json else ["paired-by-order"])

    for path in (tmp_path / "pngs").glob("task-2-*"):
        path.unlink()
    if with_json:
        assert len(load_data_spec(tmp_path / "data.yaml").resolve().labeled) == 2
    else:
        with pytest.raises(DataError, match="2 tasks for 3 images; export the project as JSON too"):
            load_data_spec(tmp_path / "data.yaml").resolve()


def test_brush_masks_decode_single_values_and_repeated_ones() -> None:
    rng = np.random.default_rng(0)
    region = rng.random((5, 7)) < 0.5
    np.testing.assert_array_equal(decode_brush(encode_brush(region), (5, 7), "x"), region)
    large = np.zeros((300, 400), bool)
    large[20:200, 30:390] = True
    np.testing.assert_array_equal(decode_brush(encode_brush(large), (300, 400), "x"), large)
    # num = 8, word size 8, run sizes 3 4 8 16; a literal run of eight bytes: two pixels, the second painted.
    bits = f"{8:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}" + "0" + "00" + f"{7:03b}"
    bits += "".join(f"{value:08b}" for value in (1, 2, 3, 0, 4, 5, 6, 255))
    bits += "0" * (-len(bits) % 8)
    data = [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]
    assert decode_brush(data, (1, 2), "x").tolist() == [[False, True]]
    for damaged in (data[:-3], data[:2], [300], [0] * 20, ["a"]):
        with pytest.raises(DataError, match="x: its brush mask"):
            decode_brush(damaged, (1, 2), "x")


def test_yolo_without_names_counts_the_classes_without_the_background(tmp_path: Path) -> None:
    def write(root: Path) -> str:
        (root / "labels").mkdir()
        (root / "labels" / "a0.txt").write_text("1 0.25 0.25 0.75 0.25 0.75 0.75\n")
        (root / "labels" / "b1.txt").write_text("")
        return "labels"

    sets = _data(tmp_path, write)
    assert [sample.id for sample in sets.labeled] == ["a0", "b1"]
    assert set(np.unique(read_mask(sets.labeled[0], sets.coding))) == {0, 2}
    assert not read_mask(sets.labeled[1], sets.coding).any()
    for name, names in (("one", "[road, tree]"), ("two", "[tree, road]")):
        (tmp_path / f"{name}.yaml").write_text(f"names: {names}\n")
    with pytest.raises(ConfigError, match=r"one\.yaml and two\.yaml have different `names`"):
        load_data_spec(tmp_path / "data.yaml").resolve()


def test_labels_can_be_mapped_and_unknown_ones_are_named(tmp_path: Path) -> None:
    sets = _data(tmp_path, write_coco, "classes: [background, roads]\n")
    with pytest.raises(DataError, match=r"the label 'road' is not a class; did you mean 'roads'\?"):
        read_mask(sets.labeled[0], sets.coding)
    write_spec(
        tmp_path,
        "classes: [background, roads]\nlabel_mapping: {road: 1, tree: 255}\n"
        "labeled: {images: images, masks: instances.json}\n",
    )
    sets = load_data_spec(tmp_path / "data.yaml").resolve()
    expected = np.array([0, 1, 255], np.uint8)[expected_mask_of(IMAGES["a0"])]
    np.testing.assert_array_equal(read_mask(sets.labeled[0], sets.coding), expected)


def test_numbers_in_label_mapping_are_values_of_mask_files_alone(tmp_path: Path) -> None:
    spec = "classes: [background, road, tree]\nlabel_mapping: {0: 255, 1: 0, 2: 1, 3: 2}\n"
    sets = _data(tmp_path, write_coco, spec)
    sample = sets.labeled[0]
    expected = expected_mask_of(IMAGES["a0"])
    np.testing.assert_array_equal(read_mask(sample, sets.coding), expected)
    report = check(sets, workers=1)
    assert report.errors == 0
    drawn = np.bincount(np.concatenate([read_mask(one, sets.coding).ravel() for one in sets.labeled]), minlength=3)
    assert report.sets[0].class_pixels == tuple(drawn[:3].tolist())
    path = tmp_path / "values.png"
    Image.fromarray(np.array([0, 2, 3], np.uint8)[expected]).save(path)
    from_file = read_mask(replace(sample, mask=path), sets.coding)
    np.testing.assert_array_equal(from_file, np.array([255, 1, 2], np.uint8)[expected])


def test_without_a_background_class_the_rest_is_ignored(tmp_path: Path) -> None:
    sets = _data(tmp_path, write_coco, "classes: [road, tree]\n")
    expected = np.array([255, 0, 1], np.uint8)[expected_mask_of(IMAGES["a0"])]
    np.testing.assert_array_equal(read_mask(sets.labeled[0], sets.coding), expected)


@pytest.mark.parametrize(
    ("write", "file", "old", "new", "message"),
    [
        (write_coco, "instances.json", '"category_id": 1', '"category_id": 9', "no category has the id 9"),
        (write_coco, "instances.json", '"image_id": 0', '"image_id": 9', "no image has the id 9"),
        (write_coco, "instances.json", '"height": 60', '"height": -60', "the image's size is wrong"),
        (write_coco, "instances.json", '"height": 60', '"height": 999999999', "more than the limit"),
        (write_coco, "instances.json", '"file_name"', '"name"', "file_name is missing"),
        (write_coco, "instances.json", "{", "[", "not JSON"),
        (write_cvat, "annotations.xml", "points=", "pointz=", None),
        (write_cvat, "annotations.xml", ",", ":", "should be `x,y;x,y;…`"),
        (write_cvat, "annotations.xml", "</image>", "", "not XML that can be read"),
        (write_cvat, "annotations.xml", "<version>", "<track/><version>", "tracks of a video"),
        (
            write_label_studio,
            "project.json",
            '"original_width": 80',
            '"original_width": "80"',
            "the image's size is wrong",
        ),
        (write_labelme, "labelme/a0.json", '"label"', '"labels"', "label is missing"),
        (write_labelme, "labelme/a0.json", '"polygon"', '"cube"', "a cube of 7 points is not read"),
        (write_yolo, "labels/a0.txt", ".", ",", "should be a class number and a polygon"),
        (write_yolo, "labels/a0.txt", "1 ", "7 ", "class 7 has no name"),
    ],
)
def test_a_damaged_file_is_one_line(
    tmp_path: Path, write: Callable[[Path], str], file: str, old: str, new: str, message: str | None
) -> None:
    sets = _data(tmp_path, write)
    path = tmp_path / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    if message is None:  # a polygon without points has no area
        assert not read_mask(sets.labeled[0], sets.coding).any()
        return
    with pytest.raises(DataError, match=message) as caught:
        read_mask(sets.labeled[0], sets.coding)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([], "has no segmentation; boxes cannot be trained on"),
        ([[1, 2, 3]], r"a polygon should be \[x1, y1"),
        ([[1e9, 0, 5, 5, 0, 9]], "far outside the 80x60 image"),
        ({"counts": [1, 2]}, "does not have the 80x60 pixels"),
        ({"counts": [-1, HEIGHT * WIDTH + 1]}, "does not have the 80x60 pixels"),
        ({"counts": "\x01\x02"}, "damaged"),
        ({"counts": "0" * 50}, "does not have the 80x60 pixels"),
        ({"size": [1, 2], "counts": [2]}, "has the size"),
        ({"counts": 5}, "should be a list of numbers or a string"),
    ],
)
def test_a_damaged_segmentation_is_one_line(tmp_path: Path, segmentation: Any, message: str) -> None:
    def write(root: Path) -> str:
        write_coco(root)
        content = json.loads((root / "instances.json").read_text())
        content["annotations"] = [{"id": 5, "image_id": 0, "category_id": 1, "segmentation": segmentation}]
        (root / "instances.json").write_text(json.dumps(content))
        return "instances.json"

    with pytest.raises(DataError, match=message):
        sets = _data(tmp_path, write)
        read_mask(sets.labeled[0], sets.coding)
