"""Losses for classes that fill few pixels: focal, Dice and Lovász. Logits are (N, C, H, W), masks (N, H, W)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def weighted_cross_entropy(
    logits: Tensor, mask: Tensor, ignore_index: int, class_weights: Tensor, focal_gamma: float = 0.0
) -> Tensor:
    """Mean cross-entropy over the pixels that are not ignored, each weighted by its class; zero where there is none.

    Σ w_y (1 - p_y)^γ (-log p_y) / Σ w_y, with p_y the probability of the true class y. γ = 0 is weighted
    cross-entropy, γ > 0 the focal loss (Lin et al. 2017, arXiv 1708.02002, equation 5).

    Args:
        logits: (N, C, H, W).
        mask: int64 (N, H, W).
        ignore_index: the value of pixels that do not count.
        class_weights: float (C,).
        focal_gamma: how much less pixels count that are right already.
    """
    valid = mask != ignore_index
    per_pixel = F.cross_entropy(logits.float(), mask, ignore_index=ignore_index, reduction="none")
    weights = class_weights[torch.where(valid, mask, 0)] * valid
    total = weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
    if focal_gamma > 0:
        # exp(-cross-entropy) is the true class's probability; rounding must not push it above 1.
        weights = weights * (1 - torch.exp(-per_pixel)).clamp(min=0) ** focal_gamma
    return (per_pixel * weights).sum() / total


def dice_loss(logits: Tensor, mask: Tensor, ignore_index: int, smooth: float = 1.0) -> Tensor:
    """1 - the mean Dice coefficient of the classes in the batch's masks; zero where there is none.

    For each class (2 Σ p g + s) / (Σ p + Σ g + s) over the batch's pixels that are not ignored, with p the softmax
    probability, g 1 where the class is true, and s = `smooth` (Milletari et al. 2016, arXiv 1606.04797, without its
    squares).
    """
    probability, target = _flat(logits, mask, ignore_index)
    overlap = (probability * target).sum(dim=0)
    sizes = probability.sum(dim=0) + target.sum(dim=0)
    present = target.sum(dim=0) > 0
    losses = 1 - (2 * overlap + smooth) / (sizes + smooth)
    return (losses * present).sum() / present.sum().clamp(min=1)


def lovasz_loss(logits: Tensor, mask: Tensor, ignore_index: int) -> Tensor:
    """The Lovász extension of 1 - IoU, averaged over the classes in the batch's masks; zero where there is none.

    Lovász-softmax (Berman et al. 2018, arXiv 1705.08790, equations 8 and 9 and algorithm 1), over the whole batch.
    """
    probability, target = _flat(logits, mask, ignore_index)
    # Asked once for all classes: on a GPU every question waits for the device.
    present = target.any(dim=0).nonzero().flatten().tolist()
    losses = [_lovasz_of_class(probability[:, index], target[:, index]) for index in present]
    return torch.stack(losses).mean() if losses else logits.float().sum() * 0


def _lovasz_of_class(probability: Tensor, target: Tensor) -> Tensor:
    errors, order = (target - probability).abs().sort(descending=True)
    sorted_target = target[order]
    intersection = sorted_target.sum() - sorted_target.cumsum(0)
    union = sorted_target.sum() + (1 - sorted_target).cumsum(0)
    jaccard = 1 - intersection / union
    gradient = torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
    return errors @ gradient


def _flat(logits: Tensor, mask: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return the softmax (P, C) and the one-hot truth (P, C) of the pixels that are not ignored."""
    classes = logits.shape[1]
    valid = mask != ignore_index
    probability = logits.float().softmax(dim=1).permute(0, 2, 3, 1)[valid]
    return probability, F.one_hot(mask[valid], classes).to(probability.dtype)
