"""`init` and `convert`: from a tool's export to a data spec and PNG masks."""

import inspect
import json
import shlex
import sys
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from annotation_writers import HEIGHT, IMAGES, WIDTH, WRITERS, expected_mask_of, write_coco, write_yolo
from data_helpers import write_image, write_mask, write_spec
from PIL import Image

from segkc_deploy.data.check import check
from segkc_deploy.data.convert import unpack
from segkc_deploy.data.guess import guess_spec
from segkc_deploy.data.masks import read_mask
from segkc_deploy.data.spec import data_spec, load_data_spec
from segkc_deploy.errors import ConfigError, DataError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' decode


def _export(root: Path, write=write_coco) -> None:
    for index, name in enumerate(IMAGES):
        write_image(root / "images" / f"{name}.png", seed=index, height=64, width=80)
        Image.open(root / "images" / f"{name}.png").crop((0, 0, WIDTH, HEIGHT)).save(root / "images" / f"{name}.png")
    write(root)


@pytest.mark.parametrize("write", WRITERS)
def test_init_and_convert_of_every_tools_export(command, tmp_path, write):
    _export(tmp_path / "export", write)
    finished = command("init", tmp_path / "export")
    assert finished.code == 0
    assert "classes: " in finished.out
    assert "val: no folder of its own, so 1 of 3 labeled images" in finished.out
    sets = load_data_spec(tmp_path / "export/data.yaml").resolve()
    assert sets.labels.names == ("background", *(("tree", "road") if write is write_yolo else ("road", "tree")))
    assert (len(sets.labeled), len(sets.val)) == (2, 1)
    assert check(sets, workers=1).errors == 0

    finished = command("convert", tmp_path / "export/data.yaml", "--out", tmp_path / "out")
    assert finished.code == 0
    converted = load_data_spec(tmp_path / "out/data.yaml").resolve()
    assert converted.labels == sets.labels
    swapped = np.array([0, 2, 1] if write is write_yolo else [0, 1, 2], np.uint8)
    for sample in (*converted.labeled, *converted.val):
        assert sample.mask.suffix == ".png"
        np.testing.assert_array_equal(read_mask(sample, converted.coding), swapped[expected_mask_of(IMAGES[sample.id])])


@pytest.mark.parametrize(
    "names",
    [["shot", *(f"shot #{index}" for index in range(1, 10))], ["shot #1", "shot #2"], ["#1", "#2"], ["a.jpg", "b.jpg"]],
    ids=lambda names: names[0],
)
def test_the_lists_that_are_written_lead_to_the_images_they_were_written_for(command, tmp_path, names):
    for seed, name in enumerate(names):
        write_image(tmp_path / "in/images" / f"{name}.png", seed=seed)
        write_mask(tmp_path / "in/masks" / f"{name}.png", [0, 1])
    assert command("init", tmp_path / "in").code == 0
    command("convert", tmp_path / "in/data.yaml", "--out", tmp_path / "out")
    for spec in (tmp_path / "in/data.yaml", tmp_path / "out/data.yaml"):
        sets = load_data_spec(spec).resolve()
        assert sorted(sample.image.stem for sample in (*sets.labeled, *sets.val)) == sorted(names)
        assert all(sample.mask.stem == sample.image.stem for sample in (*sets.labeled, *sets.val))


def test_masks_beside_their_images_are_converted_and_found_again(command, tmp_path):
    """A spec of lists alone may name them; ids cannot tell `a.jpg` from `a.png`."""
    for seed, name in enumerate(["a", "b", "c"]):
        write_image(tmp_path / "x" / f"{name}.jpg", seed=seed)
        write_mask(tmp_path / "x" / f"{name}.png", [0, 1])
    write_image(tmp_path / "x" / "a.bmp", seed=9)
    write_mask(tmp_path / "other.png", [1, 0])
    pairs = ["x/a.jpg\tx/a.png", "x/b.jpg\tx/b.png", "x/a.bmp\tother.png"]
    for name, lines in (("some", pairs), ("val", ["x/c.jpg\tx/c.png"])):
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
    write_spec(tmp_path, "classes: [a, b]\nlabeled: {ids: some.txt}\nval: {ids: val.txt}\n")
    assert command("convert", tmp_path / "data.yaml", "--out", tmp_path / "out").code == 0
    before, after = (load_data_spec(path / "data.yaml").resolve() for path in (tmp_path, tmp_path / "out"))
    for own, other in zip((*before.labeled, *before.val), (*after.labeled, *after.val), strict=True):
        assert own.image.resolve() == other.image.resolve()
        assert other.mask.resolve().is_relative_to(tmp_path / "out" / "masks")
        np.testing.assert_array_equal(read_mask(own, before.coding), read_mask(other, after.coding))


def test_a_zip_is_unpacked_and_converted(command, tmp_path):
    _export(tmp_path / "export")
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as file:
        for path in sorted((tmp_path / "export").rglob("*")):
            file.write(path, Path("project", path.relative_to(tmp_path / "export")))
    finished = command("convert", tmp_path / "export.zip", "--out", tmp_path / "out")
    assert "3 masks written" in finished.out
    sets = load_data_spec(tmp_path / "out/data.yaml").resolve()
    np.testing.assert_array_equal(read_mask(sets.labeled[0], sets.coding), expected_mask_of(IMAGES["a0"]))


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "a/../../evil.png", "C:\\evil.png"])
def test_names_that_lead_out_of_a_zip_are_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(name, b"x")
    with pytest.raises(DataError, match="leads out of the archive"):
        unpack(tmp_path / "a.zip", tmp_path / "inside")
    assert not list(tmp_path.rglob("evil*"))


def test_folders_with_the_splits_names_and_unlabeled_images(command, tmp_path):
    for split, names in (("train", ["a", "b"]), ("valid", ["c"])):
        for index, name in enumerate(names):
            write_image(tmp_path / split / "images" / f"{name}.jpg", seed=ord(name) + index)
            write_mask(tmp_path / split / "masks" / f"{name}.png", [0, 255])
    write_image(tmp_path / "more" / "d.jpg", seed=9)
    finished = command("init", tmp_path)
    assert "the masks hold 0 and 255; 255 is taken for a class" in finished.out
    sets = load_data_spec(tmp_path / "data.yaml").resolve()
    assert [[sample.id for sample in one] for one in (sets.labeled, sets.val, sets.unlabeled)] == [
        ["a", "b"],
        ["c"],
        ["d"],
    ]
    assert sets.coding.label_mapping == {255: 1}
    assert "exists; choose another --out" in command.refused("init", tmp_path)
    assert command("init", tmp_path, "--overwrite").code == 0


def test_a_known_layout_is_named_by_its_files(command, tmp_path):
    names = {"training": "ADE_train_00000001", "validation": "ADE_val_00000001"}
    for split, name in names.items():
        write_image(tmp_path / "ade/images" / split / f"{name}.jpg")
        write_mask(tmp_path / "ade/annotations" / split / f"{name}.png", [0, 1, 2])
        write_image(tmp_path / "own/images" / split / "a.jpg")
        write_mask(tmp_path / "own/annotations" / split / "a.png", [0, 1])
    assert "layout ade20k" in command("init", tmp_path / "ade").out
    assert len(load_data_spec(tmp_path / "ade/data.yaml").resolve().labeled) == 1
    assert "layout ade20k" not in command("init", tmp_path / "own").out  # 0 is a class there, and 150 others are not
    assert load_data_spec(tmp_path / "own/data.yaml").resolve().labels.num_classes == 2


def test_the_next_command_quotes_the_path(command, tmp_path):
    _export(tmp_path / "my export")
    path = tmp_path / "my export/data.yaml"
    assert command("init", tmp_path / "my export").out.endswith(f"then: segkc-deploy check --data '{path}'\n")


def test_nothing_to_train_on_is_said(command, tmp_path):
    write_image(tmp_path / "images" / "a.jpg")
    assert "no images with masks or annotations of the same names were found" in command.refused("init", tmp_path)
    assert "no folder" in command.refused("init", tmp_path / "missing")
    missing = command.refused("convert", tmp_path / "nothing", "--out", tmp_path / "out")
    assert missing == f"error: {tmp_path / 'nothing'}: no such file or folder"


def test_an_annotation_file_leads_to_its_folder(command, tmp_path):
    _export(tmp_path / "export")
    line = command.refused("convert", tmp_path / "export/instances.json", "--out", tmp_path / "out")
    assert "neither a data spec (.yaml), a folder nor a .zip; give the folder that holds it and the images" in line
    assert line.endswith(f"such as {tmp_path / 'export'}")


@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
def test_the_data_spec_in_a_folder_is_used(command, tmp_path, zipped):
    _export(tmp_path / "export")
    (tmp_path / "export/chosen.txt").write_text("a0\n")
    (tmp_path / "export/data.yaml").write_text(
        "classes: [background, tree, road]\nlabeled: {images: images, masks: instances.json}\n"
        "val: {images: images, masks: instances.json, ids: chosen.txt}\n"
    )
    source, spec = tmp_path / "export", tmp_path / "export/data.yaml"
    if zipped:
        with zipfile.ZipFile(tmp_path / "export.zip", "w") as file:
            for path in sorted((tmp_path / "export").rglob("*")):
                file.write(path, path.relative_to(tmp_path / "export"))
        source, spec = tmp_path / "export.zip", tmp_path / "out/source/data.yaml"
    finished = command("convert", source, "--out", tmp_path / "out")
    assert finished.code == 0, finished.err
    assert finished.out.splitlines()[0] == f"data spec: {spec}"
    sets = load_data_spec(tmp_path / "out/data.yaml").resolve()
    assert sets.labels.names == ("background", "tree", "road")
    assert [sample.id for sample in sets.val] == ["a0"]


@pytest.mark.parametrize(("write", "split"), [(write_coco, "data.yaml"), (write_yolo, "spec.yaml")])
def test_without_a_data_spec_a_missing_validation_set_is_told(command, tmp_path, write, split):
    """Also beside the data.yaml of YOLO, which is no data spec."""
    folder = tmp_path / "my export"
    _export(folder, write)
    if write is write_yolo:
        (folder / "data.yaml").write_text("names: [tree, road]\nnc: 2\ntrain: images\n")
    finished = command("convert", folder, "--out", tmp_path / "out")
    assert finished.code == 0, finished.err
    remark = next(line for line in finished.out.splitlines() if "no image is set aside for validation; " in line)
    assert remark.endswith(f"writes a data spec with a split: then convert {folder / split}")
    assert command(*shlex.split(remark.split("`")[1])[1:]).code == 0
    finished = command("convert", folder / split, "--out", tmp_path / "split")
    assert finished.code == 0, finished.err
    assert "no image is set aside" not in finished.out
    assert len(load_data_spec(tmp_path / "split/data.yaml").resolve().val) == 1


@pytest.mark.parametrize("source", ["data.yaml", "."])
def test_a_data_set_is_not_converted_onto_itself(command, tmp_path, source):
    _export(tmp_path)
    assert command("init", tmp_path).code == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    line = command.refused("convert", tmp_path / source, "--out", tmp_path, "--overwrite")
    assert "holds the data set that is converted; choose another --out" in line
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_mask_that_cannot_be_used_is_named_and_the_rest_is_converted(command, tmp_path):
    _export(tmp_path)
    path = tmp_path / "instances.json"
    text = path.read_text()
    path.write_text(
        text.replace('"category_id": 2', '"category_id": 3', 1).replace(
            '"categories": [', '"categories": [{"id": 3, "name": "car"}, '
        )
    )
    (tmp_path / "data.yaml").write_text(
        "classes: [background, road, tree]\nlabeled: {images: images, masks: instances.json}\n"
    )
    finished = command("convert", tmp_path / "data.yaml", "--out", tmp_path / "out")
    assert finished.code == 2
    assert "the label 'car' is not a class" in finished.err
    assert "1 of 3 masks were left out" in finished.err
    assert len(list((tmp_path / "out").rglob("*.png"))) == 2


@pytest.mark.parametrize(
    ("text", "tool"),
    [
        ("names: [a]\nnc: 1\ntrain: images\n", "Ultralytics YOLO (the keys 'names', 'nc', 'train')"),
        ("dataset_type: CustomDataset\n", "MMSegmentation (the key 'dataset_type')"),
    ],
)
def test_another_tools_file_is_recognized(command, tmp_path, text, tool):
    (tmp_path / "data.yaml").write_text(text)
    message = command.refused("check", "--data", tmp_path / "data.yaml")
    assert f"a file of {tool}, no data spec; `segkc-deploy init FOLDER` writes one" in message


@pytest.mark.parametrize("beside", [False, True], ids=["images-and-masks", "annotations-beside-images"])
def test_init_takes_all_of_nested_folders(command, tmp_path, beside):
    folders = ["x/1", "x/2", "y"]
    for seed, folder in enumerate(folders):
        for name in ("a", "b"):
            image = tmp_path / ("photos" if beside else "images") / folder / f"{name}.png"
            write_image(image, seed=10 * seed + ord(name))
            if beside:
                shape = {"label": "road", "points": [[0, 0], [9, 0], [9, 9]], "shape_type": "polygon"}
                content = {"shapes": [shape], "imagePath": image.name, "imageHeight": 32, "imageWidth": 48}
                image.with_suffix(".json").write_text(json.dumps(content))
            else:
                write_mask(tmp_path / "masks" / folder / f"{name}.png", [0, 1])
    write_image(tmp_path / "more/c.png", seed=99)
    finished = command("init", tmp_path)
    assert "labeled: 6 of 6 images" in finished.out
    assert "not used" not in finished.out
    sets = load_data_spec(tmp_path / "data.yaml").resolve()
    assert len(sets.labeled) + len(sets.val) == 6
    assert [sample.id for sample in sets.unlabeled] == ["c"]
    assert check(sets, workers=1).errors == 0


def test_init_joins_any_number_of_folders(tmp_path):
    for seed in range(150):
        for scan in ("1", "2"):
            write_image(tmp_path / f"images/{seed}/{scan}/a.png", seed=seed, height=8, width=8)
            write_mask(tmp_path / f"masks/{seed}/{scan}/a.png", [0, 1], 8, 8)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 80)
    try:
        guess = guess_spec(tmp_path)
    finally:
        sys.setrecursionlimit(limit)
    assert guess.spec["labeled"] == {"images": "images", "masks": "masks"}
    assert "labeled: 300 of 300 images in images have a mask" in guess.remarks


def test_init_takes_no_mask_for_an_image(tmp_path):
    for seed, folder in enumerate(("one", "two")):
        write_image(tmp_path / folder / "a.jpg", seed=seed)
        shape = {"label": "road", "points": [[0, 0], [9, 0], [9, 9]], "shape_type": "polygon"}
        content = {"shapes": [shape], "imagePath": "a.jpg", "imageHeight": 32, "imageWidth": 48}
        (tmp_path / folder / "a.json").write_text(json.dumps(content))
    assert guess_spec(tmp_path).spec["labeled"] == {"images": ".", "masks": "."}
    write_mask(tmp_path / "old_masks" / "b.png", [0, 1])
    assert guess_spec(tmp_path).spec["labeled"] == {"images": "one", "masks": "one"}


def test_init_names_the_masks_that_it_does_not_use(command, tmp_path):
    for camera in ("left", "right"):
        write_image(tmp_path / camera / "images/a.png", seed=len(camera))
        write_image(tmp_path / camera / "images/b.png", seed=20 + len(camera))
        write_mask(tmp_path / camera / "masks/a.png", [0, 1])
    finished = command("init", tmp_path)
    assert "labeled: 1 of 2 images in left/images have a mask" in finished.out
    assert "unlabeled: images in left/images, right/images" in finished.out
    assert "not used: the masks of 1 images in right/images" in finished.out
    sets = load_data_spec(tmp_path / "data.yaml").resolve()
    assert sorted(sample.image.parent.parent.name for sample in sets.unlabeled) == ["left", "right", "right"]


def test_init_replaces_no_list_of_the_data_set(command, tmp_path):
    for index in range(5):
        write_image(tmp_path / f"images/{index}.png", seed=index)
        write_mask(tmp_path / f"masks/{index}.png", [0, 1])
    (tmp_path / "val.txt").write_text("3\n")
    assert "in data-val.txt" in command("init", tmp_path).out
    assert (tmp_path / "val.txt").read_text() == "3\n"
    assert not (tmp_path / "labeled.txt").exists()
    (tmp_path / "data-val.txt").write_text("1\n")  # changed by hand: the lists are the spec's own
    assert "in data-val.txt" in command("init", tmp_path, "--overwrite").out
    assert (tmp_path / "val.txt").read_text() == "3\n"
    (tmp_path / "data.yaml").unlink()
    line = command.refused("init", tmp_path)
    assert "holds data-labeled.txt or data-val.txt, which this spec does not name; choose another --out" in line
    (tmp_path / "data.yaml").write_text("classes: [a, b]\nval: {images: images, ids: val.txt}\n")  # not by `init`
    assert "does not name" in command.refused("init", tmp_path, "--overwrite")
    (tmp_path / "data.yaml").write_text("classes: [a, ")  # damaged: to be replaced, and it names no list
    for name in ("data-val.txt", "data-labeled.txt"):
        (tmp_path / name).unlink()
    assert "in data-val.txt" in command("init", tmp_path, "--overwrite").out


def test_init_pairs_names_in_composed_and_decomposed_form(tmp_path):
    for index, name in enumerate(("gr\u00fcn", "a")):
        write_image(tmp_path / f"images/train/{name}.png", seed=index)
        write_mask(tmp_path / f"masks/train/{unicodedata.normalize('NFD', name)}.png", [0, 1])
    guess = guess_spec(tmp_path)
    assert guess.spec["labeled"] == {"images": "images/train", "masks": "masks/train"}
    assert "labeled: 2 of 2 images in images/train have a mask" in guess.remarks


def test_init_makes_the_folder_of_the_spec(command, tmp_path):
    write_image(tmp_path / "in/images/a.png")
    write_mask(tmp_path / "in/masks/a.png", [0, 1])
    assert command("init", tmp_path / "in", "--out", tmp_path / "new/folder/data.yaml").code == 0
    assert len(load_data_spec(tmp_path / "new/folder/data.yaml").resolve().labeled) == 1


def test_init_says_which_values_are_no_class_ids(command, tmp_path):
    write_image(tmp_path / "images/a.png")
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.resize(np.array([0, 1, 2**31 - 1], np.int32), (32, 48))).save(tmp_path / "masks/a.tif")
    finished = command("init", tmp_path)
    assert "2147483647 cannot be class ids; map them with `label_mapping`" in finished.out
    assert yaml.safe_load((tmp_path / "data.yaml").read_text())["classes"] == ["class_0", "class_1"]


def test_a_name_that_no_list_can_hold_is_named(command, tmp_path):
    for name in ("a", "b", "\udcff"):
        write_image(tmp_path / "images/x.png", seed=len(name.encode(errors="surrogateescape")))
        (tmp_path / "images/x.png").rename(tmp_path / f"images/{name}.png")
        write_mask(tmp_path / "masks/x.png", [0, 1])
        (tmp_path / "masks/x.png").rename(tmp_path / f"masks/{name}.png")
    assert "a file name that is not UTF-8; rename the file" in command.refused("init", tmp_path)
    write_spec(tmp_path, "classes: [a, b]\nlabeled: {images: images, masks: masks, fraction: 1/2}\n")
    assert len(load_data_spec(tmp_path / "data.yaml").resolve().labeled) == 2
    assert "rename the file" in command.refused("convert", tmp_path / "data.yaml", "--out", tmp_path / "out")


def test_a_damaged_archive_is_one_line(command, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.txt", "x" * 10_000)
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[40:44] = b"\xff" * 4
    (tmp_path / "a.zip").write_bytes(content)
    assert "not a zip that can be unpacked" in command.refused("convert", tmp_path / "a.zip", "--out", tmp_path / "out")


def test_a_path_of_an_unknown_user_is_one_line(tmp_path):
    write_spec(tmp_path, "classes: [a, b]\nlabeled: {images: ~nobody-here/images, masks: .}\n")
    with pytest.raises(ConfigError, match=r"there is no user ~nobody-here; for your own folder write ~/"):
        load_data_spec(tmp_path / "data.yaml").resolve()


def test_init_takes_cvats_masks_of_classes_and_not_those_of_objects(tmp_path):
    """Objects have colors by their number, some of which are colors of classes."""
    for name in ("a", "b"):
        write_image(tmp_path / f"JPEGImages/{name}.jpg")
        for folder, value in (("SegmentationClass", 128), ("SegmentationObject", 64)):
            write_mask(tmp_path / folder / f"{name}.png", np.full((32, 48, 3), value, np.uint8))
    (tmp_path / "labelmap.txt").write_text("background:0,0,0::\nroad:128,128,128::\ntree:64,64,64::\n")
    assert guess_spec(tmp_path).spec["labeled"] == {"images": "JPEGImages", "masks": "SegmentationClass"}


def test_init_takes_the_names_in_yolos_list(tmp_path):
    """Label Studio's export "YOLO with images": no YAML file."""
    write_image(tmp_path / "images/a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("1 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75\n")
    (tmp_path / "classes.txt").write_text("tree\nroad\n")
    (tmp_path / "notes.json").write_text('{"categories": [], "info": {}}')
    spec = data_spec(guess_spec(tmp_path).spec, tmp_path / "data.yaml")
    sets = spec.resolve()
    assert sets.labels.names == ("background", "tree", "road")
    assert read_mask(sets.labeled[0], sets.coding).max() == 2
