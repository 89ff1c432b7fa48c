"""The crop of a resized image against resizing the whole image with Pillow and OpenCV and cropping it then."""

import cv2
import numpy as np
import pytest
from PIL import Image

from segkc_deploy.benchmarks.studies import pil_pipeline
from segkc_deploy.training.data.augment import strong_view, weak_view
from segkc_deploy.training.data.resample import Span, crop_of_resized_image, crop_of_resized_mask
from segkc_deploy.training.recipe import StrongAugmentation, WeakAugmentation


@pytest.fixture(scope="module")
def photograph() -> tuple[np.ndarray, np.ndarray]:
    """A smooth picture with edges and noise, 375×500, and a mask of as many classes as uint8 holds."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (25, 34, 3)).astype(np.uint8)
    image = cv2.resize(coarse, (500, 375), interpolation=cv2.INTER_CUBIC)
    image = cv2.add(image, rng.integers(0, 12, image.shape).astype(np.uint8))
    return image, rng.integers(0, 256, image.shape[:2]).astype(np.uint8)


@pytest.mark.parametrize("factor", [0.5, 0.501, 0.63, 0.8, 0.9999, 1.0, 1.008, 1.333, 1.666, 1.995, 2.0])
def test_a_crop_is_the_whole_images(photograph: tuple[np.ndarray, np.ndarray], factor: float) -> None:
    image, mask = photograph
    height, width = (round(side * factor) for side in image.shape[:2])
    whole = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    with_pillow = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    nearest = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
    rng = np.random.default_rng(1)
    for side in (64, 150, min(height, width)):
        for _ in range(8):
            top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
            rows, columns = Span(375, height, top, side), Span(500, width, left, side)
            window = slice(top, top + side), slice(left, left + side)
            found = crop_of_resized_image(image, rows, columns).astype(float)
            assert np.abs(found - whole[window]).mean() < 0.5
            assert np.abs(found - with_pillow[window]).mean() < 1
            np.testing.assert_array_equal(crop_of_resized_mask(mask, rows, columns), nearest[window])


def test_ends_of_a_part_are_whole_source_pixels_near_the_crop() -> None:
    pixels, resized, before = Span(source=2048, resized=3072, start=1000, length=512).part()
    # Two source pixels become three, so every third resized pixel begins with a source pixel.
    assert (pixels.start, pixels.stop, resized, before) == (666, 1010, 516, 1)
    # Nothing beyond the image, and all of it where no end nearby is a whole pixel.
    assert Span(500, 998, 600, 320).part()[1] <= 998
    assert Span(500, 500, 0, 500).part() == (slice(0, 500), 500, 0)


@pytest.mark.parametrize("seed", range(12))
def test_views_are_those_of_the_usual_pipeline(photograph: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    """The same random numbers through Pillow alone."""
    image, mask = photograph
    ours, theirs = np.random.default_rng(seed), np.random.default_rng(seed)
    weak, labels = weak_view(image, mask, (320, 400), 255, WeakAugmentation(), ours)
    usual, truth = pil_pipeline.weak_view(
        Image.fromarray(image), Image.fromarray(mask), (320, 400), 255, WeakAugmentation(), theirs
    )
    np.testing.assert_array_equal(labels, np.asarray(truth))
    assert np.abs(weak.astype(float) - np.asarray(usual)).mean() < 1
    # Pillow truncates after each change, which costs half a gray level each time; ours rounds. Hues, of which both have
    # 256 steps, differ by more and are compared with colorsys elsewhere.
    config = StrongAugmentation(jitter_probability=1.0, hue=0.0, grayscale_probability=0.5)
    strong = strong_view(weak, config, ours).astype(float)
    assert np.abs(strong - np.asarray(pil_pipeline.strong_view(Image.fromarray(weak), config, theirs))).mean() < 2
