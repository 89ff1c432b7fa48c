"""Data sets and images that went wrong for users of other tools: each is read right, or refused for the true reason."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_helpers import blocks, write_image, write_spec
from PIL import Image
from tiny_artifact import expected_mask, make_artifact

from segkc_deploy import load
from segkc_deploy.data.check import check
from segkc_deploy.data.images import read_image
from segkc_deploy.data.masks import read_mask
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import ConfigError, DataError

COLORS = np.array([(0, 0, 0), (128, 64, 128), (107, 142, 35)], np.uint8)
CLASSES = "classes: {background: [0, 0, 0], road: [128, 64, 128], tree: [107, 142, 35]}\n"


def _ids(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, (32, 48), dtype=np.uint8)


def test_cvats_segmentation_masks_in_the_voc_layout(tmp_path: Path) -> None:
    """Colors instead of a palette, classes of one's own, and no `train.txt`: the other images are unlabeled."""
    for index in range(4):
        write_image(tmp_path / f"JPEGImages/f{index}.jpg", seed=index)
    for index in range(3):
        path = tmp_path / f"SegmentationClass/f{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(COLORS[_ids(index)]).save(path)
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/default.txt").write_text("f0\nf1\n")
    (tmp_path / "own.txt").write_text("f2\n")
    lists = "labeled: {ids: ImageSets/Segmentation/default.txt}\nval: {ids: own.txt}\n"
    path = write_spec(tmp_path, f"layout: voc\n{CLASSES}{lists}")
    sets = load_data_spec(path).resolve()
    assert [sample.id for sample in sets.labeled] == ["f0", "f1"]
    assert [sample.id for sample in sets.unlabeled] == ["f3"]
    for index, sample in enumerate((*sets.labeled, *sets.val)):
        np.testing.assert_array_equal(read_mask(sample, sets.coding), _ids(index))
    # Pascal VOC itself of which images are missing is still an error.
    write_image(tmp_path / "JPEGImages/2007_000032.jpg", seed=9)
    with pytest.raises(DataError, match="10581 of 10582 ids have no image"):
        load_data_spec(path).resolve()


def test_coco_as_it_is_downloaded(tmp_path: Path) -> None:
    """Polygons, and run lengths of a crowd, in `annotations/`; no folder of masks."""
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [[10, 5, 40, 5, 40, 20, 10, 20]]},
        {"id": 2, "image_id": 2, "category_id": 90, "iscrowd": 1}
        | {"segmentation": {"size": [32, 48], "counts": [320, 96, 32 * 48 - 416]}},
    ]
    categories = [{"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}]
    for split in ("train2017", "val2017"):
        images = [{"id": index, "file_name": f"{index:012}.jpg", "height": 32, "width": 48} for index in (1, 2)]
        for index in (1, 2):
            write_image(tmp_path / split / f"{index:012}.jpg", seed=index + 10 * len(split))
        (tmp_path / "annotations").mkdir(exist_ok=True)
        content = {"images": images, "annotations": annotations, "categories": categories}
        (tmp_path / f"annotations/instances_{split}.json").write_text(json.dumps(content))
    sets = load_data_spec(write_spec(tmp_path, "layout: coco\n")).resolve()
    polygon, crowd = np.zeros((32, 48), np.uint8), np.zeros((32, 48), np.uint8)
    polygon[5:20, 10:40] = 1
    crowd[:, 10:13] = 80
    for samples in (sets.labeled, sets.val):
        first, second = (read_mask(sample, sets.coding) for sample in samples)
        np.testing.assert_array_equal(first, polygon)
        np.testing.assert_array_equal(second, crowd)
    assert check(sets, workers=1).errors == 0


def test_yaml_files_of_yolo_have_to_agree(tmp_path: Path) -> None:
    write_image(tmp_path / "images/a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("1 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75\n")
    for name in ("u.yaml", "ultralytics.yaml"):
        (tmp_path / name).write_text("path: .\ntrain: images\nnames: {0: road, 1: tree}\nnc: 2\n")
    spec = "classes: [background, road, tree]\nlabeled: {images: images, masks: labels}\n"
    path = write_spec(tmp_path, spec)
    sets = load_data_spec(path).resolve()
    expected = np.zeros((32, 48), np.uint8)
    expected[8:24, 12:36] = 2
    np.testing.assert_array_equal(read_mask(sets.labeled[0], sets.coding), expected)
    (tmp_path / "u.yaml").write_text("names: {0: tree, 1: road}\n")
    with pytest.raises(ConfigError, match=r"u\.yaml and ultralytics\.yaml have different `names`"):
        load_data_spec(path).resolve()


def _transparent(path: Path) -> None:
    Image.fromarray(np.dstack([blocks(1), np.zeros((32, 48), np.uint8)])).save(path)


def _jpeg(path: Path) -> None:
    Image.fromarray(blocks(1)).save(path, "JPEG", quality=100, subsampling=0)


def _gif(path: Path) -> None:
    Image.fromarray(blocks(1)).quantize(64).save(path)


@pytest.mark.parametrize(
    ("name", "write", "error"),
    [("rgba0.png", _transparent, 0), ("jpeg.heic", _jpeg, 3), ("no-suffix", _jpeg, 3), ("palette.gif", _gif, 0)],
)
def test_pixels_of_odd_files(tmp_path: Path, name: str, write: Callable[[Path], None], error: int) -> None:
    write(tmp_path / name)
    found = read_image(tmp_path / name).astype(int)
    assert np.abs(found - blocks(1)).max() <= error


@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (2000, 3)])
def test_images_of_odd_sizes_get_masks_of_their_size(tmp_path: Path, size: tuple[int, int]) -> None:
    image = np.full((*size, 3), (54, 90, 170), np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image)
    with load(make_artifact(tmp_path)) as predictor:
        np.testing.assert_array_equal(predictor.predict(tmp_path / "a.png"), expected_mask(image))
