"""JPEG files decoded at half their size where a draw shrinks them a lot: the geometry and the values of before."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from tiny_data import CLASSES, tiny_recipe

from segkc_deploy.data.images import has_half_size, read_half_size, read_image
from segkc_deploy.data.samples import ImageSets, MaskCoding, Sample
from segkc_deploy.errors import UnreadableFileError
from segkc_deploy.labels import Labels, default_palette
from segkc_deploy.training.data import datasets, decoded_cache
from segkc_deploy.training.data.datasets import LabeledDataset, UnlabeledDataset
from segkc_deploy.training.recipe import Recipe

SIZE = (512, 800)


def photograph(rng: np.random.Generator) -> np.ndarray:
    """Shapes with sharp edges and noise on every pixel, uint8 (512, 800, 3)."""
    image = cv2.resize(rng.integers(0, 256, (8, 12, 3)).astype(np.uint8), SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    for _ in range(60):
        x, y, radius = (int(value) for value in rng.integers((0, 0, 4), (SIZE[1], SIZE[0], 40)))
        cv2.circle(image, (x, y), radius, rng.integers(0, 256, 3).tolist(), -1)
    return cv2.add(image, rng.integers(0, 30, image.shape).astype(np.uint8))


@pytest.fixture
def sets(tmp_path: Path) -> ImageSets:
    """Three photographs with masks, the second one lying on its side with an EXIF rotation."""
    rng, samples = np.random.default_rng(0), []
    for number in range(3):
        image, mask = photograph(rng), rng.integers(0, 3, (SIZE[0] // 16, SIZE[1] // 16)).astype(np.uint8)
        mask = np.kron(mask, np.ones((16, 16), np.uint8))
        exif = Image.Exif()
        if number == 1:
            exif[274] = 6  # turned clockwise to be seen
            image = np.rot90(image)
        sample = Sample(str(number), tmp_path / f"{number}.jpg", tmp_path / f"{number}.png")
        Image.fromarray(image).save(sample.image, quality=92, exif=exif)
        Image.fromarray(mask).save(tmp_path / f"{number}.png")
        samples.append(sample)
    labels = Labels(names=tuple(CLASSES), palette=default_palette(3))
    return ImageSets(MaskCoding(labels), tuple(samples), tuple(samples))


def recipe(cache: Path | None = None, scale: tuple[float, float] = (0.06, 0.125)) -> Recipe:
    settings = {"size_gib": 1.0, "folder": str(cache)} if cache else {}
    return tiny_recipe(weak={"scale": scale}, crop_size=(48, 64), cache=settings)


@pytest.mark.parametrize("kind", [LabeledDataset, UnlabeledDataset])
def test_draws_are_those_of_the_whole_image(
    sets: ImageSets, monkeypatch: pytest.MonkeyPatch, kind: type[LabeledDataset | UnlabeledDataset]
) -> None:
    extra = () if kind is LabeledDataset else (0,)
    reads: list[Path] = []
    monkeypatch.setattr(datasets, "read_half_size", lambda path: (reads.append(path), read_half_size(path))[1])
    halved = [kind(sets, recipe(), *extra).example(draw) for draw in range(6)]
    assert len(reads) == 6
    monkeypatch.setattr(datasets, "_HALVED_BELOW", 0)
    whole = [kind(sets, recipe(), *extra).example(draw) for draw in range(6)]
    assert len(reads) == 6
    image, mask = ("image", "mask") if kind is LabeledDataset else ("weak", "ignored")
    for own, other in zip(halved, whole, strict=True):
        np.testing.assert_array_equal(own[mask], other[mask])
        valid = other[image].numpy().any(axis=2)
        difference = np.abs(own[image].numpy().astype(float) - other[image].numpy())[valid]
        assert 0 < difference.mean() < 1
        assert not own[image].numpy()[~valid].any()


def test_draws_that_shrink_less_decode_the_whole_image(sets: ImageSets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "read_half_size", lambda path: pytest.fail("decoded at half its size"))
    for scale in ((0.13, 0.4), (0.5, 2.0)):
        LabeledDataset(sets, recipe(scale=scale)).example(0)


def test_a_cache_gives_the_same_pixels(sets: ImageSets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded_cache, "_SETTLED_NS", 0)
    plain = LabeledDataset(sets, recipe()).example(1)
    for _ in range(2):
        cached = LabeledDataset(sets, recipe(tmp_path / "cache")).example(1)
        assert all(np.array_equal(plain[name], cached[name]) for name in plain)
    assert len(list((tmp_path / "cache").glob("[!.]*.safetensors"))) == 2


def test_only_jpegs_of_even_sides_have_a_half(sets: ImageSets, tmp_path: Path) -> None:
    turned = sets.labeled[1].image
    assert has_half_size(turned)
    assert read_half_size(turned).shape == (SIZE[0] // 2, SIZE[1] // 2, 3)
    assert read_image(turned).shape == (*SIZE, 3)
    Image.new("L", (30, 20), 77).save(tmp_path / "gray.jpg")
    np.testing.assert_array_equal(read_half_size(tmp_path / "gray.jpg"), np.full((10, 15, 3), 77, np.uint8))
    Image.new("RGB", (31, 20)).save(tmp_path / "odd.jpg")
    Image.new("RGB", (30, 20)).save(tmp_path / "png.jpg", format="PNG")
    (tmp_path / "text.jpg").write_text("text")
    for name in ("odd", "png", "text", "missing"):
        assert not has_half_size(tmp_path / f"{name}.jpg")


def test_a_damaged_file_is_named(sets: ImageSets) -> None:
    path = sets.labeled[0].image
    path.write_bytes(path.read_bytes()[:2000])
    for read in (read_image, read_half_size):
        with pytest.raises(UnreadableFileError, match=rf"^{path}: not a readable image: "):
            read(path)
