"""Each loss against its formula in NumPy float64."""

from typing import Literal

import numpy as np
import pytest
import torch

from segkc_deploy.training.terms.losses import (
    cross_entropy,
    feature_distillation,
    log_softened,
    prediction_distillation,
    pseudo_label_loss,
    pseudo_labels,
)

N, C, H, W = 2, 5, 6, 7


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def per_pixel_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return -np.take_along_axis(log_softmax(logits), labels[:, None], axis=1)[:, 0]


def test_cross_entropy_is_the_mean_over_pixels_that_count(rng: np.random.Generator) -> None:
    logits, mask = rng.normal(size=(N, C, H, W)), rng.integers(0, C, (N, H, W))
    counted = rng.random((N, H, W)) < 0.7
    expected = per_pixel_cross_entropy(logits, mask)[counted].mean()
    mask[~counted] = 255
    got = cross_entropy(torch.from_numpy(logits), torch.from_numpy(mask), 255)
    assert got.item() == pytest.approx(expected, rel=1e-6)


def test_cross_entropy_is_zero_where_nothing_counts() -> None:
    logits = torch.randn(1, C, H, W, requires_grad=True)
    loss = cross_entropy(logits, torch.full((1, H, W), 255), 255)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


def test_pseudo_label_loss_divides_by_valid_pixels_not_by_their_weights(rng: np.random.Generator) -> None:
    logits, labels = rng.normal(size=(N, C, H, W)), rng.integers(0, C, (N, H, W))
    weights, ignored = rng.random((N, H, W)).round(1), rng.random((N, H, W)) < 0.2
    losses = per_pixel_cross_entropy(logits, labels)
    expected = (losses * weights)[~ignored].sum() / (~ignored).sum()
    tensors = (torch.from_numpy(array) for array in (labels, weights, ignored))
    log_probability = log_softened(torch.from_numpy(logits))
    assert pseudo_label_loss(log_probability, *tensors, average="valid").item() == pytest.approx(expected, rel=1e-6)


def test_pseudo_labels_are_the_most_probable_classes_without_gradient(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(N, C, H, W))
    classes, confidence, runners_up = pseudo_labels(torch.from_numpy(logits).requires_grad_(), runners_up=True)
    probability = np.exp(log_softmax(logits))
    by_rank = probability.argsort(axis=1)
    np.testing.assert_array_equal(classes.numpy(), by_rank[:, -1])
    assert runners_up is not None
    np.testing.assert_array_equal(runners_up.numpy(), by_rank[:, -2])
    np.testing.assert_allclose(confidence.numpy(), probability.max(axis=1), rtol=1e-6)
    assert not confidence.requires_grad


@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_feature_distillation_sums_levels_and_stops_the_targets_gradient(
    rng: np.random.Generator, distance: Literal["cosine", "mse"]
) -> None:
    sources = [rng.normal(size=(N, 4, 3, 3)), rng.normal(size=(N, 6, 2, 2))]
    targets = [rng.normal(size=(N, 4, 3, 3)), rng.normal(size=(N, 6, 2, 2))]
    expected = 0.0
    for source, target in zip(sources, targets, strict=True):
        if distance == "mse":
            expected += ((source - target) ** 2).mean()
            continue
        norms = np.linalg.norm(source, axis=1) * np.linalg.norm(target, axis=1)
        expected += (1 - (source * target).sum(axis=1) / norms).mean()
    tensors = [torch.from_numpy(array).requires_grad_() for array in sources]
    fixed = [torch.from_numpy(array).requires_grad_() for array in targets]
    loss = feature_distillation(tensors, fixed, torch.zeros(N, 12, 12, dtype=torch.bool), distance)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    assert all(tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in tensors)
    assert all(tensor.grad is None for tensor in fixed)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_prediction_distillation_is_the_scaled_divergence(rng: np.random.Generator, temperature: float) -> None:
    logits, target = rng.normal(size=(N, C, H, W)), rng.normal(size=(N, C, H, W))
    ignored = rng.random((N, H, W)) < 0.3
    log_p, log_q = log_softmax(logits / temperature), log_softmax(target / temperature)
    divergence = (np.exp(log_q) * (log_q - log_p)).sum(axis=1)
    expected = temperature**2 * divergence[~ignored].mean()
    learner, teacher = torch.from_numpy(logits).requires_grad_(), torch.from_numpy(target).requires_grad_()
    loss = prediction_distillation(learner, teacher, temperature, torch.from_numpy(ignored))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert learner.grad is not None
    assert teacher.grad is None


def test_feature_distillation_leaves_padding_out(rng: np.random.Generator) -> None:
    source, target = rng.normal(size=(N, 4, 3, 4)), rng.normal(size=(N, 4, 3, 4))
    ignored = np.zeros((N, 12, 16), dtype=bool)
    ignored[0, :, 6:] = True  # columns of cells 2 and 3, and half of column 1
    cosines = (source * target).sum(axis=1) / (np.linalg.norm(source, axis=1) * np.linalg.norm(target, axis=1))
    kept = np.ones((N, 3, 4), dtype=bool)
    kept[0, :, 1:] = False
    got = feature_distillation(
        [torch.from_numpy(source)], [torch.from_numpy(target)], torch.from_numpy(ignored), "cosine"
    )
    assert got.item() == pytest.approx((1 - cosines)[kept].mean(), rel=1e-5)
    nothing = feature_distillation(
        [torch.from_numpy(source)], [torch.from_numpy(target)], torch.ones(N, 12, 16, dtype=torch.bool), "cosine"
    )
    assert nothing.item() == 0
