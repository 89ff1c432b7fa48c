"""Bootstrap intervals of mIoU: how often they hold the truth, and that pairs share their images."""

import numpy as np
import pytest

from segkc_deploy.benchmarks.measure.miou_interval import miou_difference, miou_interval
from segkc_deploy.benchmarks.store.masks import read_counts, save_counts
from segkc_deploy.metrics import ConfusionMatrix, ImageCounts

CLASSES, IMAGES, DRAWS = 4, 60, 200
#: Of 200 draws an interval that holds the truth in 95% of them does so in 95% ± 4.6% (three standard deviations); the
#: percentile bootstrap of 60 images is a little narrow besides.
COVERED = (0.90, 0.99)


def draw(generator, right, images=IMAGES, alike=1):
    """Return counts of `images` images, each with its own share of right pixels around `right`; `alike` in a row share.

    The expected pixels of a class in an image: 300 in the truth, of which `right` are hit; as many again are predicted.
    """
    share = np.repeat(right + generator.uniform(-0.15, 0.15, (images // alike, CLASSES)), alike, axis=0)
    truth = 300 + generator.integers(-200, 201, (images // alike, CLASSES)).repeat(alike, axis=0)
    hits = np.floor(truth * share + generator.random(share.shape)).astype(np.int64)
    return ImageCounts(hits, 2 * truth - hits)


def true_miou(right):
    """mIoU of infinitely many images: each class has 300 * right hits of 300 * (2 - right) pixels."""
    return 100 * right / (2 - right)


def test_the_interval_holds_the_true_miou_in_95_percent_of_data_sets():
    generator = np.random.default_rng(7)
    intervals = np.array([miou_interval(draw(generator, 0.7)) for _ in range(DRAWS)])
    held = np.mean((intervals[:, 0] <= true_miou(0.7)) & (true_miou(0.7) <= intervals[:, 1]))
    assert COVERED[0] <= held <= COVERED[1]


def paired(generator):
    """Return two networks' counts on the same images, hard ones being hard for both; the second is worse by 0.02."""
    first = draw(generator, 0.7)
    truth = (first.union + first.intersection) // 2
    lost = np.floor(0.02 * truth + generator.uniform(-3, 3, truth.shape) + generator.random(truth.shape))
    hits = first.intersection - lost.astype(np.int64)
    return first, ImageCounts(hits, 2 * truth - hits)


def test_the_paired_interval_holds_the_true_difference_and_is_far_narrower_than_its_parts():
    generator = np.random.default_rng(8)
    expected = true_miou(0.7) - true_miou(0.68)
    held = 0
    for _ in range(DRAWS):
        first, second = paired(generator)
        difference = miou_difference(first, second)
        low, high = difference.interval
        held += low <= expected <= high
        alone = miou_interval(first)
        assert high - low < 0.5 * (alone[1] - alone[0])
    assert COVERED[0] <= held / DRAWS <= COVERED[1]


def test_frames_of_a_video_need_blocks():
    generator = np.random.default_rng(9)
    held = {1: 0, 5: 0}
    for _ in range(DRAWS):
        counts = draw(generator, 0.7, images=150, alike=5)
        for block in held:
            low, high = miou_interval(counts, block)
            held[block] += low <= true_miou(0.7) <= high
    assert held[1] / DRAWS < 0.7
    assert COVERED[0] <= held[5] / DRAWS <= COVERED[1]


def test_equal_masks_differ_by_nothing():
    counts = draw(np.random.default_rng(0), 0.6)
    difference = miou_difference(counts, ImageCounts(counts.intersection.copy(), counts.union.copy()))
    assert (difference.miou, difference.interval) == (0, (0, 0))


def test_figures_are_those_of_drawing_images_one_by_one():
    """The same draws, each counted in a confusion matrix; image 2 holds a class that the others do not."""
    generator = np.random.default_rng(3)
    masks = [generator.integers(0, 2, (2, 6, 6), dtype=np.uint8) for _ in range(5)]
    masks[2][:, 0, :3] = 2
    masks[4][0] = 255
    matrices = [ConfusionMatrix(CLASSES, 255) for _ in masks]
    for matrix, (truth, prediction) in zip(matrices, masks, strict=True):
        matrix.update(truth, prediction)
    hits, unions = zip(*(matrix.intersection_and_union() for matrix in matrices), strict=True)
    counts = ImageCounts(np.stack(hits), np.stack(unions))
    mious = []
    for places in np.random.default_rng(0).integers(0, 5, (2000, 5)):
        total = ConfusionMatrix(CLASSES, 255)
        for place in places:
            total += matrices[place]
        mious.append(total.scores().miou)
    assert miou_interval(counts) == pytest.approx(tuple(np.nanpercentile(mious, [2.5, 97.5])), rel=1e-12)
    whole = sum(matrices[1:], matrices[0]).scores().miou
    nothing_hit = ImageCounts(np.zeros_like(counts.union), counts.union)
    assert miou_difference(counts, nothing_hit).miou == pytest.approx(whole)


def test_blocks_keep_successive_images_together():
    """Four images, all right or all wrong: draws of two blocks hold the one, the other or both."""
    right_first = ImageCounts(np.array([[8], [8], [0], [0]]), np.full((4, 1), 8))
    assert miou_interval(right_first, block=2) == (0, 100)
    # The last block is shorter: three images of which two are right, or one that is wrong.
    assert miou_interval(right_first, block=3) == (0, pytest.approx(200 / 3))


def test_one_image_or_one_block_has_no_interval():
    counts = draw(np.random.default_rng(0), 0.6, images=3)
    one = ImageCounts(counts.intersection[:1], counts.union[:1])
    assert miou_interval(one) is None
    assert miou_interval(counts, block=3) is None
    difference = miou_difference(counts, one_worse(counts), block=5)
    assert difference.interval is None
    assert difference.miou > 0


def one_worse(counts):
    return ImageCounts(counts.intersection - 1, counts.union + 1)


def test_counts_are_kept(tmp_path):
    counts = draw(np.random.default_rng(0), 0.6)
    assert read_counts(tmp_path) is None
    save_counts(tmp_path, counts)
    read = read_counts(tmp_path)
    np.testing.assert_array_equal(read.intersection, counts.intersection)
    np.testing.assert_array_equal(read.union, counts.union)
