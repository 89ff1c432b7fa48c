"""`label-next`: which files it replaces, deletes and leaves alone, and which mask belongs to which image."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from command_line import CommandLine
from tiny_data import write_tiny_data

from segkc_deploy.data.samples import Sample
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import ConfigError
from segkc_deploy.training.label_next.candidates import names_of
from segkc_deploy.training.label_next.lists import ListForm
from segkc_deploy.training.label_next.next_labels import Request, label_next


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# The files of a choice


def test_task_files_of_others_are_not_replaced(command: CommandLine, run: Path, tmp_path: Path) -> None:
    arguments = ("label-next", run, "--count", 1, "--out", tmp_path, "--overwrite", "--device", "cpu", "--tasks")
    for tool, name in (
        ("cvat", "annotations.xml"),
        ("label-studio", "tasks.json"),
        ("fiftyone", "fields/junior/x.png"),
    ):
        mine = tmp_path / tool / name
        mine.parent.mkdir(parents=True)
        mine.write_text("mine")
        assert f"{mine}: is there, and no earlier call wrote it" in command.refused(*arguments, tool)
        assert files(tmp_path) == {f"{tool}/{name}"} and mine.read_text() == "mine"
        shutil.rmtree(tmp_path / tool)
    (tmp_path / "cvat").write_text("mine")
    assert f"{tmp_path / 'cvat'}: is there" in command.refused(*arguments, "cvat")


def test_an_earlier_choice_is_replaced_with_its_tasks(command: CommandLine, run: Path, tmp_path: Path) -> None:
    arguments = ("label-next", run, "--out", tmp_path, "--overwrite", "--device", "cpu")
    assert command(*arguments, "--count", 3, "--tasks", "fiftyone", "--tasks", "cvat").code == 0
    (tmp_path / "cvat" / "mine.txt").write_text("mine")
    assert len(files(tmp_path / "fiftyone" / "fields")) == 6

    finished = command(*arguments, "--count", 1, "--tasks", "fiftyone")
    assert finished.code == 0, finished.err
    samples = json.loads((tmp_path / "fiftyone" / "samples.json").read_text())["samples"]
    masks = {samples[0][role]["mask_path"] for role in ("senior", "junior")}
    assert files(tmp_path / "fiftyone") == {"samples.json", "metadata.json", *masks}
    assert files(tmp_path / "cvat") == {"mine.txt"}

    assert command(*arguments, "--count", 1).code == 0
    lists = {"label-next.txt", "labeled.txt", "index.html", "scores.csv"}
    assert files(tmp_path) == {*lists, "cvat/mine.txt"}
    assert not (tmp_path / "fiftyone").exists()


def test_the_record_of_task_files_deletes_nothing_else(command: CommandLine, run: Path, tmp_path: Path) -> None:
    out, mine = tmp_path / "next", tmp_path / "mine.txt"
    arguments = ("label-next", run, "--out", out, "--overwrite", "--count", 1, "--device", "cpu")
    assert command(*arguments, "--tasks", "cvat").code == 0
    mine.write_text("mine")
    (out / "photos").mkdir()
    (out / "photos" / "x.png").write_text("mine")
    with (out / "tasks.jsonl").open("a") as record:
        record.writelines(json.dumps(name) + "\n" for name in ("cvat/../../mine.txt", "photos/x.png", "cvat", 3))
        record.write('"cvat/labe')  # a killed call
    assert command(*arguments).code == 0
    assert mine.exists() and "photos/x.png" in files(out) and not (out / "cvat").exists()


def test_an_earlier_choice_stays_until_there_is_another(command: CommandLine, run: Path, tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "next"
    photos.mkdir()
    cv2.imwrite(str(photos / "a.png"), np.full((48, 64, 3), 90, np.uint8))
    arguments = ("label-next", run, "--images", photos, "--out", out, "--count", 1, "--overwrite", "--device", "cpu")
    assert command(*arguments).code == 0
    before = {name: (out / name).read_bytes() for name in files(out)}
    (photos / "a.png").write_bytes(b"no image")
    assert "none of the 1 images could be read" in command(*arguments).err
    assert {name: (out / name).read_bytes() for name in files(out)} == before


def test_its_own_masks_are_no_images(command: CommandLine, run: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a", "b"):
        cv2.imwrite(str(photos / f"{name}.png"), np.full((48, 64, 3), 90, np.uint8))
    arguments = ("label-next", run, "--images", photos, "--out", photos / "next", "--count", 2, "--device", "cpu")
    assert command(*arguments, "--tasks", "fiftyone").code == 0
    finished = command(*arguments, "--overwrite")
    assert finished.out.startswith("2 of 2 unlabeled images"), finished


# The masks of images


def two_folders(tmp_path: Path) -> tuple[Path, Path]:
    """A data set of two folders of unlabeled images with the same names, and a folder of masks with such names."""
    data = write_tiny_data(tmp_path / "data", unlabeled=3)
    root = data.parent
    for name in ("a", "b"):
        shutil.copytree(root / "images" / "extra", root / "u" / name)
    content = yaml.safe_load(data.read_text())
    data.write_text(yaml.safe_dump(content | {"unlabeled": {"images": ["u/a", "u/b"]}}))
    masks = tmp_path / "truth"
    masks.mkdir()
    for index in range(3):
        cv2.imwrite(str(masks / f"{index:03}.png"), np.zeros((48, 64), np.uint8))
    return data, masks


def test_a_mask_that_may_be_of_two_images_is_refused(command: CommandLine, run: Path, tmp_path: Path) -> None:
    data, masks = two_folders(tmp_path)
    arguments = ("label-next", run, "--data", data, "--count", 1, "--device", "cpu", "--out", tmp_path / "next")
    refusal = command.refused(*arguments, "--masks", masks)
    u = data.parent / "u"
    assert f"000.png, which may be the mask of {u / 'a' / '000.png'} or of {u / 'b' / '000.png'}" in refusal
    assert "--images" in refusal
    finished = command(*arguments, "--images", u / "a", "--masks", masks)
    assert finished.code == 0, finished.err


def test_the_mask_of_a_labeled_image_is_not_that_of_a_namesake(
    command: CommandLine, run: Path, data: Path, tmp_path: Path
) -> None:
    """In the tiny data set labeled and unlabeled images have the same names."""
    root = data.parent
    arguments = ("label-next", run, "--count", 1, "--device", "cpu", "--out", tmp_path / "next")
    refusal = command.refused(*arguments, "--masks", root / "masks" / "train")
    assert f"the mask of {root / 'images/train/000.png'} or of {root / 'images/extra/000.png'}" in refusal


def test_images_of_one_id_are_named_by_their_paths() -> None:
    samples = [Sample("x", Path("a/x.png")), Sample("y", Path("a/y.png")), Sample("x", Path("b/x.png"))]
    assert names_of(samples) == ["a/x.png", "y", "b/x.png"]


def test_a_bad_true_mask_is_named_and_left_out(command: CommandLine, run: Path, tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data", unlabeled=4)
    masks = tmp_path / "truth"
    masks.mkdir()
    for index, size in enumerate([(48, 64), (48, 64), (9, 9)]):
        cv2.imwrite(str(masks / f"{index:03}.png"), np.full(size, index, np.uint8))
    (masks / "003.png").write_bytes(b"no mask")
    out = tmp_path / "next"
    finished = command(
        "label-next", run, "--data", data, "--count", 4, "--masks", masks, "--out", out, "--device", "cpu"
    )
    assert finished.code == 2
    assert "2 masks of --masks could not be used (named above)" in finished.err
    for name in ("002.png", "003.png"):
        assert f"not compared: {masks / name}" in finished.err
    assert json.loads((out / "comparison.json").read_text())["images"] == 2
    assert len((out / "label-next.txt").read_text().splitlines()) == 4 and "next: " in finished.out


def test_a_spec_of_other_classes_is_refused(command: CommandLine, run: Path, tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data", unlabeled=1)
    data.write_text(data.read_text().replace("- disk", "- ball"))
    refusal = command.refused("label-next", run, "--data", data, "--count", 1, "--out", tmp_path / "next")
    assert f"{data}: has other classes than {run}" in refusal


@pytest.mark.parametrize("values", [{"count": 0}, {"diversity": float("nan")}])
def test_values_are_checked_without_the_command_line_too(run: Path, tmp_path: Path, values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"--{next(iter(values))}"):
        label_next(Request(run, tmp_path / "next", **values))  # type: ignore[arg-type]


def test_images_of_a_list_have_a_mask_each(tmp_path: Path) -> None:
    root = tmp_path / "set"
    names = ["photos/a.jpg", "photos/a.png", "../photos/a.jpg", "photos/b.jpg", "photos/A.jpg", "photos/c.jpg"]
    for folder in ("images/photos", "masks"):
        (root / folder).mkdir(parents=True)
    spec_file = tmp_path / "data.yaml"
    spec_file.write_text("root: set\nclasses: [a, b]\nlabeled: {images: images, masks: masks}\n")
    samples = [Sample(Path(name).stem, root / name) for name in names]
    labeled = Sample("photos/c", root / "images" / "photos" / "c.png")  # its mask is found by its id
    drawn = Sample("d", root / "x.png", root / "masks" / "photos" / "b.png")
    form = ListForm.of_spec(load_data_spec(spec_file)).among([*samples, labeled, drawn])
    again = Sample("again", root / "masks" / ".." / "photos" / "c.jpg")
    assert form.among([*samples, labeled, drawn, again]) == form, "an image that is named in two ways is one"
    assert [form.mask(sample).relative_to(root / "masks").as_posix() for sample in [*samples, labeled, drawn]] == [
        "photos/a.jpg.png",
        "photos/a.png.png",
        "_parent/photos/a.jpg.png",
        "photos/b.jpg.png",
        "photos/A.jpg.png",
        "photos/c.jpg.png",
        "photos/c.png",
        "photos/b.png",
    ]
    assert form.line(samples[2]) == "../photos/a.jpg masks/_parent/photos/a.jpg.png"
    assert form.among(samples[3:4]).line(samples[3]) == "photos/b.jpg masks/photos/b.png", "alone it needs no suffix"
