"""The published lists that ship, and data specs that use them on trees as the data sets ship."""

import gzip
import itertools
from collections import Counter
from importlib import resources
from pathlib import Path

import pytest
from command_line import CommandLine
from data_helpers import write_image, write_mask, write_spec

from segkc_deploy.data.layouts import LAYOUTS
from segkc_deploy.data.partitions import partitions, split_ids
from segkc_deploy.data.samples import ImageSets, Sample
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import ConfigError, DataError

COUNTS = {
    "voc": {
        "92": 92, "183": 183, "366": 366, "732": 732, "1464": 1464,
        "blended-1/16": 662, "blended-1/8": 1323, "blended-1/4": 2646, "blended-1/2": 5291,
    },
    "cityscapes": {"1/30": 100, "1/16": 186, "1/8": 372, "1/4": 744, "1/2": 1488},
    "camvid": {"1/16": 23, "1/8": 46, "1/4": 92, "1/2": 184},
}  # fmt: skip

# Images of each city, as https://www.cityscapes-dataset.com counts them.
CITIES = {
    "train": {
        "aachen": 174, "bochum": 96, "bremen": 316, "cologne": 154, "darmstadt": 85, "dusseldorf": 221, "erfurt": 109,
        "hamburg": 248, "hanover": 196, "jena": 119, "krefeld": 99, "monchengladbach": 94, "strasbourg": 365,
        "stuttgart": 196, "tubingen": 144, "ulm": 95, "weimar": 142, "zurich": 122,
    },
    "val": {"frankfurt": 267, "lindau": 59, "munster": 174},
}  # fmt: skip

# Which lists hold which others. The random draws of the original VOC protocol and Cityscapes' 1/30 hold none.
CHAINS = [
    ("voc", ["blended-1/16", "blended-1/8", "blended-1/4", "blended-1/2"]),
    ("voc", ["92", "1464"]),
    ("voc", ["183", "1464"]),
    ("voc", ["366", "1464"]),
    ("voc", ["732", "1464"]),
    ("cityscapes", ["1/16", "1/8", "1/4", "1/2"]),
    ("camvid", ["1/16", "1/8", "1/4", "1/2"]),
]


@pytest.mark.parametrize("layout", COUNTS)
def test_counts_are_the_published_ones_and_no_id_comes_twice(layout: str) -> None:
    lists = partitions(layout)
    assert {name: len(ids) for name, ids in lists.items()} == COUNTS[layout]
    assert list(lists) == list(COUNTS[layout])
    assert all(len(set(ids)) == len(ids) for ids in lists.values())


@pytest.mark.parametrize(("layout", "train", "val"), [("voc", 10582, 1449), ("cityscapes", 2975, 500)])
def test_labeled_images_are_training_images_and_no_validation_images(layout: str, train: int, val: int) -> None:
    training, validation = split_ids(layout, "train") or (), split_ids(layout, "val") or ()
    assert (len(set(training)), len(training), len(set(validation)), len(validation)) == (train, train, val, val)
    assert not set(training) & set(validation)
    assert all(set(ids) <= set(training) for ids in partitions(layout).values())


def test_lists_are_nested_where_published_ones_are() -> None:
    nested = {(layout, few, more) for layout, chain in CHAINS for few, more in itertools.combinations(chain, 2)}
    for layout, lists in ((layout, partitions(layout)) for layout in COUNTS):
        for few, more in itertools.permutations(lists, 2):
            assert (set(lists[few]) <= set(lists[more])) == ((layout, few, more) in nested), (layout, few, more)


@pytest.mark.parametrize("split", ["train", "val"])
def test_cityscapes_has_every_city_in_full(split: str) -> None:
    ids = split_ids("cityscapes", split) or ()  # type: ignore[arg-type]
    assert Counter(name.split("/")[0] for name in ids) == CITIES[split]
    assert all(name.split("/")[1].startswith(name.split("/")[0] + "_") for name in ids)


def test_the_files_are_the_same_whenever_they_are_made() -> None:
    files = [path for path in Path(str(resources.files("segkc_deploy.data") / "lists")).rglob("*") if path.is_file()]
    assert len(files) == sum(map(len, COUNTS.values())) + 4
    for file in files:
        header = file.read_bytes()[:8]
        assert header == b"\x1f\x8b\x08\x00\x00\x00\x00\x00"  # deflate, no name, no time
        text = gzip.decompress(file.read_bytes()).decode("ascii")
        assert text == "\n".join(text.split()) + "\n"


def test_every_layout_with_lists_of_its_own_has_published_ones() -> None:
    """`resolve` falls back on them; a new layout without would silently use every image."""
    for name, layout in LAYOUTS.items():
        for split, published in ((layout.train, split_ids(name, "train")), (layout.val, split_ids(name, "val"))):
            assert published or not split.lists


# --- Data specs


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def _resolve(root: Path, text: str) -> ImageSets:
    return load_data_spec(write_spec(root, text)).resolve()


def _ids(samples: tuple[Sample, ...]) -> set[str]:
    return {sample.id for sample in samples}


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pascal VOC with SBD but without any list; no image is read, so the files are empty."""
    root = tmp_path_factory.mktemp("voc")
    for folder, ending in (("JPEGImages", "jpg"), ("SegmentationClassAug", "png")):
        for name in (*(split_ids("voc", "train") or ()), *(split_ids("voc", "val") or ()), "2012_999999"):
            _touch(root / f"{folder}/{name}.{ending}")
    return root


@pytest.mark.parametrize(("text", "partition"), [("366", "366"), ('"blended-1/8"', "blended-1/8")])
def test_voc_needs_no_list(voc: Path, text: str, partition: str) -> None:
    sets = _resolve(voc, f"layout: voc\nlabeled: {{partition: {text}}}")
    labeled = COUNTS["voc"][partition]
    assert (len(sets.labeled), len(sets.unlabeled), len(sets.val)) == (labeled, 10582 - labeled, 1449)
    assert not _ids(sets.labeled) & _ids(sets.unlabeled)
    assert _ids(sets.labeled) == set(partitions("voc")[partition])
    assert sets.labeled[0].mask == voc / f"SegmentationClassAug/{sets.labeled[0].id}.png"
    assert "2012_999999" not in _ids(sets.labeled + sets.unlabeled + sets.val)


def test_voc_without_a_partition_falls_back_on_the_published_lists(voc: Path) -> None:
    sets = _resolve(voc, "layout: voc\nlabeled: {fraction: 1/2}")
    assert (len(sets.labeled), len(sets.unlabeled), len(sets.val)) == (5291, 5291, 1449)


def test_cityscapes_partitions_leave_other_images_out(tmp_path: Path) -> None:
    names = {split: split_ids("cityscapes", split) or () for split in ("train", "val")}  # type: ignore[arg-type]
    names["train_extra"] = ("bonn/bonn_000003_000019",)
    for split, ids in names.items():
        for name in ids:
            _touch(tmp_path / f"leftImg8bit/{split}/{name}_leftImg8bit.png")
            _touch(tmp_path / f"gtFine/{split}/{name}_gtFine_labelTrainIds.png")
    sets = _resolve(tmp_path, "layout: cityscapes\nlabeled: {partition: 1/16}")
    assert (len(sets.labeled), len(sets.unlabeled), len(sets.val)) == (186, 2975 - 186, 500)
    first = sets.labeled[0]
    assert first.id == "jena/jena_000078_000019"
    assert first.mask == tmp_path / f"gtFine/train/{first.id}_gtFine_labelTrainIds.png"
    more = _resolve(
        tmp_path,
        "layout: cityscapes\nlabeled: {partition: 1/16}\nunlabeled: {images: leftImg8bit/train_extra}",
    )
    assert _ids(more.unlabeled) == {"bonn/bonn_000003_000019"}


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    for index, name in enumerate((*partitions("camvid")["1/16"], "extra0", "extra1")):
        write_image(tmp_path / f"images/train/{name}.jpg", seed=index)
        write_mask(tmp_path / f"masks/train/{name}.png", list(range(12)))
    write_image(tmp_path / "images/val/v.jpg", seed=99)
    write_mask(tmp_path / "masks/val/v.png", list(range(12)))
    return tmp_path


def test_camvid_and_check(camvid: Path, command: CommandLine) -> None:
    spec = write_spec(camvid, "layout: camvid\nlabeled: {partition: 1/16}")
    sets = load_data_spec(spec).resolve()
    assert (len(sets.labeled), _ids(sets.unlabeled), _ids(sets.val)) == (23, {"extra0", "extra1"}, {"v"})
    finished = command("check", "--data", spec)
    assert finished.code == 0, finished
    assert "23" in finished.out


def test_images_that_are_not_on_disk_are_named_in_one_line(camvid: Path, voc: Path, command: CommandLine) -> None:
    spec = write_spec(camvid, "layout: camvid\nlabeled: {partition: 1/16}")
    lost = partitions("camvid")["1/16"][3]
    (camvid / f"images/train/{lost}.jpg").unlink()
    line = command.refused("check", "--data", spec)
    assert line.endswith(f"data.yaml: labeled.partition 1/16 for {camvid}: 1 of 23 ids have no image: {lost}")
    image = voc / f"JPEGImages/{(split_ids('voc', 'train') or ())[7]}.jpg"
    image.rename(voc / "away.jpg")
    try:
        with pytest.raises(
            DataError, match=rf"the published list for {voc}: 1 of 10582 ids have no image: {image.stem}"
        ):
            _resolve(voc, "layout: voc\nlabeled: {partition: 92}")
    finally:
        (voc / "away.jpg").rename(image)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "layout: voc\nlabeled: {partition: 1/8}",
            "labeled.partition: layout voc has no partition '1/8'; it has 92, 183, 366, 732, 1464, blended-1/16,"
            " blended-1/8, blended-1/4, blended-1/2",
        ),
        (
            "layout: cityscapes\nlabeled: {partition: 372}",
            "layout cityscapes has no partition '372'; it has 1/30, 1/16, 1/8, 1/4, 1/2",
        ),
        (
            "classes: [a, b]\nlabeled: {partition: 1/8}",
            "layout folders has no partition '1/8'; give a list as `ids`, or a `fraction`",
        ),
        (
            "layout: voc\nlabeled: {partition: 92, fraction: 1/8}",
            "labeled: partition and fraction are two ways of choosing; keep one",
        ),
        (
            "layout: voc\nlabeled: {partition: 92, ids: a.txt}",
            "labeled: ids and partition are two ways of choosing; keep one",
        ),
        ("layout: voc\nlabeled: {partition: [92]}", "labeled.partition: should be a valid string"),
    ],
)
def test_a_wrong_partition_is_one_line(tmp_path: Path, command: CommandLine, text: str, expected: str) -> None:
    spec = write_spec(tmp_path, text)
    with pytest.raises(ConfigError):
        load_data_spec(spec)
    assert expected in command.refused("check", "--data", spec)
