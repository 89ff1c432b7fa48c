"""Augmentation: masks follow their images, and colors change by the published formulas."""

import cv2
import numpy as np
import pytest
import torch

from segkc_deploy.training.data.augment import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    strong_view,
    weak_view,
)
from segkc_deploy.training.data.cutmix import cutmix_boxes, paste
from segkc_deploy.training.recipe import StrongAugmentation, WeakAugmentation


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)


def blocks(height: int = 40, width: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """An image whose red channel is its mask's class times 60, in large blocks."""
    mask = np.kron(np.arange(6).reshape(2, 3) % 4, np.ones((height // 2, width // 3))).astype(np.uint8)
    return np.repeat((mask * 60)[..., None], 3, axis=2), mask


@pytest.mark.parametrize("seed", range(20))
def test_masks_follow_their_images(seed: int) -> None:
    image, mask = blocks()
    rng = np.random.default_rng(seed)
    cropped, labels = weak_view(image, mask, (32, 48), 255, WeakAugmentation(), rng)
    assert cropped.shape == (32, 48, 3)
    assert labels.shape == (32, 48)
    padded = labels == 255
    assert (cropped[padded] == 0).all()
    # Away from the borders of blocks, where interpolation mixes them, color and class agree.
    inner = cv2.erode((~padded).astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=0).astype(bool)
    inner &= cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8)) == 0
    assert (cropped[..., 0][inner] == labels[inner].astype(int) * 60).all()


def test_only_right_and_bottom_are_padded() -> None:
    image, mask = blocks()
    _, labels = weak_view(
        image, mask, (64, 96), 255, WeakAugmentation(scale=(0.5, 0.5), flip=0), np.random.default_rng(0)
    )
    assert (labels[:20, :30] != 255).all()
    assert (labels[20:] == 255).all()
    assert (labels[:, 30:] == 255).all()


def test_the_same_generator_gives_the_same_views(image: np.ndarray) -> None:
    views = [strong_view(image, StrongAugmentation(), np.random.default_rng(5)) for _ in range(2)]
    np.testing.assert_array_equal(*views)
    assert (strong_view(image, StrongAugmentation(), np.random.default_rng(6)) != views[0]).any()


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.4])
def test_brightness_contrast_and_saturation_follow_their_formulas(image: np.ndarray, factor: float) -> None:
    pixels = image.astype(np.float64)
    gray = pixels @ [0.299, 0.587, 0.114]
    expected = {
        adjust_brightness: factor * pixels,
        adjust_contrast: factor * pixels + (1 - factor) * gray.mean(),
        adjust_saturation: factor * pixels + (1 - factor) * gray[..., None],
    }
    for adjust, values in expected.items():
        np.testing.assert_allclose(adjust(image, factor), np.clip(values, 0, 255), atol=1.01)


@pytest.mark.parametrize("shift", [-0.25, 0.1, 0.5])
def test_hue_turns_as_in_colorsys(shift: float) -> None:
    import colorsys

    image = np.array([[[200, 40, 40], [30, 180, 90], [60, 60, 220], [240, 200, 30]]], dtype=np.uint8)
    got = adjust_hue(image, shift)
    for source, turned in zip(image[0] / 255, got[0], strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*source)
        expected = np.array(colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value)) * 255
        np.testing.assert_allclose(turned, expected, atol=9)  # OpenCV keeps hues in 256 steps of 6 levels each


def test_cutmix_boxes_have_the_areas_and_ratios_asked_for() -> None:
    torch.manual_seed(0)
    config = StrongAugmentation(cutmix_probability=1.0)
    areas = []
    for box in cutmix_boxes(200, (100, 140), config).numpy():
        rows, columns = np.flatnonzero(box.any(axis=1)), np.flatnonzero(box.any(axis=0))
        height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        assert box.sum() == height * width
        assert 0.25 <= height / width <= 4
        areas.append(box.mean())
    assert 0.01 <= min(areas) < 0.08
    assert 0.3 < max(areas) <= 0.42


@pytest.mark.parametrize("size", [(128, 1024), (64, 1024), (1024, 64), (20, 500)])
def test_cutmix_finds_a_box_in_elongated_images_too(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    config = StrongAugmentation(cutmix_probability=1.0)
    for box in cutmix_boxes(100, size, config).numpy():
        rows, columns = np.flatnonzero(box.any(axis=1)), np.flatnonzero(box.any(axis=0))
        assert len(rows) and box.sum() == len(rows) * len(columns)
        assert 0.01 <= box.mean() <= 0.42
        assert 0.25 <= len(rows) / len(columns) <= 4


def test_cutmix_happens_as_often_as_asked() -> None:
    torch.manual_seed(0)
    mixed = cutmix_boxes(400, (20, 20), StrongAugmentation(cutmix_probability=0.5)).flatten(1).any(dim=1)
    assert 150 < int(mixed.sum()) < 250


def test_pasting_takes_the_next_image_inside_the_box() -> None:
    values = torch.arange(3).view(3, 1, 1).expand(3, 4, 4)
    boxes = torch.zeros(3, 4, 4, dtype=torch.bool)
    boxes[:, 1:3, 1:3] = True
    pasted = paste(values, boxes)
    for index in range(3):
        assert (pasted[index][boxes[index]] == (index + 1) % 3).all()
        assert (pasted[index][~boxes[index]] == index).all()
    images = values[:, None].expand(3, 2, 4, 4)
    torch.testing.assert_close(paste(images, boxes)[:, 1], pasted)
