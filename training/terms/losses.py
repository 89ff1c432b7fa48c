"""The loss terms that methods are made of. Logits are (N, C, H, W); masks of classes (N, H, W); results are scalars."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, mask: Tensor, ignore_index: int) -> Tensor:
    """Mean cross-entropy over the pixels whose class is not `ignore_index`; zero where there is none."""
    return negative_log_likelihood(log_softened(logits), mask, ignore_index)


def negative_log_likelihood(log_probability: Tensor, mask: Tensor, ignore_index: int) -> Tensor:
    """`cross_entropy` of logits whose log-probabilities (N, C, H, W) are at hand."""
    total = F.nll_loss(log_probability, mask, ignore_index=ignore_index, reduction="sum")
    return total / (mask != ignore_index).sum().clamp(min=1)


def ohem_loss(logits: Tensor, mask: Tensor, ignore_index: int, threshold: float, min_pixels: int) -> Tensor:
    """Mean cross-entropy over the hard pixels alone (online hard example mining, Shrivastava et al. 2016).

    Hard are the pixels whose true class has a probability of at most `threshold`, or of at most that of the
    `min_pixels`-th hardest pixel of the batch, whichever is more; with fewer valid pixels than that it is all of them.
    """
    valid = mask != ignore_index
    per_pixel = F.cross_entropy(logits.float(), mask, ignore_index=ignore_index, reduction="none")
    # exp(-cross-entropy) is the true class's probability; ignored pixels are the easiest.
    probability = torch.where(valid, torch.exp(-per_pixel.detach()), 1.0).flatten()
    enough = probability.kthvalue(min(min_pixels, len(probability))).values.clamp(min=threshold)
    hard = valid & (probability.view_as(mask) <= enough)
    return (per_pixel * hard).sum() / hard.sum().clamp(min=1)


def pseudo_label_loss(
    log_probability: Tensor, labels: Tensor, weights: Tensor, ignored: Tensor, average: Literal["valid", "confident"]
) -> Tensor:
    """Cross-entropy against pseudo-labels, weighted, summed, and divided by a number of pixels.

    Dividing by all valid pixels, not by the confident ones, keeps few confident pixels from shouting (FixMatch,
    arXiv 2001.07685; UniMatch V2).

    Args:
        log_probability: (N, C, H, W), `log_softened` logits.
        labels: int64 (N, H, W), classes given by the teacher.
        weights: (N, H, W), from 0 to 1, how much each label counts.
        ignored: bool (N, H, W), true on padding.
        average: divide by the number of pixels that are not ignored (`valid`), or by the sum of their weights
            (`confident`).
    """
    per_pixel = F.nll_loss(log_probability, labels, reduction="none")
    valid = (~ignored).to(per_pixel.dtype)
    counted = weights * valid
    if average == "valid":
        return (per_pixel * counted).sum() / valid.sum().clamp(min=1)
    return (per_pixel * counted).sum() / counted.sum().clamp(min=1)


class PseudoLabels(NamedTuple):
    """What a teacher gives each pixel, in tensors of one shape.

    Int64 `classes`, their `confidence` from 0 to 1, and int64 `runners_up`, the second most probable classes, where
    they were asked for.
    """

    classes: Tensor
    confidence: Tensor
    runners_up: Tensor | None = None


def pseudo_labels(logits: Tensor, runners_up: bool = False) -> PseudoLabels:
    """Return the most probable class and its probability, (N, H, W) each, without gradient.

    Args:
        logits: (N, C, H, W), of at least two classes.
        runners_up: find the next class too, which takes a copy of the logits.
    """
    logits = logits.detach().float()
    confidence, classes = logits.softmax(dim=1).max(dim=1)
    if not runners_up:
        return PseudoLabels(classes, confidence)
    return PseudoLabels(classes, confidence, logits.scatter(1, classes[:, None], -torch.inf).argmax(dim=1))


def feature_distillation(
    projected: Sequence[Tensor], targets: Sequence[Tensor], ignored: Tensor, distance: Literal["cosine", "mse"]
) -> Tensor:
    """Sum over levels of the mean distance between each cell's projected and target vectors; no gradient to targets.

    Args:
        projected: per level (N, D, h, w), the learning network's features projected to the target's width.
        targets: per level (N, D, h', w'); resized bilinearly where the grids differ.
        ignored: bool (N, H, W), pixels that do not count; cells that are mostly of them take no part.
        distance: 1 - cos of the two vectors, or their mean squared difference.
    """
    loss = projected[0].new_zeros((), dtype=torch.float32)
    for source, target in zip(projected, targets, strict=True):
        target = resize_like(target.detach(), source)
        if distance == "mse":
            distances = (source.float() - target.float()).square().mean(dim=1)
        else:
            distances = 1 - F.cosine_similarity(source.float(), target.float(), dim=1)
        cells = counted_cells(ignored, distances.shape[1], distances.shape[2])
        loss = loss + (distances * cells).sum() / cells.sum().clamp(min=1)
    return loss


def counted_cells(ignored: Tensor, height: int, width: int) -> Tensor:
    """Return 1 for each cell of a coarser grid, (N, height, width), of whose pixels more than half count, else 0."""
    return (F.adaptive_avg_pool2d((~ignored)[:, None].float(), (height, width))[:, 0] > 0.5).float()


def prediction_distillation(logits: Tensor, target_logits: Tensor, temperature: float, ignored: Tensor) -> Tensor:
    """T² KL(softmax(target / T) ‖ softmax(logits / T)), mean over valid pixels; no gradient to the target.

    Hinton et al. 2015 (arXiv 1503.02531); the factor T² keeps the gradient's size independent of T.
    """
    log_probability, log_target = (log_softened(values, temperature) for values in (logits, target_logits))
    return divergence(log_probability, log_target, temperature, ignored)


def log_softened(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return log softmax(logits / T) in FP32, (N, C, H, W)."""
    logits = logits.float()
    return F.log_softmax(logits if temperature == 1 else logits / temperature, dim=1)


def divergence(log_probability: Tensor, log_target: Tensor, temperature: float, ignored: Tensor) -> Tensor:
    """`prediction_distillation` of two `log_softened` predictions, where both are at hand."""
    log_target = log_target.detach()
    # As F.kl_div, whose backward pass would take the exponential a second time.
    divergences = (log_target.exp() * (log_target - log_probability)).sum(dim=1)
    valid = ~ignored
    return temperature**2 * (divergences * valid).sum() / valid.sum().clamp(min=1)


def resize_like(features: Tensor, reference: Tensor) -> Tensor:
    """Resize (N, C, h, w) to the reference's grid, bilinearly; the same tensor where it has that grid already."""
    if features.shape[2:] == reference.shape[2:]:
        return features
    return F.interpolate(features, reference.shape[2:], mode="bilinear", align_corners=False)
