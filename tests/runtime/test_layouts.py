"""The known layouts on trees built as the data sets ship: what is found, and what the masks mean."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from data_helpers import write_image, write_mask, write_pairs, write_spec

from segkc_deploy.data.layouts import ADE20K, CAMVID, CITYSCAPES, COCO, COCO_STUFF, LAYOUTS, VOC
from segkc_deploy.data.masks import read_mask, read_sample
from segkc_deploy.data.samples import ImageSets, Sample
from segkc_deploy.data.spec import DataSpec, load_data_spec
from segkc_deploy.errors import ConfigError, DataError


def _resolve(root: Path, text: str) -> ImageSets:
    return load_data_spec(write_spec(root, text)).resolve()


def _ids(samples: tuple[Sample, ...]) -> list[str]:
    return [sample.id for sample in samples]


# --- Pascal VOC


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """`train` a b, `val` c d, SBD adds e f; a and c have masks of both kinds; g is in no list."""
    for index, name in enumerate("abcdefg"):
        write_image(tmp_path / f"JPEGImages/{name}.jpg", seed=index)
    for name in "abcd":
        write_mask(tmp_path / f"SegmentationClass/{name}.png", [0, 1, 20, 255])
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb\n")
    (lists / "val.txt").write_text("c\nd\n")
    return tmp_path


def _add_sbd(voc: Path) -> None:
    for name in "acef":
        write_mask(voc / f"SegmentationClassAug/{name}.png", [0, 2])
    (voc / "ImageSets/Segmentation/train_aug.txt").write_text("a\nb\ne\nf\n")


def test_voc_as_it_ships(voc: Path) -> None:
    sets = _resolve(voc, "layout: voc")
    assert (_ids(sets.labeled), _ids(sets.unlabeled), _ids(sets.val)) == (["a", "b"], [], ["c", "d"])
    assert sets.labels.num_classes == 21
    assert sets.coding.label_mapping == {}
    assert np.unique(read_mask(sets.val[0], sets.coding)).tolist() == [0, 1, 20, 255]


def test_voc_with_sbd_trains_on_its_masks_and_validates_on_the_original_ones(voc: Path) -> None:
    _add_sbd(voc)
    sets = _resolve(voc, "layout: voc")
    assert _ids(sets.labeled) == ["a", "b", "e", "f"]
    folders = {sample.id: sample.mask.parent.name for sample in (*sets.labeled, *sets.val) if sample.mask}
    extra, original = "SegmentationClassAug", "SegmentationClass"
    assert folders == {"a": extra, "b": original, "c": original, "d": original, "e": extra, "f": extra}


def test_voc_with_few_labels_uses_the_rest_of_the_training_list(voc: Path) -> None:
    _add_sbd(voc)
    (voc / "few.txt").write_text("e\n")
    sets = _resolve(voc, "layout: voc\nlabeled: {ids: few.txt}")
    assert (_ids(sets.labeled), _ids(sets.unlabeled)) == (["e"], ["a", "b", "f"])
    half = _resolve(voc, "layout: voc\nlabeled: {fraction: 1/2}")
    assert (len(half.labeled), len(half.unlabeled)) == (2, 2)


def test_voc_with_split_files_of_image_and_mask_paths(voc: Path) -> None:
    (voc / "labeled.txt").write_text("JPEGImages/b.jpg SegmentationClass/b.png\n")
    (voc / "unlabeled.txt").write_text("JPEGImages/a.jpg SegmentationClass/a.png\nJPEGImages/g.jpg none.png\n")
    sets = _resolve(voc, "layout: voc\nlabeled: {ids: labeled.txt}\nunlabeled: {ids: unlabeled.txt}")
    assert sets.labeled == (Sample("b", voc / "JPEGImages/b.jpg", voc / "SegmentationClass/b.png"),)
    assert _ids(sets.unlabeled) == ["a", "g"]


def test_voc_without_its_list_takes_the_published_one(voc: Path) -> None:
    (voc / "ImageSets/Segmentation/val.txt").unlink()
    with pytest.raises(DataError, match=r"data\.yaml: val: the published list for .*: 1449 of 1449 ids have no image"):
        _resolve(voc, "layout: voc")
    (voc / "v.txt").write_text("d\n")
    assert _ids(_resolve(voc, "layout: voc\nval: {ids: v.txt}").val) == ["d"]


def test_the_voc_palette_is_the_bit_pattern_of_the_id() -> None:
    """The devkit's own rule: bit 3k + j of the id is bit 7 - k of channel j."""
    expected = [
        tuple(sum(((index >> (3 * k + channel)) & 1) << (7 - k) for k in range(3)) for channel in range(3))
        for index in range(21)
    ]
    assert list((VOC.classes or {}).values()) == expected


# --- Cityscapes


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    names = {"train": ["aachen/aachen_000000_000019", "bremen/bremen_000001_000019"], "val": ["ulm/ulm_000002_000019"]}
    for split, ids in names.items():
        for index, name in enumerate(ids):
            write_image(tmp_path / f"leftImg8bit/{split}/{name}_leftImg8bit.png", seed=index + 10 * (split == "val"))
            mask = tmp_path / f"gtFine/{split}/{name}_gtFine"
            write_mask(Path(f"{mask}_labelIds.png"), (np.arange(32 * 48).reshape(32, 48) % 34).astype(np.uint8))
            write_image(Path(f"{mask}_color.png"))
            Path(f"{mask}_polygons.json").write_text("{}")
    return tmp_path


def _add_train_ids(cityscapes: Path) -> None:
    for path in cityscapes.rglob("*_labelIds.png"):
        write_mask(path.with_name(path.name.replace("labelIds", "labelTrainIds")), [0, 18, 255])


def test_cityscapes_ids_and_train_ids(cityscapes: Path) -> None:
    _add_train_ids(cityscapes)
    sets = _resolve(cityscapes, "layout: cityscapes")
    assert _ids(sets.labeled) == ["aachen/aachen_000000_000019", "bremen/bremen_000001_000019"]
    assert _ids(sets.val) == ["ulm/ulm_000002_000019"]
    assert sets.coding.label_mapping == {}
    assert all(sample.mask and sample.mask.name.endswith("_gtFine_labelTrainIds.png") for sample in sets.labeled)
    assert np.unique(read_sample(sets.val[0], sets)[1]).tolist() == [0, 18, 255]


def test_cityscapes_label_ids_are_mapped_as_the_official_table_says(cityscapes: Path) -> None:
    sets = _resolve(cityscapes, "layout: cityscapes")
    # cityscapesScripts helpers/labels.py: name, id, trainId of every label that is scored.
    official = {
        "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
        "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26,
        "truck": 27, "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
    }  # fmt: skip
    assert sets.labels.names == tuple(official)
    raw = np.arange(32 * 48).reshape(32, 48) % 34
    expected = [[([*official.values()].index(v) if v in official.values() else 255) for v in row] for row in raw]
    mask = read_sample(sets.labeled[0], sets)[1]
    assert mask is not None
    assert mask.tolist() == expected


def test_cityscapes_lists_and_extra_images(cityscapes: Path) -> None:
    _add_train_ids(cityscapes)
    write_image(cityscapes / "leftImg8bit/train_extra/bonn/bonn_000003_000019_leftImg8bit.png", seed=77)
    for line in (
        "aachen/aachen_000000_000019",
        "aachen/aachen_000000_000019_leftImg8bit.png",
        "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png"
        " gtFine/train/aachen/aachen_000000_000019_gtFine_labelTrainIds.png",
    ):
        (cityscapes / "few.txt").write_text(line + "\n")
        sets = _resolve(cityscapes, "layout: cityscapes\nlabeled: {ids: few.txt}")
        assert _ids(sets.labeled) == ["aachen/aachen_000000_000019"]
        assert _ids(sets.unlabeled) == ["bremen/bremen_000001_000019", "bonn/bonn_000003_000019"]


def test_cityscapes_missing_masks_are_named_as_they_should_be(cityscapes: Path) -> None:
    _add_train_ids(cityscapes)
    (cityscapes / "gtFine/val/ulm/ulm_000002_000019_gtFine_labelTrainIds.png").unlink()
    with pytest.raises(DataError, match=r"ulm_000002_000019_gtFine_labelTrainIds\.png is wanted"):
        _resolve(cityscapes, "layout: cityscapes")


# --- CamVid


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    write_pairs(tmp_path, "train", ["a", "b", "c"], [0, 10, 11])
    write_pairs(tmp_path, "val", ["d"], [0, 10, 11], seed=50)
    return tmp_path


def test_camvid(camvid: Path) -> None:
    (camvid / "few.txt").write_text("b\n")
    sets = _resolve(camvid, "layout: camvid\nlabeled: {ids: few.txt}")
    assert (_ids(sets.labeled), _ids(sets.unlabeled), _ids(sets.val)) == (["b"], ["a", "c"], ["d"])
    assert np.unique(read_sample(sets.labeled[0], sets)[1]).tolist() == [0, 10, 255]


def test_a_spec_may_differ_from_its_layout(camvid: Path) -> None:
    (camvid / "images/val").rename(camvid / "images/test")
    (camvid / "masks/val").rename(camvid / "masks/test")
    sets = _resolve(
        camvid,
        "layout: camvid\nignore_index: 200\nlabel_mapping: {10: 8}\nval: {images: images/test, masks: masks/test}",
    )
    assert sets.coding.label_mapping == {11: 200, 10: 8}
    assert _ids(sets.val) == ["d"]
    named = _resolve(
        camvid,
        "layout: camvid\nclasses: [a, b, c, d, e, f, g, h, i, j, k]\nval: {images: images/test, masks: masks/test}",
    )
    assert named.labels.names[0] == "a"
    assert named.labels.palette == tuple((CAMVID.classes or {}).values())


def test_a_specs_own_mapping_wins_over_the_layouts(camvid: Path) -> None:
    sets = _resolve(camvid, "layout: camvid\nlabel_mapping: {11: 9}")
    assert sets.coding.label_mapping == {11: 9}


def test_a_missing_part_of_a_layout_is_named(camvid: Path) -> None:
    (camvid / "images/val").rename(camvid / "images/test")
    with pytest.raises(ConfigError, match=r"val\.images: no folder .*images/val; .*images has test, train"):
        _resolve(camvid, "layout: camvid")
    with pytest.raises(ConfigError, match=r"labeled\.images: no folder .*JPEGImages; .* has images, masks"):
        _resolve(camvid, "layout: voc")


# --- ADE20K


def _ade20k(root: Path, values: list[int]) -> Path:
    for index, (split, name) in enumerate((("training", "ADE_train_00000001"), ("validation", "ADE_val_00000001"))):
        write_image(root / f"images/{split}/{name}.jpg", seed=index)
        write_mask(root / f"annotations/{split}/{name}.png", values)
    return root


def test_ade20k_masks_begin_at_one(tmp_path: Path) -> None:
    sets = _resolve(_ade20k(tmp_path, list(range(151))), "layout: ade20k")
    assert (_ids(sets.labeled), _ids(sets.val)) == (["ADE_train_00000001"], ["ADE_val_00000001"])
    mask = read_sample(sets.labeled[0], sets)[1]
    assert mask is not None
    assert mask.ravel()[:151].tolist() == [255, *range(150)]
    assert sets.labels.num_classes == 150
    # objectInfo150.txt: the classes' places, counted from 1.
    official = {1: "wall", 4: "floor", 8: "bed", 13: "person", 21: "car", 77: "boat", 128: "bicycle", 150: "flag"}
    assert {place: sets.labels.names[place - 1] for place in official} == official
    assert len(set(ADE20K.classes or {})) == 150


def test_ade20k_masks_that_were_shifted_before(tmp_path: Path) -> None:
    sets = _resolve(_ade20k(tmp_path, [*range(150), 255]), "layout: ade20k-shifted")
    mask = read_sample(sets.labeled[0], sets)[1]
    assert mask is not None
    assert mask.ravel()[:151].tolist() == [*range(150), 255]
    assert sets.labels.names == tuple(ADE20K.classes or {})


def test_ade20k_with_split_files_of_image_and_mask_paths(tmp_path: Path) -> None:
    root = _ade20k(tmp_path, [1, 150])
    line = "images/training/ADE_train_00000001.jpg annotations/training/ADE_train_00000001.png\n"
    (root / "labeled.txt").write_text(line)
    assert _ids(_resolve(root, "layout: ade20k\nlabeled: {ids: labeled.txt}").labeled) == ["ADE_train_00000001"]


# --- COCO


@pytest.mark.parametrize("folders", [("masks", "masks"), ("masks/train2017", "masks/val2017")])
def test_coco_objects_and_background(tmp_path: Path, folders: tuple[str, str]) -> None:
    for index, (split, folder) in enumerate(zip(("train2017", "val2017"), folders, strict=True)):
        write_image(tmp_path / f"{split}/00000000000{index}.jpg", seed=index)
        write_mask(tmp_path / f"{folder}/00000000000{index}.png", [0, 1, 80, 255])
    write_image(tmp_path / "train2017/000000000007.jpg", seed=7)
    sets = _resolve(tmp_path, "layout: coco")
    assert (_ids(sets.labeled), _ids(sets.unlabeled), _ids(sets.val)) == (
        ["000000000000"], ["000000000007"], ["000000000001"],
    )  # fmt: skip
    assert sets.labels.num_classes == 81
    names = sets.labels.names
    assert (names[0], names[1], names[16], names[80]) == ("background", "person", "cat", "toothbrush")
    assert np.unique(read_sample(sets.val[0], sets)[1]).tolist() == [0, 1, 80, 255]
    (tmp_path / "few.txt").write_text(f"train2017/000000000000.jpg {folders[0]}/000000000000.png\n")
    assert _ids(_resolve(tmp_path, "layout: coco\nlabeled: {ids: few.txt}").labeled) == ["000000000000"]


def test_coco_stuff_values_are_category_ids_less_one(tmp_path: Path) -> None:
    for index, split in enumerate(("train2017", "val2017")):
        write_image(tmp_path / f"{split}/{index}.jpg", seed=index, height=64)
        write_mask(tmp_path / f"stuffthingmaps/{split}/{index}.png", [*range(182), 255], height=64)
    sets = _resolve(tmp_path, "layout: coco-stuff")
    mask = read_sample(sets.labeled[0], sets)[1]
    assert mask is not None
    by_value = mask.ravel()[:183].tolist()
    # labels.txt of COCO-Stuff: category ids.
    official = {
        1: "person", 11: "fire hydrant", 13: "stop sign", 25: "giraffe", 27: "backpack", 44: "bottle", 46: "wine glass",
        65: "bed", 67: "dining table", 70: "toilet", 72: "tv", 82: "refrigerator", 84: "book", 90: "toothbrush",
        92: "banner", 105: "clothes", 148: "river", 157: "sky-other", 169: "tree", 182: "wood",
    }  # fmt: skip
    assert {one: sets.labels.names[by_value[one - 1]] for one in official} == official
    assert [value + 1 for value, class_id in enumerate(by_value[:182]) if class_id == 255] == [
        12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91,
    ]  # fmt: skip
    assert by_value[182] == 255
    assert sorted(set(by_value) - {255}) == list(range(171))


def test_a_spec_may_name_every_layout() -> None:
    assert get_args(DataSpec.model_fields["layout"].annotation) == tuple(LAYOUTS)


def test_class_lists_and_palettes_are_the_published_ones() -> None:
    assert [len(layout.classes or {}) for layout in (CITYSCAPES, COCO, COCO_STUFF)] == [19, 81, 171]
    assert (CITYSCAPES.classes or {})["bicycle"] == (119, 11, 32)
    assert (CITYSCAPES.classes or {})["sidewalk"] == (244, 35, 232)
    assert list(CAMVID.classes or {}) == [
        "sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car", "pedestrian", "bicyclist",
    ]  # fmt: skip
