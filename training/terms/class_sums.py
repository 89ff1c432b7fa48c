"""Sums over the pixels of each class."""

import torch
from torch import Tensor


def class_sums(classes: Tensor, values: Tensor, num_classes: int) -> Tensor:
    """Return, in FP64, the sum of `values` over the pixels of each class.

    A batch gives a class millions of pixels: in FP32 their sums would lose digits, and counting by ones ends at 2^24.
    Each row of pixels is summed up by itself first, since the threads of a GPU that add to one number wait for each
    other. Nothing here makes the host wait for the device.

    Args:
        classes: int64, any shape; class ids from 0 to `num_classes` - 1.
        values: of the same shape; what does not count is 0.
        num_classes: number of classes.

    Returns:
        (num_classes,) float64.
    """
    rows = classes.reshape(-1, classes.shape[-1])
    sums = torch.zeros(len(rows), num_classes, dtype=torch.float64, device=classes.device)
    return sums.scatter_add_(1, rows, values.reshape(rows.shape).double()).sum(dim=0)
