"""EntropyMix: two views of one image become a third, patch by patch, by the entropy of their predictions.

From SPEED (TCSVT 2024, 10.1109/TCSVT.2024.3375789). Public: patches of multi-view augmentations are combined into new
samples by their prediction entropy. The regular grid, the mean entropy of a patch's valid pixels, and that by default
the patch of higher entropy is taken, so that learning goes where the network is unsure, is our reading. [R]
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def patches_by_entropy(
    entropies: tuple[Tensor, Tensor], ignored: tuple[Tensor, Tensor], grid: int, select: Literal["high", "low"]
) -> Tensor:
    """Choose for each patch the view of higher (or lower) mean entropy; bool (N, H, W), true where it is the first.

    Args:
        entropies: per view (N, H, W), the entropy of its prediction at each pixel, in nats.
        ignored: per view bool (N, H, W), pixels that count for nothing; a patch of them alone has entropy 0.
        grid: patches per side.
        select: which one wins; of equal ones the first view's.
    """
    rows, columns = (patch_of(side, grid, entropies[0].device) for side in entropies[0].shape[1:])
    first, second = (
        patch_means(entropy, ~skipped, rows, columns, grid) for entropy, skipped in zip(entropies, ignored, strict=True)
    )
    chosen = first >= second if select == "high" else first <= second
    return chosen[:, rows][:, :, columns]


def random_patches(count: int, size: tuple[int, int], grid: int, device: torch.device | None = None) -> Tensor:
    """Choose for each patch of `count` images one of two views by chance; bool (count, H, W) on `device`.

    Uses torch's global generator on the CPU, whose state a checkpoint holds.
    """
    rows, columns = (patch_of(side, grid, device) for side in size)
    chosen = torch.rand(count, *(min(grid, side) for side in size)) < 0.5
    chosen = chosen.to(device, non_blocking=True)
    return chosen[:, rows][:, :, columns]


def patch_of(length: int, grid: int, device: torch.device | None = None) -> Tensor:
    """Return for each of `length` pixels along a side the patch, 0 to `grid` - 1, that it lies in."""
    return torch.arange(length, device=device) * min(grid, length) // length


def patch_means(values: Tensor, valid: Tensor, rows: Tensor, columns: Tensor, grid: int) -> Tensor:
    """Return the mean of `values` (N, H, W) over each patch's valid pixels, (N, rows, columns); 0 where none is.

    `rows` and `columns` are what `patch_of` returns for the sides and `grid`.
    """
    row_members = F.one_hot(rows, min(grid, len(rows))).to(values.dtype)
    column_members = F.one_hot(columns, min(grid, len(columns))).to(values.dtype)

    def sums(pixels: Tensor) -> Tensor:
        return row_members.T @ pixels @ column_members

    # In half precision sums of many pixels are rounded until patches tie, or overflow.
    with torch.autocast(values.device.type, enabled=False):
        return sums(values * valid) / sums(valid.to(values.dtype)).clamp(min=1)


def prediction_entropy(logits: Tensor) -> Tensor:
    """Return -Σ p log p over the classes, (N, H, W) in nats, of logits (N, C, H, W); without gradient."""
    log_probability = logits.detach().float().log_softmax(dim=1)
    return -(log_probability.exp() * log_probability).sum(dim=1)
