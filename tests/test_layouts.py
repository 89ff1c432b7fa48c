"""The known layouts on trees built as the data sets ship: what is found, and what the masks mean."""

from pathlib import Path

import numpy as np
import pytest
from data_helpers import write_image, write_mask, write_pairs, write_spec

from segkc_deploy.data.layouts import CAMVID, CITYSCAPES, VOC
from segkc_deploy.data.masks import read_mask, read_sample
from segkc_deploy.data.samples import ImageSets, Sample
from segkc_deploy.data.spec import load_data_spec
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
    assert sets.label_mapping == {}
    assert np.unique(read_mask(sets.val[0].mask or Path(), sets.labels, {})).tolist() == [0, 1, 20, 255]


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


def test_voc_without_its_list_names_the_way_out(voc: Path) -> None:
    (voc / "ImageSets/Segmentation/val.txt").unlink()
    with pytest.raises(ConfigError, match=r"val: no list .*val\.txt; name one as `val: \{ids: FILE\}`"):
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
    assert sets.label_mapping == {}
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
    assert sets.label_mapping == {11: 200, 10: 8}
    assert _ids(sets.val) == ["d"]
    named = _resolve(
        camvid,
        "layout: camvid\nclasses: [a, b, c, d, e, f, g, h, i, j, k]\nval: {images: images/test, masks: masks/test}",
    )
    assert named.labels.names[0] == "a"
    assert named.labels.palette == tuple((CAMVID.classes or {}).values())


def test_a_missing_part_of_a_layout_is_named(camvid: Path) -> None:
    (camvid / "images/val").rename(camvid / "images/test")
    with pytest.raises(ConfigError, match=r"val\.images: no folder .*images/val; .*images has test, train"):
        _resolve(camvid, "layout: camvid")
    with pytest.raises(ConfigError, match=r"labeled\.images: no folder .*JPEGImages; .* has images, masks"):
        _resolve(camvid, "layout: voc")


def test_class_lists_and_palettes_are_the_published_ones() -> None:
    assert len(CITYSCAPES.classes or {}) == 19
    assert (CITYSCAPES.classes or {})["bicycle"] == (119, 11, 32)
    assert (CITYSCAPES.classes or {})["sidewalk"] == (244, 35, 232)
    assert list(CAMVID.classes or {}) == [
        "sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car", "pedestrian", "bicyclist",
    ]  # fmt: skip
