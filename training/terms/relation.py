"""Relation distillation: what the cells of an image have to do with each other should not depend on the view.

From SPEED (TCSVT 2024, 10.1109/TCSVT.2024.3375789). Public: global pixel relations, from the network's own predictions
on several views, at feature and at logit level, linearly combined. Gram matrices of pooled, normalized cells and their
mean squared difference are our reading. [R]
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from segkc_deploy.training.terms.losses import counted_cells


def relation_loss(values: Tensor, target: Tensor, ignored: Tensor, grid: int) -> Tensor:
    """Mean squared difference of two Gram matrices G = F Fᵀ, over pairs of cells; no gradient to the target.

    F holds the cells' channel-normalized vectors after pooling to at most `grid` cells per side, so that memory is
    bounded by N · grid⁴ numbers for any image size. Cells that are mostly padding take no part.

    Args:
        values, target: (N, C, h, w), both of the same view: features, or class probabilities.
        ignored: bool (N, H, W), true on padding; pooled to the same cells.
        grid: cells per side, at most.
    """
    size = (min(values.shape[2], grid), min(values.shape[3], grid))
    difference = (gram_matrix(values, size) - gram_matrix(target.detach(), size)).square()
    cells = counted_cells(ignored, *size).flatten(1)
    pairs = cells[:, :, None] * cells[:, None, :]
    return (difference * pairs).sum() / pairs.sum().clamp(min=1)


def gram_matrix(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the cosines (N, cells, cells) between the cells of (N, C, h, w), pooled to `size` (height, width)."""
    # Cosines of one cell differ little between views: half precision would leave rounding instead of a gradient.
    with torch.autocast(values.device.type, enabled=False):
        cells = F.adaptive_avg_pool2d(values.float(), size).flatten(2)
        normalized = F.normalize(cells, dim=1)
        return torch.bmm(normalized.transpose(1, 2), normalized)
