"""The files that `predict` writes about an image besides mask and overlay, and lists of images as source."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import CommandLine
from PIL import Image
from tiny_artifact import LABELS, expected_mask, make_artifact

from segkc_deploy.data.annotations.reading import annotated_image
from segkc_deploy.data.masks import read_mask
from segkc_deploy.data.samples import MaskCoding, Sample
from segkc_deploy.errors import DataError
from segkc_deploy.sources import find_images

SIZE = (48, 64)


def write_image(path: Path, seed: int = 0) -> np.ndarray:
    """Blobs of pure colors, one in a hole of another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.zeros((*SIZE, 3), np.uint8)
    image[4:40, 4 + seed : 50] = (220, 0, 0)
    image[12:30, 12:40] = (0, 220, 0)
    image[16:24, 20:30] = (220, 0, 0)
    image[44:, :9] = (0, 0, 220)
    cv2.imwrite(str(path), image[..., ::-1])
    return image


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return make_artifact(tmp_path / "artifact", size=SIZE)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
def test_run_lengths_polygons_and_labelme_give_the_mask_back(
    command: CommandLine, artifact: Path, tmp_path: Path
) -> None:
    image = write_image(tmp_path / "in/day/a.png")
    write_image(tmp_path / "in/b.png")
    options = ("--also", "rle", "--also", "polygons", "--also", "labelme", "--palette", "--no-overlay")
    out = tmp_path / "out"
    assert command("predict", artifact, "--source", tmp_path / "in", "--out", out, *options).code == 0
    mask = expected_mask(image)

    stored = Image.open(out / "masks/day/a.png")
    assert stored.mode == "P"
    np.testing.assert_array_equal(np.asarray(stored), mask)
    np.testing.assert_array_equal(np.asarray(stored.convert("RGB")), np.array(LABELS.palette)[mask])

    coco = pytest.importorskip("pycocotools.mask")
    rle = json.loads((out / "rle/day/a.json").read_text())
    for annotation in rle["annotations"]:
        np.testing.assert_array_equal(coco.decode(annotation["segmentation"]), mask == annotation["category_id"])
        assert annotation["area"] == np.sum(mask == annotation["category_id"])
        assert annotation["category"] == LABELS.names[annotation["category_id"]]
    assert {one["category_id"] for one in rle["annotations"]} == set(np.unique(mask))

    polygons = json.loads((out / "polygons/day/a.geojson").read_text())
    filled = np.full(SIZE, 255, np.uint8)
    for feature in polygons["features"]:
        rings = [np.array(ring)[:-1] for ring in feature["geometry"]["coordinates"]]
        region = np.zeros(SIZE, np.uint8)
        # Pixels whose centers lie inside, by the even-odd rule.
        for ring in rings:
            y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
            inside = np.zeros(SIZE, bool)
            for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
                if y0 != y1:
                    inside ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
            region ^= inside
        filled[region.astype(bool)] = feature["properties"]["class_id"]
    np.testing.assert_array_equal(filled, mask)

    path = out / "labelme/day/a.json"
    labelme = json.loads(path.read_text())
    assert (path.parent / labelme["imagePath"]).resolve() == tmp_path / "in/day/a.png"
    assert (labelme["imageHeight"], labelme["imageWidth"], labelme["imageData"]) == (*SIZE, None)
    assert len(annotated_image(path, tmp_path / "in/day/a.png", LABELS.names).shapes) == len(labelme["shapes"])
    sample = Sample("a", tmp_path / "in/day/a.png", path)
    np.testing.assert_array_equal(read_mask(sample, MaskCoding(LABELS)), mask)


def test_resume_and_overwrite_know_the_further_files(command: CommandLine, artifact: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "in/a.png")
    out = tmp_path / "out"
    arguments = ("predict", artifact, "--source", tmp_path / "in", "--out", out)
    assert command(*arguments).code == 0
    assert command(*arguments, "--resume", "--also", "rle").code == 0
    assert (out / "rle/a.json").is_file()
    assert command(*arguments, "--overwrite").code == 0
    assert not (out / "rle").exists()


def test_further_files_are_for_images(command: CommandLine, artifact: Path, tmp_path: Path) -> None:
    line = command.refused("predict", artifact, "--source", "clip.mp4", "--out", tmp_path / "out", "--also", "rle")
    assert "--frames" in line


def test_a_list_names_images_in_its_order_and_missing_ones_are_left_out(
    command: CommandLine, artifact: Path, tmp_path: Path
) -> None:
    for name in ("photos/b.png", "photos/c/a.png", "other/d.png"):
        write_image(tmp_path / name)
    lines = ["b.png", "", "c/a.png", f"{tmp_path}/other/d.png", "none.png", "../photos/b.png"]
    listed = tmp_path / "photos/list.txt"
    listed.write_text("\r\n".join(lines))
    assert [image.id for image in find_images(str(listed))] == ["photos/b", "photos/c/a", "other/d", "photos/none"]
    finished = command("predict", artifact, "--source", listed, "--out", tmp_path / "out")
    assert finished.code == 2
    assert "none.png" in finished.err
    assert "3 of 4 images predicted" in finished.out
    assert (tmp_path / "out/masks/photos/c/a.png").is_file()


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\x00"])
def test_a_list_without_images_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"list\.txt: .*write one image path in each line"):
        find_images(str(tmp_path / "list.txt"))


def test_a_file_name_that_is_no_text_gets_its_files(command: CommandLine, artifact: Path, tmp_path: Path) -> None:
    """As in archives of before UTF-8, whose names hold bytes of Latin-1."""
    odd = os.fsdecode(b"caf\xe9.png")
    write_image(tmp_path / "a.png")
    try:
        (tmp_path / "in").mkdir()
        (tmp_path / "a.png").rename(tmp_path / "in" / odd)
    except OSError:
        pytest.skip("this file system takes no such name")
    options = ("--also", "rle", "--also", "polygons", "--also", "labelme", "--no-overlay")
    finished = command("predict", artifact, "--source", tmp_path / "in", "--out", tmp_path / "out", *options)
    assert finished.code == 0, finished
    for kind in ("rle", "polygons", "labelme"):
        (path,) = (tmp_path / "out" / kind).iterdir()
        content = json.loads(path.read_text(encoding="utf-8"))
        assert any(isinstance(value, str) and value.endswith(odd) for value in (*content.values(), *_names(content)))


def _names(content: dict[str, object]) -> list[object]:
    """The file names of COCO's list of images."""
    images = content.get("images", [])
    assert isinstance(images, list)
    return [image["file_name"] for image in images]
