"""The runtime's mask head against PyTorch: upsample every logit in float64, then argmax."""

import cv2
import numpy as np
import pytest
import torch

from segkc_deploy.mask_head import mask_from_logits

SIZES = [
    ((7, 9), (28, 36)),
    ((13, 17), (23, 41)),
    ((24, 31), (13, 64)),
    ((40, 30), (9, 11)),
    ((6, 8), (6, 8)),
    ((5, 7), (1, 1)),
    ((1, 1), (5, 4)),
    ((1, 6), (7, 20)),
    ((8, 1), (50, 3)),
    ((2, 2), (257, 129)),
]


def upsampled(logits, size, align_corners):
    """float64 (H, W, C)"""
    planes = torch.from_numpy(logits.astype(np.float64)).permute(2, 0, 1)[None]
    full = torch.nn.functional.interpolate(planes, size, mode="bilinear", align_corners=align_corners)
    return full[0].permute(1, 2, 0).numpy()


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(0, 4, shape).astype(np.float32)


def blobs(shape, seed=0):
    """Smooth scores, like a network's."""
    return np.stack([cv2.GaussianBlur(plane, (0, 0), 3) for plane in noise(shape, seed).transpose(2, 0, 1)], axis=2) * 9


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("low", "high"), SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("classes", [2, 11, 150])
@pytest.mark.parametrize("make", [noise, blobs])
def test_the_mask_is_the_argmax_of_the_upsampled_logits(align_corners, low, high, classes, make):
    logits = make((*low, classes))
    mask = mask_from_logits(logits, high, align_corners)
    assert mask.dtype == np.uint8
    assert mask.shape == high
    full = upsampled(logits, high, align_corners)
    loss = full.max(axis=2) - np.take_along_axis(full, mask[..., None], axis=2)[..., 0]
    assert loss.max() <= 2e-6 * np.abs(logits).max()
    assert (mask != full.argmax(axis=2)).mean() < 1e-3


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_equal_scores_go_to_the_first_class(factor):
    """With scores 0 and 1 and a factor that is a power of two every step is exact, and ties are many."""
    logits = np.random.default_rng(1).integers(0, 2, (12, 15, 4)).astype(np.float32)
    size = (12 * factor, 15 * factor)
    full = upsampled(logits, size, align_corners=False)
    best = np.sort(full, axis=2)
    assert (best[..., -1] == best[..., -2]).mean() > 0.1
    np.testing.assert_array_equal(mask_from_logits(logits, size, False), full.argmax(axis=2))


def test_a_class_that_wins_at_no_corner_can_win_between_them():
    logits = np.array([[[5, 0, 4], [0, 5, 4]]], dtype=np.float32)
    np.testing.assert_array_equal(mask_from_logits(logits, (1, 5), True), [[0, 2, 2, 2, 1]])


def test_work_in_parts_gives_the_same_mask(monkeypatch):
    logits, size = blobs((30, 40, 7)), (121, 163)
    whole = mask_from_logits(logits, size, False)
    monkeypatch.setattr("segkc_deploy.mask_head._PIXELS_AT_ONCE", 100)
    np.testing.assert_array_equal(mask_from_logits(logits, size, False), whole)


def test_all_255_classes_fit():
    logits = np.zeros((4, 4, 255), dtype=np.float32)
    logits[:2, :, 254] = logits[2:, :, 253] = 1
    mask = mask_from_logits(logits, (16, 16), False)
    np.testing.assert_array_equal(np.unique(mask), [253, 254])
