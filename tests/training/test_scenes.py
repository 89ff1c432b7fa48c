"""The drawn data set: its files, its bytes, and that it asks for more than a color table."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from segkc_deploy.data.samples import Sample
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import DataError
from segkc_deploy.training.demo_scenes.layout import CLASSES
from segkc_deploy.training.demo_scenes.scenes import IGNORE_INDEX, draw_scene, write_scenes

SIZE = (96, 128)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), labeled=12, unlabeled=3, val=8, size=SIZE, seed=3)


def read(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    assert sample.mask is not None
    image, mask = cv2.imread(str(sample.image)), cv2.imread(str(sample.mask), cv2.IMREAD_UNCHANGED)
    assert image is not None and mask is not None
    return image[..., ::-1], mask


def test_the_data_spec_finds_every_scene(data: Path) -> None:
    sets = load_data_spec(data).resolve()
    assert (len(sets.labeled), len(sets.unlabeled), len(sets.val)) == (12, 3, 8)
    assert sets.labels.names == tuple(CLASSES)
    assert sets.labels.palette == tuple(CLASSES.values())
    assert not (data.parent / "masks" / "unlabeled").exists()


def test_masks_hold_class_ids_at_the_image_size(data: Path) -> None:
    sets = load_data_spec(data).resolve()
    seen = np.zeros(256, int)
    for sample in sets.labeled + sets.val:
        image, mask = read(sample)
        assert image.shape == (*SIZE, 3)
        assert mask.shape == SIZE and mask.dtype == np.uint8
        seen += np.bincount(mask.ravel(), minlength=256)
    assert set(np.flatnonzero(seen)) == {*range(len(CLASSES)), IGNORE_INDEX}
    assert seen[IGNORE_INDEX] / seen.sum() < 0.06


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_seed_decides_every_byte(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_scenes(tmp_path / name, labeled=2, unlabeled=1, val=1, size=(48, 64), seed=seed)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    different = files(tmp_path / "c")
    assert all(content != different[name] for name, content in files(tmp_path / "a").items() if name != "data.yaml")


def test_more_scenes_leave_the_first_ones_as_they_are(tmp_path: Path) -> None:
    write_scenes(tmp_path / "few", labeled=1, unlabeled=1, val=1, size=(48, 64))
    write_scenes(tmp_path / "many", labeled=2, unlabeled=2, val=2, size=(48, 64))
    assert files(tmp_path / "few").items() <= files(tmp_path / "many").items()


def test_no_two_scenes_are_alike(data: Path) -> None:
    images = [path.read_bytes() for path in (data.parent / "images").rglob("*.jpg")]
    assert len(images) == len(set(images)) == 23


@pytest.mark.parametrize("size", [(32, 48), (97, 131), (200, 120)])
def test_any_size_can_be_drawn(size: tuple[int, int]) -> None:
    for seed in range(6):
        image, mask = draw_scene(np.random.default_rng(seed), size)
        assert image.shape == (*size, 3) and image.dtype == np.uint8
        assert mask.shape == size and set(np.unique(mask)) <= {*range(len(CLASSES)), IGNORE_INDEX}


def test_sky_is_above_the_ground() -> None:
    rows = {"sky": 0.0, "ground": 0.0}
    for seed in range(20):
        _, mask = draw_scene(np.random.default_rng(seed), SIZE)
        for name in rows:
            found = np.nonzero(mask == list(CLASSES).index(name))[0]
            rows[name] += found.mean() / 20 if found.size else 0.5 * SIZE[0] / 20  # all of it may be hidden
    assert rows["sky"] + 0.3 * SIZE[0] < rows["ground"]


def test_color_alone_does_not_give_the_class_away(data: Path) -> None:
    """A nearest-neighbor table from colors to classes, made from all labeled pixels, fails on other scenes."""
    sets = load_data_spec(data).resolve()
    votes = np.zeros((16 * 16 * 16, len(CLASSES)), int)
    for sample in sets.labeled:
        colors, classes = colors_and_classes(sample)
        np.add.at(votes, (colors, classes), 1)
    table = votes.argmax(axis=1)
    confusion = np.zeros((len(CLASSES), len(CLASSES)), int)
    for sample in sets.val:
        colors, classes = colors_and_classes(sample)
        np.add.at(confusion, (classes, table[colors]), 1)
    hits = confusion.diagonal()
    iou = hits / (confusion.sum(axis=0) + confusion.sum(axis=1) - hits)
    assert iou.mean() < 0.35


def colors_and_classes(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Coarse color ids (16 levels a channel) and class ids of all pixels that have one class."""
    image, mask = read(sample)
    coarse = image.astype(int) // 16
    color_ids = coarse @ np.array([256, 16, 1])
    return color_ids[mask != IGNORE_INDEX], mask[mask != IGNORE_INDEX].astype(int)


def test_an_existing_data_set_is_not_mixed_with_another(tmp_path: Path) -> None:
    write_scenes(tmp_path, labeled=1, unlabeled=0, val=1, size=(48, 64))
    with pytest.raises(DataError, match=r"images: already there; choose another folder"):
        write_scenes(tmp_path, labeled=1, unlabeled=0, val=1, size=(48, 64))


def test_sets_without_scenes_are_left_out_of_the_data_spec(tmp_path: Path) -> None:
    sets = load_data_spec(write_scenes(tmp_path, labeled=2, unlabeled=0, val=0, size=(48, 64))).resolve()
    assert (len(sets.labeled), len(sets.unlabeled), len(sets.val)) == (2, 0, 0)
