"""Boundary IoU against the published recipe, class by class and pixel by pixel."""

import math

import numpy as np
import pytest

from segkc_deploy.boundary import BoundaryCounts, boundary_width

CLASSES, IGNORE = 5, 255


def blobs(seed, shape, cell=9):
    """Return a mask of class areas about `cell` pixels wide, some of them ignored."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, CLASSES + 1, [-(-side // cell) for side in shape]).astype(np.uint8)
    coarse[coarse == CLASSES] = IGNORE
    return np.kron(coarse, np.ones((cell, cell), np.uint8))[: shape[0], : shape[1]]


def pair(seed, shape):
    """Return a truth and a prediction that is the truth moved by a pixel or two, with areas of other classes."""
    truth = blobs(seed, shape)
    other = blobs(seed + 1000, shape, cell=13)
    prediction = np.where(other < 2, other, np.roll(truth, (1, -2), (0, 1)))
    prediction[prediction == IGNORE] = 3
    return truth, prediction.astype(np.uint8)


def region_as_published(binary):
    """Return the boundary region of a binary mask: erode by one pixel d times, zeros beyond the border."""
    height, width = binary.shape
    inside = binary.copy()
    for _ in range(max(1, int(round(0.02 * np.sqrt(height**2 + width**2))))):  # noqa: RUF046  (as published)
        padded = np.pad(inside, 1)
        for row in range(3):
            for column in range(3):
                inside &= padded[row : row + height, column : column + width]
    return binary & ~inside


def expected(pairs):
    """Return the boundary IoU of each class in percent over all pairs, or NaN."""
    iou = []
    for class_id in range(CLASSES):
        shared = together = 0
        for truth, prediction in pairs:
            true = region_as_published(truth == class_id)
            predicted = region_as_published((prediction == class_id) & (truth != IGNORE))
            shared += np.sum(true & predicted)
            together += np.sum(true | predicted)
        iou.append(100 * shared / together if together else math.nan)
    return iou


def scores_of(*pairs, ignore=IGNORE):
    counts = BoundaryCounts(CLASSES, ignore)
    for truth, prediction in pairs:
        counts.update(truth, prediction)
    return counts.scores()


@pytest.mark.parametrize("shape", [(72, 96), (31, 160), (3, 3), (1, 40)])
def test_equals_the_published_recipe_for_every_class(shape):
    truth, prediction = pair(1, shape)
    np.testing.assert_allclose(scores_of((truth, prediction)).iou, expected([(truth, prediction)]), rtol=1e-12)


def test_images_of_all_sizes_count_together():
    pairs = [pair(seed, shape) for seed, shape in enumerate([(72, 96), (120, 90), (360, 480), (16, 16)])]
    scores = scores_of(*pairs)
    np.testing.assert_allclose(scores.iou, expected(pairs), rtol=1e-12)
    assert 10 < scores.miou < 90
    assert scores.miou == pytest.approx(np.mean(expected(pairs)), rel=1e-12)


def test_the_width_is_two_percent_of_the_diagonal_and_at_least_a_pixel():
    assert boundary_width((360, 480)) == 12
    assert boundary_width((1024, 2048)) == 46
    assert boundary_width((5, 5)) == 1


def test_edges_count_more_than_in_iou():
    truth = np.zeros((300, 400), np.uint8)
    truth[50:250, 100:300] = 1
    prediction = np.roll(truth, 5, axis=1)
    # Of class 1: a ring of 10 pixels within a square of 200, moved by 5.
    ring = 200**2 - 180**2
    # Shared: tops and bottoms less 5 columns, and between them half of each side.
    shared = 2 * 10 * 195 + 2 * 5 * 180
    assert scores_of((truth, prediction)).iou[1] == pytest.approx(100 * shared / (2 * ring - shared))


def test_a_prediction_that_is_right_wherever_it_is_judged_has_all():
    truth = blobs(3, (90, 120))
    prediction = np.where(truth == IGNORE, blobs(4, (90, 120)) % CLASSES, truth).astype(np.uint8)
    assert (truth == IGNORE).any()
    scores = scores_of((truth, prediction))
    assert scores.miou == 100


def test_the_ignored_value_need_not_be_255():
    truth, prediction = pair(5, (72, 96))
    renamed = np.where(truth == IGNORE, 9, truth).astype(np.uint8)
    assert scores_of((renamed, prediction), ignore=9) == scores_of((truth, prediction))


def test_classes_that_occur_nowhere_are_left_out():
    truth = np.zeros((20, 20), np.uint8)
    prediction = truth.copy()
    prediction[5:9, 5:9] = 2
    scores = scores_of((truth, prediction))
    assert math.isnan(scores.iou[1])
    assert scores.iou[2] == 0
    assert scores.miou == pytest.approx((scores.iou[0] + 0) / 2)


def test_nothing_judged_is_not_a_score():
    nothing = np.full((8, 8), IGNORE, np.uint8)
    assert math.isnan(scores_of((nothing, np.zeros_like(nothing))).miou)
