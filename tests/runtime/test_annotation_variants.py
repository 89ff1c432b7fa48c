"""Annotation files as other versions of the tools, and their users, leave them: read right, or refused by name."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotation_writers import HEIGHT, WIDTH, encode_brush
from data_helpers import write_spec
from PIL import Image

from segkc_deploy.data.check import check
from segkc_deploy.data.masks import read_mask
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import DataError, UserError

EXPECTED = np.zeros((HEIGHT, WIDTH), np.uint8)
EXPECTED[5:20, 5:25], EXPECTED[30:50, 40:70] = 1, 2
ROAD, TREE = [(5, 5), (25, 5), (25, 20), (5, 20)], [(40, 30), (70, 30), (70, 50), (40, 50)]
FLAT = [[float(value) for point in points for value in point] for points in (ROAD, TREE)]


def _mask(root: Path, files: dict[str, Any], masks: str = "masks", image: str = "a.png") -> np.ndarray:
    """Write the files, and return the mask of the one image; `check` must not fail on what is read."""
    (root / "images").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT), (90, 60, 30)).save(root / "images" / image)
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    spec = f"classes: [background, road, tree]\nlabeled: {{images: images, masks: {masks}}}\n"
    sets = load_data_spec(write_spec(root, spec)).resolve()
    (sample,) = sets.labeled
    mask = read_mask(sample, sets.coding)
    assert check(sets, workers=1).errors == 0
    return mask


def _coco() -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 7, "name": "road"}, {"id": 90, "name": "tree"}],
        "annotations": [
            {"id": index, "image_id": 1, "category_id": category, "segmentation": [polygon]}
            for index, (category, polygon) in enumerate(zip((7, 90), FLAT, strict=True))
        ],
    }


def _yolo(points: list[tuple[int, int]]) -> str:
    return " ".join(f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in points)


YOLO = f"1 {_yolo(ROAD)}\n0 {_yolo(TREE)}\n"


def _labelme(**shape: Any) -> dict[str, Any]:
    """The road as `shape` says, and the tree as a polygon."""
    road = {"label": "road", "points": ROAD, "shape_type": "polygon"} | shape
    tree = {"label": "tree", "points": TREE, "shape_type": "polygon"}
    return {"shapes": [road, tree], "imagePath": "a.png", "imageHeight": HEIGHT, "imageWidth": WIDTH}


def _result(label: str, points: list[tuple[int, int]], kind: str = "polygonlabels", **more: Any) -> dict[str, Any]:
    value = {"points": [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in points], kind: [label]}
    return {"original_width": WIDTH, "original_height": HEIGHT, "type": kind, "value": value} | more


def _tasks(data: dict[str, str], *results: dict[str, Any]) -> list[dict[str, Any]]:
    shapes = results or (_result("road", ROAD), _result("tree", TREE))
    return [{"id": 3, "data": data, "annotations": [{"was_cancelled": False, "result": list(shapes)}]}]


def _brush(label: str, region: np.ndarray) -> dict[str, Any]:
    value = {"format": "rle", "rle": encode_brush(region), "brushlabels": [label]}
    return {"original_width": WIDTH, "original_height": HEIGHT, "type": "brushlabels", "value": value}


@pytest.mark.parametrize(
    ("files", "masks", "image"),
    [
        ({"masks/a.txt": YOLO, "masks/classes.txt": "tree\nroad\n"}, "masks", "a.png"),
        ({"masks/a.txt": YOLO, "classes.txt": "\ufefftree\r\nroad\r\n\r\n"}, "masks", "a.png"),
        ({"masks/a.txt": YOLO, "obj.names": "tree\nroad"}, "masks", "a.png"),
        ({"masks/a.txt": YOLO.replace("1 ", "4 ", 1), "u.yaml": "names: {0: tree, 4: road}\n"}, "masks", "a.png"),
        ({"masks/a.txt": YOLO, "u.yaml": "names: {'0': tree, '1': road}\n"}, "masks", "a.png"),
        ({"masks/a.txt": YOLO, "classes.txt": "tree\nroad\n", "masks/notes.json": {"info": {}}}, "masks", "a.png"),
        ({"masks/a.json": _labelme(shape_type="rectangle")}, "masks", "a.png"),
        ({"masks/a.json": _labelme(shape_type="rectangle", points=[[25, 20], [5, 5]])}, "masks", "a.png"),
        ({"masks/a.json": _labelme(shape_type="rotation")}, "masks", "a.png"),
        ({"masks/a.json": _labelme() | {"imagePath": "C:\\photos\\other.jpg"}}, "masks", "a.png"),
        ({"p.json": _tasks({"image": "https://bucket/x/a.png?X-Amz-Signature=1&X-Amz-Date=2"})}, "p.json", "a.png"),
        ({"p.json": _tasks({"note": "see b.txt", "url": "/data/local-files/?d=x%5Ca.png"})}, "p.json", "a.png"),
        ({"p.json": _tasks({"image": "/data/upload/1/0a1b2c3d-a%20b.png"})}, "p.json", "a b.png"),
        ({"p.json": _tasks({"image": "/data/upload/1/0a1b2c3d-a.png"})}, "p.json", "0a1b2c3d-a.png"),
        ({"p.json": _tasks({"image": "s3://x/deadbeef-12ab.png"})}, "p.json", "deadbeef-12ab.png"),
        ({"p.json": _tasks({"image": "/data/upload/1/0a1b2c3d-deadbeef-1.png"})}, "p.json", "deadbeef-1.png"),
        (
            {"p.json": _tasks({"image": "a.png"}, _brush("road", EXPECTED == 1), _result("tree", TREE))},
            "p.json",
            "a.png",
        ),
    ],
    ids=[
        "classes.txt",
        "classes.txt-above",
        "obj.names",
        "names-with-gaps",
        "names-as-text",
        "stray-json",
        "box-of-four-corners",
        "box-from-below",
        "oriented-box",
        "path-of-windows",
        "signed-url",
        "local-file",
        "upload-with-space",
        "kept-prefix",
        "name-like-a-prefix",
        "prefix-before-such-a-name",
        "brush-and-polygon",
    ],
)
def test_it_is_read(tmp_path: Path, files: dict[str, Any], masks: str, image: str) -> None:
    np.testing.assert_array_equal(_mask(tmp_path, files, masks, image), EXPECTED)


def test_a_circle_of_labelme_reaches_to_its_second_point(tmp_path: Path) -> None:
    mask = _mask(tmp_path, {"masks/a.json": _labelme(shape_type="circle", points=[[20, 15], [26, 23]])})
    rows, columns = np.nonzero(mask == 1)
    assert np.hypot(columns - 19.5, rows - 14.5).max() == pytest.approx(10, abs=0.8)
    assert (mask == 1).sum() == pytest.approx(np.pi * 100, rel=0.04)


def test_labelmes_own_name_of_the_background(tmp_path: Path) -> None:
    content = _labelme()
    content["shapes"].append({"label": "_background_", "points": ROAD, "shape_type": "polygon"})
    mask = _mask(tmp_path, {"masks/a.json": content})
    np.testing.assert_array_equal(mask, np.where(EXPECTED == 1, 0, EXPECTED))


def test_a_separator_at_the_end_of_cvats_points(tmp_path: Path) -> None:
    shapes = "".join(
        f'<polygon label="{label}" points="{";".join(f"{x},{y}" for x, y in points)}; " z_order="0"/>'
        for label, points in (("road", ROAD), ("tree", TREE))
    )
    head = f'<image id="0" name="a.png" width="{WIDTH}" height="{HEIGHT}">'
    content = f"<annotations>{head}{shapes}</image></annotations>"
    np.testing.assert_array_equal(_mask(tmp_path, {"a.xml": content}, "a.xml"), EXPECTED)


def test_cvats_shapes_of_one_layer_are_painted_in_their_order(tmp_path: Path) -> None:
    shapes = "".join(f'<polygon label="{label}" points="{_points(ROAD)}" z_order="0"/>' for label in ("tree", "road"))
    shapes += f'<polygon label="tree" points="{_points(TREE)}" z_order="0"/>'
    head = f'<image id="0" name="a.png" width="{WIDTH}" height="{HEIGHT}">'
    content = f"<annotations>{head}{shapes}</image></annotations>"
    np.testing.assert_array_equal(_mask(tmp_path, {"a.xml": content}, "a.xml"), EXPECTED)


def _points(points: list[tuple[int, int]]) -> str:
    return ";".join(f"{x},{y}" for x, y in points)


TURNED_IN_CVAT = (
    f'<annotations><image id="0" name="a.png" width="{WIDTH}" height="{HEIGHT}">'
    '<box label="road" xtl="10" ytl="10" xbr="50" ybr="16" rotation="30" z_order="0"/>'
    '<ellipse label="tree" cx="55" cy="45" rx="15" ry="5" rotation="330" z_order="0"/></image></annotations>'
)
TURNED_IN_LABEL_STUDIO = _tasks(
    {"image": "a.png"},
    *(
        {"original_width": WIDTH, "original_height": HEIGHT, "value": value}
        for value in (
            {"x": 12.5, "y": 100 / 6, "width": 50, "height": 10, "rotation": 30, "rectanglelabels": ["road"]},
            {"x": 68.75, "y": 75, "radiusX": 18.75, "radiusY": 25 / 3, "rotation": 330, "ellipselabels": ["tree"]},
        )
    ),
)


@pytest.mark.parametrize(
    ("file", "content", "ends_of_box"),
    [
        ("p.xml", TURNED_IN_CVAT, [(11.2, 5.6), (48.8, 20.4)]),  # about its center
        ("p.json", TURNED_IN_LABEL_STUDIO, [(7.0, 15.2), (44.6, 30.0)]),  # about its top left corner
    ],
)
def test_boxes_and_ellipses_turn_clockwise(
    tmp_path: Path, file: str, content: Any, ends_of_box: list[tuple[float, float]]
) -> None:
    mask = _mask(tmp_path, {file: content}, file)
    np.testing.assert_allclose(_ends(mask == 1), ends_of_box, atol=1.5)
    np.testing.assert_allclose(_ends(mask == 2), [(41.8, 51.5), (68.2, 38.5)], atol=1.5)
    assert (mask == 1).sum() == pytest.approx(40 * 6, rel=0.05)
    assert (mask == 2).sum() == pytest.approx(np.pi * 15 * 5, rel=0.05)


def _ends(region: np.ndarray) -> list[tuple[float, float]]:
    """Return (x, y) of the leftmost and of the rightmost place of a region."""
    columns = np.flatnonzero(region.any(axis=0))
    return [(x + end, np.flatnonzero(region[:, x]).mean() + 0.5) for x, end in ((columns[0], 0), (columns[-1], 1))]


def _changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    content = _coco()
    change(content)
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            _changed(lambda one: one["categories"].append({"id": 7, "name": "tree"})),
            "the categories 'road' and 'tree' have the same id 7",
        ),
        (
            _changed(lambda one: one["images"].append({"id": 1, "file_name": "b.png", "height": 4, "width": 4})),
            "the images a.png and b.png have the same id 1",
        ),
        (_changed(lambda one: one["annotations"][0].update(segmentation=[[]])), "has no segmentation"),
        (_tasks({"image": "data:image/png;base64,AAAA"}), "nothing in its data is the path or URL of an image file"),
        (
            _tasks({"image": "a.png"}, _result("road", ROAD, "vectorlabels")),
            "vectorlabels are not read; use brushes, polygons",
        ),
        (_tasks({"image": "a.png"}, _result("road", ROAD, image_rotation=90)), "rotated by 90 degrees"),
    ],
)
def test_what_would_give_wrong_masks_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _mask(tmp_path, {"p.json": content}, "p.json")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("masks/a.txt", YOLO.replace("1 ", "nan ", 1), "class nan has no name"),
        ("masks/a.txt", YOLO.replace("1 ", "inf ", 1), "class inf has no name"),
        ("masks/a.json", _labelme(shape_type=["x"]), "shape_type is wrong"),
        ("masks/a.json", _labelme(points=[[10**400, 0], [5, 0], [5, 5]]), "should be a number"),
        (
            "masks/a.png.json",
            {"size": {"height": HEIGHT, "width": WIDTH}, "objects": [{"classTitle": "road", "geometryType": {}}]},
            "geometryType is wrong",
        ),
        (
            "masks/a.png.json",
            {
                "size": {"height": HEIGHT, "width": WIDTH},
                "objects": [
                    {"classTitle": "road", "geometryType": "polygon", "points": {"exterior": ROAD, "interior": 5}}
                ],
            },
            "interior is wrong",
        ),
    ],
)
def test_values_of_the_wrong_kind_are_one_line(tmp_path: Path, file: str, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _mask(tmp_path, {file: content, "classes.txt": "tree\nroad\n"})


@pytest.mark.parametrize(("label", "key"), [("1", "'1'"), ("no", "'no'"), ("a, b: c", "'a, b: c'"), ("car", "car")])
def test_the_hint_for_an_unknown_label_works(tmp_path: Path, label: str, key: str) -> None:
    content = json.dumps(_labelme(label=label))
    with pytest.raises(DataError, match=re.escape(f"`label_mapping: {{{key}: 255}}`")):
        _mask(tmp_path, {"masks/a.json": content})
    spec = "classes: [background, road, tree]\nlabeled: {images: images, masks: masks}\n"
    sets = load_data_spec(write_spec(tmp_path, f"{spec}label_mapping: {{{key}: 255}}\n")).resolve()
    assert (read_mask(sets.labeled[0], sets.coding)[5:20, 5:25] == 255).all()
    write_spec(tmp_path, f"{spec}ignore_index: 200\n")
    sets = load_data_spec(tmp_path / "data.yaml").resolve()
    with pytest.raises(DataError, match=re.escape(f"`label_mapping: {{{key}: 200}}`")):
        read_mask(sets.labeled[0], sets.coding)


@pytest.mark.parametrize("text", [f"0 {_yolo([(x + WIDTH // 2, y) for x, y in TREE])}", "0 1.5 0 0.5 0.5 0 0.5"])
def test_yolos_points_far_outside_the_image_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="should be fractions of the image's sides"):
        _mask(tmp_path, {"masks/a.txt": text})
