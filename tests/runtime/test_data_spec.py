"""Data specs with plain folders: what they resolve to, and every mistake in one line."""

import re
from fractions import Fraction
from pathlib import Path

import pytest
from data_helpers import write_image, write_mask, write_pairs, write_spec

from segkc_deploy.data.pools import draw_fraction
from segkc_deploy.data.samples import ImageSets, Sample
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import ConfigError, DataError, UserError

TRAIN = [f"t{index:02d}" for index in range(16)]
VAL = ["v0", "v1"]

BASE = """
classes: [road, sky, tree]
labeled: {images: images/train, masks: masks/train}
val: {images: images/val, masks: masks/val}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_pairs(tmp_path, "train", TRAIN, [0, 1, 2])
    write_pairs(tmp_path, "val", VAL, [0, 1, 2], seed=100)
    return tmp_path


def _resolve(root: Path, text: str, allow_missing_masks: bool = False) -> ImageSets:
    return load_data_spec(write_spec(root, text)).resolve(allow_missing_masks=allow_missing_masks)


def _ids(samples: tuple[Sample, ...]) -> list[str]:
    return [sample.id for sample in samples]


def _message(root: Path, text: str, kind: type[UserError] = ConfigError) -> str:
    with pytest.raises(kind) as caught:
        _resolve(root, text)
    assert type(caught.value) is kind
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_folders_are_paired_by_stem(root: Path) -> None:
    sets = _resolve(root, BASE)
    assert _ids(sets.labeled) == TRAIN
    assert _ids(sets.val) == VAL
    assert sets.unlabeled == ()
    assert sets.labels.names == ("road", "sky", "tree")
    assert sets.labeled[3] == Sample("t03", root / "images/train/t03.png", root / "masks/train/t03.png")


def test_images_without_a_mask_are_not_labeled_but_used(root: Path) -> None:
    (root / "masks/train/t05.png").unlink()
    sets = _resolve(root, BASE)
    assert _ids(sets.labeled) == [name for name in TRAIN if name != "t05"]
    assert sets.unlabeled == (Sample("t05", root / "images/train/t05.png"),)


def test_nested_folders_are_paired_by_relative_path(tmp_path: Path) -> None:
    write_image(tmp_path / "images/a/x.JPG")
    write_image(tmp_path / "images/b/x.v1.jpg")
    write_image(tmp_path / "images/.thumbs/x.jpg")
    write_mask(tmp_path / "masks/a/x.png", [0])
    write_mask(tmp_path / "masks/b/x.v1.png", [0])
    sets = _resolve(tmp_path, "classes: [a, b]\nlabeled: {images: images, masks: masks}")
    assert _ids(sets.labeled) == ["a/x", "b/x.v1"]
    assert sets.labeled[1].mask == tmp_path / "masks/b/x.v1.png"


@pytest.mark.parametrize(
    "lines",
    [
        "t03\nt01\n",
        "# chosen by hand\n\nt03.png\nt01.jpg  # another suffix\n",
        "images/train/t03.png\n/images/train/t01.png\n",
        "images/train/t03.png masks/train/t03.png\nimages/train/t01.png masks/train/t01.png\n",
        "\ufefft03\r\nt01\r\nt03\r\n",
    ],
)
def test_a_list_may_hold_ids_files_or_pairs(root: Path, lines: str) -> None:
    (root / "few.txt").write_text(lines, encoding="utf-8")
    sets = _resolve(root, BASE.replace("masks/train}", "masks/train, ids: few.txt}"))
    assert _ids(sets.labeled) == ["t03", "t01"]
    assert [sample.mask for sample in sets.labeled] == [root / f"masks/train/{name}.png" for name in ("t03", "t01")]
    assert _ids(sets.unlabeled) == [name for name in TRAIN if name not in {"t01", "t03"}]
    assert all(sample.mask is None for sample in sets.unlabeled)


@pytest.mark.parametrize("name", ["shot #1", "#1", "a.jpg", " b ", "c\\d", "e\u2028f"])
@pytest.mark.parametrize("line", ["{0}", "images/{0}.png", "images/{0}.png\tmasks/{0}.png"], ids=["id", "path", "pair"])
def test_a_line_is_tried_as_a_whole_before_comments_and_suffixes_are_cut(tmp_path: Path, name: str, line: str) -> None:
    for one in (name, "shot", "a"):
        write_image(tmp_path / f"images/{one}.png")
        write_mask(tmp_path / f"masks/{one}.png", [0])
    (tmp_path / "few.txt").write_text(f"# comment\n\n{line.format(name)}\n", encoding="utf-8")
    sets = _resolve(tmp_path, "classes: [a, b]\nlabeled: {images: images, masks: masks, ids: few.txt}")
    assert sets.labeled == (Sample(name, tmp_path / f"images/{name}.png", tmp_path / f"masks/{name}.png"),)
    if line != "{0}":
        sets = _resolve(tmp_path, "classes: [a, b]\nlabeled: {ids: few.txt}", allow_missing_masks=True)
        assert [sample.image for sample in sets.labeled] == [tmp_path / f"images/{name}.png"]


@pytest.mark.parametrize(
    "lines",
    [
        "t03 #1\nt01\t# first\n#t00\n  # t02\n",
        "images/train/t03.png\tmasks/train/t03.png # drawn twice\nimages/train/t01.png masks/train/t01.png #1\n",
        "images\\train\\t03.png\tmasks\\train\\t03.png\r\nt01 # " + "long " * 99 + ".png\n",
    ],
)
def test_comments_of_a_list_are_skipped(root: Path, lines: str) -> None:
    (root / "few.txt").write_text(lines, encoding="utf-8")
    sets = _resolve(root, BASE.replace("masks/train}", "masks/train, ids: few.txt}"))
    assert _ids(sets.labeled) == ["t03", "t01"]
    assert [sample.mask for sample in sets.labeled] == [root / f"masks/train/{name}.png" for name in ("t03", "t01")]


def test_a_list_with_windows_line_ends_names_the_same_images(tmp_path: Path) -> None:
    for name in ("shot", "shot #1"):
        write_image(tmp_path / f"images/{name}.png")
        write_mask(tmp_path / f"masks/{name}.png", [0])
    (tmp_path / "few.txt").write_bytes(b"shot #1\r\n")
    sets = _resolve(tmp_path, "classes: [a, b]\nlabeled: {images: images, masks: masks, ids: few.txt}")
    assert _ids(sets.labeled) == ["shot #1"]


def test_a_mask_that_is_not_there_yet_does_not_turn_a_pair_into_another_image(tmp_path: Path) -> None:
    for name in ("shot", "shot #1"):
        write_image(tmp_path / f"images/{name}.png")
    (tmp_path / "few.txt").write_text("images/shot #1.png\tmasks/shot #1.png\n")
    sets = _resolve(tmp_path, "classes: [a, b]\nlabeled: {ids: few.txt}", allow_missing_masks=True)
    assert sets.labeled == (Sample("images/shot #1", tmp_path / "images/shot #1.png"),)


def test_a_list_of_pairs_needs_no_folders(root: Path) -> None:
    (root / "few.txt").write_text("images/train/t03.png masks/train/t04.png\n")
    sets = _resolve(root, "classes: [a, b, c]\nlabeled: {ids: few.txt}")
    assert sets.labeled == (Sample("images/train/t03", root / "images/train/t03.png", root / "masks/train/t04.png"),)


def test_listed_images_that_differ_in_their_suffix_are_all_taken(tmp_path: Path) -> None:
    """Each with its own mask; one that is listed twice is taken once."""
    names = ["a.png", "a.jpg", "a.bmp"]
    for seed, name in enumerate(names):
        write_image(tmp_path / "x" / name, seed=seed)
        write_mask(tmp_path / "masks" / f"{seed}.png", [0])
    lines = [f"x/{name}\tmasks/{seed}.png" for seed, name in enumerate(names)]
    (tmp_path / "few.txt").write_text("\n".join([*lines, lines[1]]))
    labeled = _resolve(tmp_path, "classes: [a, b]\nlabeled: {ids: few.txt}").labeled
    assert [(sample.image.name, sample.mask.name if sample.mask else None) for sample in labeled] == [
        (name, f"{seed}.png") for seed, name in enumerate(names)
    ]
    assert _ids(labeled) == ["x/a", "x/a.jpg", "x/a.bmp"]


def test_a_list_is_searched_beside_the_spec_and_below_the_root(root: Path, tmp_path: Path) -> None:
    (root / "lists").mkdir()
    (root / "lists/few.txt").write_text("t00\n")
    text = BASE.replace("masks/train}", "masks/train, ids: lists/few.txt}") + f"root: {root}\n"
    elsewhere = tmp_path / "specs"
    elsewhere.mkdir()
    assert _ids(_resolve(elsewhere, text).labeled) == ["t00"]
    (elsewhere / "lists").mkdir()
    (elsewhere / "lists/few.txt").write_text("t01\n")
    assert _ids(_resolve(elsewhere, text).labeled) == ["t01"]


def test_root_is_relative_to_the_spec_and_may_hold_variables(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = tmp_path / "specs"
    specs.mkdir()
    assert len(_resolve(specs, f"root: ..\n{BASE}").labeled) == 16
    monkeypatch.setenv("DATA_HOME", str(root))
    monkeypatch.setenv("HOME", str(root))
    assert len(_resolve(specs, f"root: $DATA_HOME\n{BASE}").labeled) == 16
    assert len(_resolve(specs, f"root: '~/'\n{BASE}").labeled) == 16
    monkeypatch.delenv("DATA_HOME")
    message = _message(specs, f"root: ${{DATA_HOME}}/x\n{BASE}")
    assert message.endswith("data.yaml: root: the environment variable DATA_HOME is not set")


def test_unlabeled_folders_lose_what_is_labeled_or_validates_links_included(root: Path) -> None:
    (root / "few.txt").write_text("t00\nt01\n")
    extra = root / "extra"
    write_image(extra / "new.png", seed=500)
    (extra / "linked_labeled.png").symlink_to(root / "images/train/t00.png")
    (extra / "linked_val.png").symlink_to(root / "images/val/v0.png")
    (extra / "linked_twice.png").symlink_to(root / "images/train/t05.png")
    text = BASE.replace("masks/train}", "masks/train, ids: few.txt}")
    sets = _resolve(root, text + "unlabeled: {images: [images/train, extra, images/val, extra]}\n")
    assert _ids(sets.unlabeled) == [*TRAIN[2:], "new"]
    assert _ids(_resolve(root, text + "unlabeled: {images: extra}\n").unlabeled) == ["linked_twice", "new"]
    assert _resolve(root, text + "unlabeled: {images: []}\n").unlabeled == ()


def test_unlabeled_images_may_be_listed(root: Path) -> None:
    (root / "few.txt").write_text("t00\nt01\n")
    (root / "rest.txt").write_text("t01\nt02\nt03\n")
    text = BASE.replace("masks/train}", "masks/train, ids: few.txt}")
    assert _ids(_resolve(root, text + "unlabeled: {ids: rest.txt}\n").unlabeled) == ["t02", "t03"]
    listed = "unlabeled: {images: images/train, ids: rest.txt}\n"
    assert _ids(_resolve(root, text + listed).unlabeled) == ["t02", "t03"]


def test_a_folder_linked_into_itself_ends(root: Path) -> None:
    (root / "images/train/again").symlink_to(root / "images/train")
    assert _ids(_resolve(root, BASE).labeled) == TRAIN


def test_fractions_are_nested_seeded_and_complementary(root: Path) -> None:
    def draw(fraction: str, seed: int = 0) -> ImageSets:
        return _resolve(root, BASE.replace("masks/train}", f"masks/train, fraction: {fraction}, seed: {seed}}}"))

    drawn = {fraction: set(_ids(draw(fraction).labeled)) for fraction in ("1/16", "1/8", "0.25", "1/2", "1")}
    assert [len(ids) for ids in drawn.values()] == [1, 2, 4, 8, 16]
    assert drawn["1/16"] < drawn["1/8"] < drawn["0.25"] < drawn["1/2"] < drawn["1"]
    assert set(_ids(draw("1/2").unlabeled)) == set(TRAIN) - drawn["1/2"]
    assert set(_ids(draw("1/2", seed=1).labeled)) != drawn["1/2"]


def test_a_draw_is_the_same_on_every_machine_and_rounds_up() -> None:
    samples = [Sample(name, Path(name)) for name in TRAIN]
    # sha256sum of "0:t00" … "0:t15", sorted: the first two.
    assert _ids(draw_fraction(samples, Fraction(1, 8), seed=0)) == ["t01", "t05"]
    # The sizes of the published VOC splits of 10582 images.
    many = [Sample(str(index), Path(str(index))) for index in range(10582)]
    assert [len(draw_fraction(many, Fraction(1, n), 0)) for n in (16, 8, 4, 2)] == [662, 1323, 2646, 5291]


def test_class_colors_become_the_palette(root: Path) -> None:
    sets = _resolve(root, BASE.replace("[road, sky, tree]", "{road: [1, 2, 3], sky: [4, 5, 6], tree: [7, 8, 255]}"))
    assert sets.labels.names == ("road", "sky", "tree")
    assert sets.labels.palette == ((1, 2, 3), (4, 5, 6), (7, 8, 255))


def test_label_mapping_and_ignore_index(root: Path) -> None:
    sets = _resolve(root, BASE + "ignore_index: 254\nlabel_mapping: {11: 254, 255: 1}\n")
    assert sets.labels.ignore_index == 254
    assert sets.coding.label_mapping == {11: 254, 255: 1}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("classes:", "clases:"), "unknown key 'clases'; did you mean 'classes'?"),
        (("images: images/val", "image: images/val"), "val: unknown key 'image'; did you mean 'images'?"),
        (("classes:", "layout: cityscape\nclasses:"), "did you mean 'cityscapes'?"),
        (("[road, sky, tree]", "[road]"), "classes: should name 2 to 255 classes, but names 1"),
        (("[road, sky, tree]", "[road, sky, road]"), "classes: the class 'road' is named twice"),
        (("[road, sky, tree]", "{road: [1, 2, 300], sky: [0, 0, 0]}"), "classes.road[2]: should be less than or equal"),
        (("classes: [road, sky, tree]", ""), "classes is missing; list the names in the order of their ids"),
        (("masks/train}", "masks/train, fraction: half}"), "should be a fraction such as 1/8 or 0.125, but is 'half'"),
        (("masks/train}", "masks/train, fraction: 1/0}"), "should be a fraction such as 1/8 or 0.125, but is '1/0'"),
        (("masks/train}", "masks/train, fraction: 1.5}"), "should be above 0 and at most 1, but is 1.5"),
        (("masks/train}", "masks/train, fraction: 1, ids: a.txt}"), "ids and fraction are two ways of choosing"),
        (("classes:", "ignore_index: 2\nclasses:"), "ignore_index 2 is also the id of class 'tree'; use 255"),
        (
            ("classes:", "label_mapping: {11: 3}\nclasses:"),
            "label_mapping: 11 is mapped to 3, which is neither a class",
        ),
        (
            ("classes:", "label_mapping: {11: void}\nclasses:"),
            "label_mapping[11]: should be a valid integer, but is 'void'",
        ),
        (("classes:", "root: nowhere\nclasses:"), "root: no folder "),
        (("images/train", "images/trian"), "images has train, val"),
        (("masks: masks/val", "masks: masks/test"), "masks has train, val"),
        ((", masks: masks/train", ""), "labeled.masks is missing; name the folder"),
        (("masks/train}", "masks/train, ids: no.txt}"), "labeled.ids: no file "),
    ],
)
def test_a_mistake_in_the_spec_is_one_line(root: Path, change: tuple[str, str], expected: str) -> None:
    assert change[0] in BASE
    message = _message(root, BASE.replace(*change))
    assert message.startswith(f"{root}/data.yaml: ")
    assert expected in message


def test_a_folder_is_no_spec_and_leads_to_one(tmp_path: Path) -> None:
    folder = tmp_path / "my photos"
    folder.mkdir()
    with pytest.raises(ConfigError) as refused:
        load_data_spec(folder)
    assert str(refused.value) == f"{folder}: a folder, no data spec; `segkc-deploy init '{folder}'` writes one"
    write_spec(folder, "classes: [a, b]\n")
    with pytest.raises(ConfigError) as refused:
        load_data_spec(folder)
    assert str(refused.value) == f"{folder}: a folder, no data spec; give {folder / 'data.yaml'}"


def test_a_spec_without_images_or_with_an_empty_folder_is_refused(root: Path) -> None:
    assert "names no images" in _message(root, "classes: [a, b]")
    (root / "empty").mkdir()
    assert "unlabeled.images: no images in" in _message(root, BASE + "unlabeled: {images: empty}")
    assert "labeled.images: no images in" in _message(root, BASE.replace("images/train", "empty"))


def test_listed_ids_without_an_image_are_counted_and_named(root: Path) -> None:
    (root / "few.txt").write_text("t00\n" + "".join(f"x{index}\n" for index in range(7)))
    message = _message(root, BASE.replace("masks/train}", "masks/train, ids: few.txt}"), DataError)
    assert message == f"{root / 'few.txt'}: 7 of 8 ids have no image: x0, x1, x2, x3, x4, …"
    (root / "few.txt").write_text("# nothing\n")
    assert "the list is empty" in _message(root, BASE.replace("masks/train}", "masks/train, ids: few.txt}"), DataError)


def test_missing_masks_are_counted_and_the_wanted_file_named(root: Path) -> None:
    (root / "masks/val/v1.png").unlink()
    message = _message(root, BASE, DataError)
    assert message.endswith(f"val: 1 of 2 images have no mask: v1; {root}/masks/val/v1.png is wanted")
    (root / "masks/val/v1.jpg").write_bytes(b"")
    assert f"{root}/masks/val/v1.jpg is no mask file; save masks without loss" in _message(root, BASE, DataError)
    sets = load_data_spec(root / "data.yaml").resolve(allow_missing_masks=True)
    assert [sample.mask is None for sample in sets.val] == [False, True]


def test_masks_named_otherwise_are_an_error_not_an_empty_set(root: Path) -> None:
    for path in (root / "masks/train").iterdir():
        path.rename(path.with_stem(path.stem + "_mask"))
    message = _message(root, BASE, DataError)
    assert re.search(r"labeled: 16 of 16 images have no mask: t00, .*; .*masks/train/t00\.png is wanted$", message)


def test_two_images_with_one_id_are_an_error(root: Path) -> None:
    write_image(root / "images/train/t00.jpg")
    assert "has the same id 't00'; keep one of the two" in _message(root, BASE, DataError)
