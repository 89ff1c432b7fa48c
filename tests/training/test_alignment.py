"""Distribution alignment against its formula in NumPy float64, and in a method."""

import numpy as np
import pytest
import torch
from test_methods import batch, make

from segkc_deploy.errors import ConfigError
from segkc_deploy.training.terms.alignment import DistributionAlignment

N, C, H, W = 2, 4, 6, 8
IGNORED = 255


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def test_probabilities_are_multiplied_by_the_ratio_of_the_shares() -> None:
    """In float64: four batches count equally, later ones by the momentum; ignored and padded pixels do not count."""
    rng, momentum = np.random.default_rng(3), 0.75
    alignment = DistributionAlignment(C, momentum)
    labeled, predicted = np.zeros(C), np.zeros(C)
    for number in range(1, 8):
        masks = rng.choice([0, 1, 2, 3, IGNORED], p=[0.4, 0.3, 0.15, 0.05, 0.1], size=(N, H, W))
        logits, valid = rng.normal(size=(N, C, H, W)) + np.array([1.0, 0, 0, -1])[:, None, None], rng.random((N, H, W))
        alignment.update(
            torch.from_numpy(masks), torch.from_numpy(logits.astype(np.float32)), torch.from_numpy(valid < 0.7)
        )
        share = max(1 / number, 1 - momentum)
        counts = np.bincount(masks[masks != IGNORED], minlength=C)
        labeled += share * (counts / counts.sum() - labeled)
        predicted += share * (softmax(logits).transpose(0, 2, 3, 1)[valid < 0.7].mean(axis=0) - predicted)
    ratio = labeled / predicted
    assert (ratio < 1).any() and (ratio > 1).any()
    aligned = softmax(logits) * np.clip(ratio, 0.5, 2)[:, None, None]
    got = alignment(torch.from_numpy(logits)).softmax(dim=1)
    np.testing.assert_allclose(got, aligned / aligned.sum(axis=1, keepdims=True), rtol=1e-4)


@pytest.mark.parametrize(("labeled", "factor"), [(0, 2.0), (1, 0.5)])
def test_no_class_is_changed_more_than_twice(labeled: int, factor: float) -> None:
    """A class that is everything in the labels and nearly nothing in the predictions, and the reverse."""
    alignment = DistributionAlignment(2, 0.9)
    logits = torch.tensor([-8.0, 8.0]).view(1, 2, 1, 1)
    alignment.update(torch.full((1, 1, 1), labeled), logits, torch.ones(1, 1, 1, dtype=torch.bool))
    moved = (alignment(logits) - logits).exp().flatten().tolist()
    assert moved[0] == pytest.approx(factor if labeled == 0 else 0.5)
    assert all(0.5 - 1e-6 <= value <= 2 + 1e-6 for value in moved)


def test_pixels_are_counted_beyond_16_million() -> None:
    """FP32 cannot add one to 2^24."""
    alignment, pixels = DistributionAlignment(2, 0.9), 2**24
    mask = torch.zeros(1, 1, pixels + pixels // 2, dtype=torch.int64)
    mask[..., : pixels // 4] = 1
    alignment.update(mask, torch.zeros(1, 2, 1, 1), torch.ones(1, 1, 1, dtype=torch.bool))
    assert alignment.labeled.tolist() == pytest.approx([5 / 6, 1 / 6], rel=1e-6)


def test_a_batch_without_pixels_that_count_changes_nothing() -> None:
    """Such as one whose labels are all ignored, or whose weak views are padding alone."""
    alignment, valid = DistributionAlignment(2, 0.9), torch.ones(1, 2, 2, dtype=torch.bool)
    logits = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    mask = torch.tensor([[[0, 1], [1, 1]]])
    alignment.update(mask, logits, valid)
    before = {name: value.clone() for name, value in alignment.state_dict().items()}
    for _ in range(20):
        alignment.update(torch.full_like(mask, IGNORED), logits, ~valid)
    for name, value in alignment.state_dict().items():
        torch.testing.assert_close(value, before[name])
    alignment.update(torch.full_like(mask, IGNORED), logits, valid)
    assert (alignment.labeled_batches.item(), alignment.predicted_batches.item()) == (1, 2)
    assert alignment.labeled.tolist() == [0.25, 0.75]


def test_crops_that_are_drawn_for_rare_classes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"rare_class_crops.*align_distribution"):
        make("fixmatch", recipe={"weak": {"rare_class_crops": 0.5}}, align_distribution=True)


def test_before_any_batch_nothing_changes() -> None:
    logits = torch.randn(N, C, H, W)
    torch.testing.assert_close(DistributionAlignment(C, 0.9)(logits), logits)


@pytest.mark.parametrize("name", ["fixmatch", "cps", "segkc"])
def test_pseudo_labels_follow_the_labels_shares(name: str) -> None:
    """Teachers that see two classes alike give the one that the labels have, once they have seen labels."""
    senior = {} if name == "fixmatch" else {"senior": {"backbone": "resnet10t", "decoder_channels": 8}}
    method = make(name, senior.get("senior"), align_distribution=True)
    data = batch()
    data.labeled["mask"][:] = 1
    assert set(method.alignments.keys()) == set(method.teacher_of.values())  # type: ignore[operator]
    before = method._teacher_output(data.unlabeled["weak"])  # type: ignore[index, operator]
    method(data, 0)
    after = method._teacher_output(data.unlabeled["weak"])  # type: ignore[index, operator]
    given = [sum(int((labels.classes == 1).sum()) for labels in found.labels.values()) for found in (before, after)]
    assert given[1] > given[0]
    for role in method.teacher_of:
        torch.testing.assert_close(after.logits[role], before.logits[role])
    assert any("alignments" in key for key in method.state_dict())


def test_bf16_logits_keep_small_changes() -> None:
    """BF16 has nothing between 8.9375 and 9."""
    alignment = DistributionAlignment(2, 0.9)
    alignment.update(
        torch.tensor([0, 1] * 50).view(1, 10, 10),
        torch.tensor([0.02, 0.0]).view(1, 2, 1, 1).expand(1, 2, 10, 10),
        torch.ones(1, 10, 10, dtype=torch.bool),
    )
    logits = torch.tensor([9.0, 8.75]).view(1, 2, 1, 1)
    expected = alignment(logits)
    assert not torch.equal(expected, logits)
    torch.testing.assert_close(alignment(logits.bfloat16()), expected)
