"""An image gets the annotations of its own name, and never those of another whose name is alike."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_helpers import write_image, write_spec
from PIL import Image

from segkc_deploy.data.masks import read_mask
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import DataError

HEIGHT, WIDTH = 32, 48


def _coco(*names: str) -> dict[str, Any]:
    """Annotations of which the image at index i holds a box of i + 1 rows."""
    return {
        "images": [
            {"id": index, "file_name": name, "height": HEIGHT, "width": WIDTH} for index, name in enumerate(names)
        ],
        "categories": [{"id": 1, "name": "road"}],
        "annotations": [
            {
                "id": index,
                "image_id": index,
                "category_id": 1,
                "segmentation": [[0, 0, WIDTH, 0, WIDTH, index + 1, 0, index + 1]],
            }
            for index in range(len(names))
        ],
    }


def _tasks(*names: str) -> list[dict[str, Any]]:
    """Tasks of Label Studio of which the one at index i holds a box of i + 1 rows."""
    return [
        {
            "id": index,
            "data": {"image": f"/data/upload/1/{name}"},
            "annotations": [
                {
                    "result": [
                        {
                            "original_width": WIDTH,
                            "original_height": HEIGHT,
                            "type": "polygonlabels",
                            "value": {
                                "points": [
                                    [0, 0],
                                    [100, 0],
                                    [100, 100 * (index + 1) / HEIGHT],
                                    [0, 100 * (index + 1) / HEIGHT],
                                ],
                                "polygonlabels": ["road"],
                            },
                        }
                    ]
                }
            ],
        }
        for index, name in enumerate(names)
    ]


def _pngs(root: Path, *names: str) -> None:
    """The PNG export of these tasks, of the same boxes, beside their names."""
    (root / "pngs").mkdir()
    for index in range(len(names)):
        region = np.zeros((HEIGHT, WIDTH), np.uint8)
        region[: index + 1] = 255
        Image.fromarray(region).save(root / "pngs" / f"task-{index}-annotation-1-by-1-tag-road-0.png")
    tasks = [{"id": index, "data": {"image": f"/x/{name}"}} for index, name in enumerate(names)]
    (root / "pngs/project.json").write_text(json.dumps(tasks))


def _sets(root: Path, images: list[str], annotations: Any, sections: str | None = None) -> ImageSets:
    for seed, name in enumerate(images):
        write_image(root / "images" / name, seed=seed)
    if isinstance(annotations, tuple):
        _pngs(root, *annotations)
    else:
        (root / "all.json").write_text(json.dumps(annotations))
    masks = "pngs" if isinstance(annotations, tuple) else "all.json"
    spec = "classes: [background, road]\n" + (sections or "labeled: {images: images, masks: MASKS}\n")
    return load_data_spec(write_spec(root, spec.replace("MASKS", masks))).resolve()


def _rows(sets: ImageSets) -> dict[str, int]:
    """Return by image how many rows its mask marks: which annotations it has."""
    return {sample.id: int((read_mask(sample, sets.coding)[:, 0] == 1).sum()) for sample in sets.labeled}


@pytest.mark.parametrize(
    ("images", "annotations", "rows"),
    [
        (["cam1/1.png", "cam2/1.png"], _coco("cam1/1.png"), {"cam1/1": 1}),
        (["cam1/1.png", "cam2/1.png"], _coco("cam2/1.png", "cam1/1.png"), {"cam1/1": 2, "cam2/1": 1}),
        (["20230101-1.png", "20230102-1.png"], _coco("20230101-1.png"), {"20230101-1": 1}),
        (["20230101-1.png", "20230102-1.png"], _tasks("20230101-1.png"), {"20230101-1": 1}),
        (["20230101-1.png"], _tasks("0a1b2c3d-20230101-1.png"), {"20230101-1": 1}),
        (["20230101-1.png", "1.png"], _tasks("20230101-1.png"), {"20230101-1": 1}),
        (["aaaaaaaa-x.png", "bbbbbbbb-x.png"], _tasks("aaaaaaaa-x.png"), {"aaaaaaaa-x": 1}),
        (["aaaaaaaa-x.png"], _coco("x.png"), {"aaaaaaaa-x": 1}),
        (["cam1/1.png", "cam2/1.png"], ("cam1/1.png", "cam2/1.png"), {"cam1/1": 1, "cam2/1": 2}),
        (
            ["20230101-1.png", "20230102-1.png"],
            ("20230101-1.png", "20230102-1.png"),
            {"20230101-1": 1, "20230102-1": 2},
        ),
        (["20230101-1.png", "2.png"], ("0a1b2c3d-20230101-1.png", "2.png"), {"20230101-1": 1, "2": 2}),
    ],
)
def test_images_of_like_names(tmp_path: Path, images: list[str], annotations: Any, rows: dict[str, int]) -> None:
    sets = _sets(tmp_path, images, annotations)
    assert _rows(sets) == rows
    assert len(sets.unlabeled) == len(images) - len(rows)


def test_annotations_that_fit_two_images_are_refused(tmp_path: Path) -> None:
    images = ["cam1/1.png", "cam2/1.png", "2.png"]
    with pytest.raises(DataError, match=r"all\.json: the same annotations fit .*cam1/1\.png and .*cam2/1\.png by name"):
        _sets(tmp_path, images, _coco("1.png", "2.png"))
    (tmp_path / "few.txt").write_text("cam2/1\n2\n")  # a list says which of them is meant
    sections = "labeled: {images: images, masks: MASKS, ids: few.txt}\n"
    assert _rows(_sets(tmp_path, images, _coco("1.png", "2.png"), sections)) == {"cam2/1": 1, "2": 2}


def test_a_validation_image_does_not_take_the_annotations_of_a_labeled_one(tmp_path: Path) -> None:
    sections = "labeled: {images: images/cam1, masks: MASKS}\nval: {images: images/cam2, masks: MASKS}\n"
    with pytest.raises(DataError, match="the same annotations fit"):
        _sets(tmp_path, ["cam1/1.png", "cam2/1.png"], _coco("cam1/1.png"), sections)
    both = _sets(tmp_path, ["cam1/1.png", "cam2/1.png"], _coco("cam1/1.png", "cam2/1.png"), sections)
    assert (len(both.labeled), len(both.val)) == (1, 1)
    same = sections.replace("images/cam2", "images/cam1")  # an image of both sets is no other image
    assert len(_sets(tmp_path, ["cam1/1.png"], _coco("cam1/1.png"), same).val) == 1


def test_two_tasks_of_one_image_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tasks 0 and 1 are both of '/x/1\.png'; keep one"):
        _sets(tmp_path, ["1.png", "2.png"], ("1.png", "1.png"))
