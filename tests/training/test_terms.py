"""OHEM, relation distillation, thresholds and complementary dropout against their formulas in NumPy float64."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from segkc_deploy.training.terms.complementary_dropout import complementary_dropout
from segkc_deploy.training.terms.losses import PseudoLabels, log_softened, ohem_loss, pseudo_label_loss, pseudo_labels
from segkc_deploy.training.terms.relation import relation_loss
from segkc_deploy.training.terms.threshold import FixedThreshold, SoftWeights, weights_by

N, C, H, W = 2, 4, 6, 8


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def cross_entropies(logits: np.ndarray, mask: np.ndarray) -> np.ndarray:
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -np.take_along_axis(log_p, mask[:, None], axis=1)[:, 0]


@pytest.mark.parametrize("min_pixels", [1, 30, 70, 10_000])
def test_ohem_keeps_the_hard_pixels(rng: np.random.Generator, min_pixels: int) -> None:
    logits, mask = 3 * rng.normal(size=(N, C, H, W)), rng.integers(0, C, (N, H, W))
    counted = rng.random((N, H, W)) < 0.8
    losses = cross_entropies(logits, mask)[counted]
    probability = np.sort(np.exp(-losses))
    limit = max(0.4, probability[min(min_pixels, len(probability)) - 1])
    expected = losses[np.exp(-losses) <= limit * (1 + 1e-12)].mean()
    mask[~counted] = 255
    got = ohem_loss(torch.from_numpy(logits), torch.from_numpy(mask), 255, 0.4, min_pixels)
    assert got.item() == pytest.approx(expected, rel=1e-5)


def test_ohem_is_zero_where_nothing_counts() -> None:
    logits = torch.randn(1, C, H, W, requires_grad=True)
    loss = ohem_loss(logits, torch.full((1, H, W), 255), 255, 0.7, 10)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_pseudo_label_loss_may_divide_by_the_confident_pixels(rng: np.random.Generator) -> None:
    logits, labels = rng.normal(size=(N, C, H, W)), rng.integers(0, C, (N, H, W))
    confident, ignored = rng.random((N, H, W)) < 0.4, rng.random((N, H, W)) < 0.2
    expected = cross_entropies(logits, labels)[confident & ~ignored].mean()
    tensors = (torch.from_numpy(array) for array in (labels, confident, ignored))
    log_probability = log_softened(torch.from_numpy(logits))
    assert pseudo_label_loss(log_probability, *tensors, average="confident").item() == pytest.approx(expected, rel=1e-6)


def test_relation_loss_compares_gram_matrices_of_pooled_cells(rng: np.random.Generator) -> None:
    values, target = rng.normal(size=(N, C, H, W)), rng.normal(size=(N, C, H, W))
    ignored = np.zeros((N, 4 * H, 4 * W), dtype=bool)
    ignored[1, :, : 2 * W] = True  # the left half of the second image is padding

    def gram(maps: np.ndarray) -> np.ndarray:
        cells = maps.reshape(C, 2, 3, 2, 4).mean(axis=(2, 4)).reshape(C, 4)
        cells = cells / np.linalg.norm(cells, axis=0)
        return cells.T @ cells

    total, pairs = 0.0, 0
    for image in range(N):
        kept = [cell for cell in range(4) if image == 0 or cell % 2 == 1]
        difference = (gram(values[image]) - gram(target[image]))[np.ix_(kept, kept)]
        total, pairs = total + (difference**2).sum(), pairs + difference.size
    learner, teacher = torch.from_numpy(values).requires_grad_(), torch.from_numpy(target).requires_grad_()
    loss = relation_loss(learner, teacher, torch.from_numpy(ignored), grid=2)
    assert loss.item() == pytest.approx(total / pairs, rel=1e-5)
    loss.backward()
    assert learner.grad is not None
    assert learner.grad.any()
    assert teacher.grad is None


def test_relations_keep_their_precision_under_autocast(rng: np.random.Generator) -> None:
    """Views that differ by a thousandth: products in bfloat16 would be wrong by more than the whole loss."""
    values = torch.from_numpy(rng.normal(size=(1, 16, 8, 8)).astype(np.float32))
    target = values + 1e-3 * torch.from_numpy(rng.normal(size=(1, 16, 8, 8)).astype(np.float32))
    ignored = torch.zeros(1, 8, 8, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = relation_loss(values, target, ignored, grid=8)
    assert got.item() == pytest.approx(relation_loss(values, target, ignored, grid=8).item(), rel=1e-6)


class LargestTensor(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):  # type: ignore[no-untyped-def]
        result = function(*arguments, **(keywords or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return result


def test_memory_of_the_relation_loss_does_not_grow_with_the_image() -> None:
    """1 x 1024 x 1024 relations at most, where 128 x 128 cells would be 16,384 squared: 256 times as many."""
    largest = []
    for side in (32, 128):
        maps, ignored = torch.rand(1, 4, side, side), torch.zeros(1, side, side, dtype=torch.bool)
        with LargestTensor() as seen:
            relation_loss(maps, maps, ignored, grid=32)
        largest.append(seen.numbers)
    assert largest == [1024 * 1024] * 2


def labels_of(classes: Tensor, confidence: Tensor, runners_up: Tensor | None = None) -> PseudoLabels:
    """Labels of which each is its own runner-up, unless others are given."""
    return PseudoLabels(classes, confidence, classes if runners_up is None else runners_up)


def test_a_threshold_is_reached_by_equality() -> None:
    labels = labels_of(torch.tensor([[[0, 1, 2]]]), torch.tensor([[[0.5, 0.49, 0.9]]]))
    assert FixedThreshold(0.5, 3)(labels).tolist() == [[[1, 0, 1]]]
    assert FixedThreshold([0.5, 0.4, 0.95], 3)(labels).tolist() == [[[1, 1, 0]]]


@pytest.mark.parametrize("runner_up", [False, True])
def test_soft_weights_follow_mean_and_variance_of_a_class(rng: np.random.Generator, runner_up: bool) -> None:
    """In float64: three batches count equally, later ones by the momentum; class 2 is never given."""
    momentum, soft = 0.75, SoftWeights(3, momentum=0.75, runner_up=runner_up)
    shape = (2, 7, 9)
    mean, variance = np.zeros(2), np.zeros(2)
    for batch in range(1, 7):
        labels, valid = rng.integers(0, 2, shape), rng.random(shape) < 0.7
        confidence = rng.random(shape) ** (1 + labels) * 0.9
        given_labels = labels_of(torch.from_numpy(labels), torch.from_numpy(confidence.astype(np.float32)))
        soft.update(given_labels, torch.from_numpy(valid))
        share = max(1 / batch, 1 - momentum)
        for label in (0, 1):
            given = confidence[valid & (labels == label)]
            mean[label] += share * (given.mean() - mean[label])
            variance[label] += share * (given.var() - variance[label])
    assert mean[1] < mean[0]
    runners_up = rng.integers(0, 3, shape)
    reference = np.maximum(labels, runners_up == 1) if runner_up else labels  # class 1 where it is one of the two
    below = np.minimum(confidence - mean[reference], 0)
    expected = np.exp(-(below**2) / (2 * variance[reference] / 4))
    got = soft(given_labels._replace(runners_up=torch.from_numpy(runners_up))).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-7)
    assert 0 < (expected < 1).mean() < 1
    never_given = torch.full((1, 1, 1), 2)
    assert soft(labels_of(never_given, torch.rand(1, 1, 1))).item() == 1
    assert (soft(labels_of(never_given, torch.zeros(1, 1, 1), never_given - 1)).item() < 1) == runner_up
    assert soft.state_dict().keys() == {"mean", "variance", "batches"}


def test_statistics_of_a_million_pixels_keep_their_digits(rng: np.random.Generator) -> None:
    """As a batch of 16 crops of 518 has them of one class: sums in FP32 make 0.9885 of a mean of 0.98."""
    soft, confidence = SoftWeights(2, momentum=0.9), rng.uniform(0.97, 0.99, (1, 1000, 1000)).astype(np.float32)
    classes = torch.zeros(confidence.shape, dtype=torch.int64)
    soft.update(labels_of(classes, torch.from_numpy(confidence)), torch.ones_like(classes, dtype=torch.bool))
    exact = confidence.astype(np.float64)
    assert soft.mean[0].item() == pytest.approx(exact.mean(), rel=1e-6)
    assert soft.variance[0].item() == pytest.approx(exact.var(), rel=1e-5)


def test_both_sides_of_a_border_count_alike() -> None:
    """Between a common and a rare class, labels of one confidence have one weight, whichever of the two they give."""
    soft = weights_by("soft-pair", 2, momentum=0.9)
    classes = torch.tensor([0, 0, 1, 1])
    soft.update(labels_of(classes, torch.tensor([0.95, 0.99, 0.6, 0.8])), torch.ones(4, dtype=torch.bool))
    for confidence in (0.55, 0.65, 0.9):
        logits = torch.tensor([[confidence, 1 - confidence], [1 - confidence, confidence]]).log()[..., None, None]
        common, rare = soft(pseudo_labels(logits, soft.runner_up)).flatten().tolist()
        assert common == rare
    assert common == 1


def test_a_class_of_one_confidence_keeps_finite_weights() -> None:
    soft = SoftWeights(2, momentum=0.9)
    classes, confidence = torch.zeros(1, 2, 2, dtype=torch.int64), torch.full((1, 2, 2), 0.8)
    soft.update(labels_of(classes, confidence), torch.ones(1, 2, 2, dtype=torch.bool))
    assert soft(labels_of(classes, confidence)).tolist() == [[[1, 1], [1, 1]]]
    assert soft(labels_of(classes, confidence - 0.1)).max().item() == pytest.approx(0, abs=1e-6)


def test_complementary_dropout_shares_out_the_channels() -> None:
    torch.manual_seed(0)
    first = [torch.rand(6, 10, 2, 3) + 0.1, torch.rand(6, 10, 1, 1) + 0.1]
    second = [torch.rand(6, 10, 2, 3) + 0.1, torch.rand(6, 10, 1, 1) + 0.1]
    dropped_first, dropped_second = complementary_dropout(first, second)
    factors = [
        [d / f for d, f in zip(dropped, features, strict=True)]
        for dropped, features in ((dropped_first, first), (dropped_second, second))
    ]
    for level in (0, 1):
        torch.testing.assert_close(factors[0][level] + factors[1][level], torch.full_like(factors[0][level], 2.0))
        assert bool((factors[0][level] == factors[0][level][:, :, :1, :1]).all())  # whole channels
        assert torch.equal(factors[0][level][:, :, 0, 0], factors[0][0][:, :, 0, 0])  # one choice for equal widths
    whole = [bool((factors[0][0][image] == 1).all()) for image in range(6)]
    assert sum(whole) == 3
    values = factors[0][0][[image for image in range(6) if not whole[image]]].round(decimals=4).unique()
    assert values.tolist() == [0.0, 2.0]
