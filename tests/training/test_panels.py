"""Pictures of validation images: small ones as they are, large ones shrunk, one strip after another."""

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from segkc_deploy.data.samples import ImageSets, MaskCoding, Sample
from segkc_deploy.labels import Labels
from segkc_deploy.pixel_format import RGB, PixelFormat
from segkc_deploy.training.evaluation.panels import comparison_panels

PALETTE = np.array([(0, 0, 0), (200, 30, 40), (10, 220, 90)], np.uint8)
LABELS = Labels(names=("sky", "car", "road"), palette=tuple(map(tuple, PALETTE.tolist())), ignore_index=255)
BLACK, WHITE = (np.full((1, 1, 3), value, np.uint8) for value in (0, 255))


def val_sets(folder: Path, image: np.ndarray, mask: np.ndarray, count: int = 1) -> ImageSets:
    """Write an image and its mask; the validation set is `count` times both."""
    pixels = RGB if image.shape[2] == 3 else PixelFormat(image.shape[2], 16)
    if pixels.is_rgb:
        Image.fromarray(image).save(folder / "image.png")
    else:
        tifffile.imwrite(folder / "image.png", image, photometric="minisblack", planarconfig="contig")
    Image.fromarray(mask).save(folder / "mask.png")
    sample = Sample("a", folder / "image.png", folder / "mask.png")
    return ImageSets(MaskCoding(LABELS), val=(sample,) * count, pixels=pixels)


def enlarged(small: np.ndarray) -> np.ndarray:
    """Every pixel as 4 by 4 equal ones."""
    return small.repeat(4, axis=0).repeat(4, axis=1)


def strip_of(*pictures: np.ndarray) -> np.ndarray:
    """The pictures from left to right with 4 white columns between them."""
    gap = np.full((pictures[0].shape[0], 4, 3), 255, np.uint8)
    return np.concatenate([part for picture in pictures for part in (gap, picture)][1:], axis=1)


def test_small_images_are_shown_as_they_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (300, 512, 3)).astype(np.uint8)
    truth, junior, senior = rng.integers(0, 3, (3, 300, 512)).astype(np.uint8)
    sets = val_sets(tmp_path, image, truth)
    (strip,) = comparison_panels({"junior": lambda _: junior, "senior": lambda _: senior}, sets, 4)
    differs = np.where((junior != senior)[..., None], WHITE, BLACK)
    np.testing.assert_array_equal(strip, strip_of(image, PALETTE[truth], PALETTE[junior], PALETTE[senior], differs))


def test_large_images_are_averaged_and_their_masks_sampled(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (1536, 2048, 3)).astype(np.uint8)
    truth, junior, senior = rng.integers(0, 3, (3, 384, 512)).astype(np.uint8)
    seen = []

    def predict(given: np.ndarray) -> np.ndarray:
        seen.append(given.shape)
        return enlarged(junior)

    sets = val_sets(tmp_path, image, enlarged(truth))
    (strip,) = comparison_panels({"junior": predict, "senior": lambda _: enlarged(senior)}, sets, 4)
    assert seen == [image.shape]
    differs = np.where((junior != senior)[..., None], WHITE, BLACK)
    means = image.reshape(384, 4, 512, 4, 3).mean(axis=(1, 3))
    expected = strip_of(means, PALETTE[truth], PALETTE[junior], PALETTE[senior], differs)
    assert (strip.shape, strip.dtype) == (expected.shape, np.uint8)
    assert np.abs(strip[:, :512] - expected[:, :512]).max() <= 0.5
    np.testing.assert_array_equal(strip[:, 512:], expected[:, 512:])


def test_no_side_is_over_512_pixels_in_any_format(tmp_path: Path) -> None:
    image = np.zeros((1300, 3, 5), np.uint16)
    mask = np.zeros((1300, 3), np.uint8)
    (strip,) = comparison_panels({"junior": lambda _: mask}, val_sets(tmp_path, image, mask), 1)
    assert (strip.shape, strip.dtype) == ((512, 1 + 4 + 1 + 4 + 1, 3), np.uint8)


def test_a_strip_is_drawn_when_it_is_asked_for(tmp_path: Path) -> None:
    mask = np.zeros((20, 30), np.uint8)
    sets = val_sets(tmp_path, np.zeros((20, 30, 3), np.uint8), mask, count=9)
    predicted = []
    strips = comparison_panels({"junior": lambda image: predicted.append(image) or mask}, sets, 4)
    for number in range(1, 5):
        next(strips)
        assert len(predicted) == number
    assert list(strips) == []
