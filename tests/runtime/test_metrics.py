import math

import numpy as np
import pytest

from segkc_deploy.errors import DataError
from segkc_deploy.metrics import ConfusionMatrix

CLASSES, IGNORE = 5, 255


def random_masks(seed, shape=(40, 50), classes=CLASSES):
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, classes, shape, dtype=np.uint8)
    truth[generator.random(shape) < 0.1] = IGNORE
    prediction = np.where(generator.random(shape) < 0.6, truth, generator.integers(0, classes, shape)).astype(np.uint8)
    prediction[truth == IGNORE] = generator.integers(0, 256, (truth == IGNORE).sum())
    return truth, prediction


def scores_of(*pairs, classes=CLASSES):
    matrix = ConfusionMatrix(classes, IGNORE)
    for truth, prediction in pairs:
        matrix.update(truth, prediction)
    return matrix.scores()


def iou_from_sets(pairs, class_id):
    """Return the IoU in percent from sets of pixel coordinates, or NaN."""
    true, predicted = set(), set()
    for index, (truth, prediction) in enumerate(pairs):
        counted = truth != IGNORE
        true |= {(index, *where) for where in np.argwhere(counted & (truth == class_id)).tolist()}
        predicted |= {(index, *where) for where in np.argwhere(counted & (prediction == class_id)).tolist()}
    return 100 * len(true & predicted) / len(true | predicted) if true | predicted else math.nan


def test_iou_is_that_of_pixel_sets_over_all_images():
    pairs = [random_masks(0), random_masks(1, shape=(7, 90)), random_masks(2, shape=(1, 1))]
    scores = scores_of(*pairs)
    expected = [iou_from_sets(pairs, class_id) for class_id in range(CLASSES)]
    np.testing.assert_allclose(scores.iou, expected, rtol=1e-12)
    assert scores.miou == pytest.approx(sum(expected) / CLASSES, rel=1e-12)


def test_pixel_accuracy_is_the_share_of_counted_pixels_that_agree():
    truth, prediction = random_masks(3)
    scores = scores_of((truth, prediction))
    counted = [(t, p) for t, p in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True) if t != IGNORE]
    assert scores.pixels == len(counted)
    assert scores.pixel_accuracy == pytest.approx(100 * sum(t == p for t, p in counted) / len(counted), rel=1e-12)


def test_precision_and_recall_are_those_of_counted_pixels():
    truth, prediction = random_masks(3)
    scores = scores_of((truth, prediction))
    counted = [(t, p) for t, p in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True) if t != IGNORE]
    for class_id in range(CLASSES):
        found = [t for t, p in counted if p == class_id]
        there = [p for t, p in counted if t == class_id]
        assert scores.precision[class_id] == pytest.approx(100 * found.count(class_id) / len(found), rel=1e-12)
        assert scores.recall[class_id] == pytest.approx(100 * there.count(class_id) / len(there), rel=1e-12)
    assert scores.precision != scores.recall


def test_agrees_with_torchmetrics():
    torch = pytest.importorskip("torch", reason="compares with torchmetrics, which needs torch")
    classification = pytest.importorskip("torchmetrics.classification", reason="compares with torchmetrics")
    pairs = [random_masks(seed) for seed in range(3)]
    reference = classification.MulticlassJaccardIndex(CLASSES, average="none", ignore_index=IGNORE)
    mean = classification.MulticlassJaccardIndex(CLASSES, average="macro", ignore_index=IGNORE)
    for truth, prediction in pairs:
        prediction = np.where(truth == IGNORE, 0, prediction)  # torchmetrics refuses other values there
        for metric in (reference, mean):
            metric.update(torch.from_numpy(prediction).long(), torch.from_numpy(truth).long())
    np.testing.assert_allclose(scores_of(*pairs).iou, 100 * reference.compute().double().numpy(), rtol=1e-6)
    assert scores_of(*pairs).miou == pytest.approx(100 * mean.compute().item(), rel=1e-6)


def test_a_class_that_occurs_nowhere_is_left_out_and_one_only_predicted_counts_as_zero():
    truth = np.array([[0, 0, 1, 1]], dtype=np.uint8)
    prediction = np.array([[0, 0, 1, 2]], dtype=np.uint8)
    scores = scores_of((truth, prediction), classes=4)
    assert scores.iou[:3] == (100.0, 50.0, 0.0)
    assert math.isnan(scores.iou[3])
    assert scores.precision[:3] == (100.0, 100.0, 0.0)
    assert scores.recall[:2] == (100.0, 50.0)
    assert [math.isnan(value) for value in (scores.precision[3], *scores.recall[2:])] == [True] * 3
    assert scores.miou == 50.0
    assert scores.pixel_accuracy == 75.0


def test_nothing_counted_is_not_a_score():
    everything_ignored = np.full((4, 4), IGNORE, dtype=np.uint8)
    scores = scores_of((everything_ignored, np.zeros_like(everything_ignored)))
    assert scores.pixels == 0
    assert math.isnan(scores.miou)
    assert math.isnan(scores.pixel_accuracy)


def test_adding_matrices_is_counting_all_images():
    first, second = random_masks(4), random_masks(5)
    matrices = [ConfusionMatrix(CLASSES, IGNORE) for _ in range(2)]
    for matrix, pair in zip(matrices, (first, second), strict=True):
        matrix.update(*pair)
    assert (matrices[0] + matrices[1]).scores() == scores_of(first, second)


def test_255_classes_fit():
    truth = np.arange(255, dtype=np.uint8)[None]
    scores = scores_of((truth, truth), classes=255)
    assert scores.miou == 100.0
    assert scores.pixels == 255


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.uint8([[0, 7]]), np.uint8([[0, 0]]), "the truth holds the value(s) 7"),
        (np.uint8([[0, 0]]), np.uint8([[0, 255]]), "the prediction holds the value(s) 255"),
        (np.uint8([[0, 0]]), np.uint8([[0], [0]]), "shape"),
        (np.int64([[0, 0]]), np.uint8([[0, 0]]), "uint8"),
    ],
)
def test_masks_that_cannot_be_counted_are_refused(truth, prediction, message):
    matrix = ConfusionMatrix(CLASSES, IGNORE)
    with pytest.raises(DataError) as refused:
        matrix.update(truth, prediction)
    assert message in str(refused.value)
    assert matrix.counts.sum() == 0
