"""Complementary dropout of UniMatch V2 (arXiv 2410.10777): two views keep complementary halves of the channels."""

from collections.abc import Sequence

import torch
from torch import Tensor


def complementary_dropout(first: Sequence[Tensor], second: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Drop channels of the feature maps of two views of the same N images, and double those that are kept.

    Of a channel that the first view loses the second has the double, and the other way round. As published, half of
    the images (rounded down) are left whole in both views, and maps of equal width share one choice: a plain ViT's
    four maps lose the same channels. Uses torch's global generator on the CPU, whose state a checkpoint holds.

    Args:
        first, second: per level (N, C, h, w).
    """
    count = len(first[0])
    whole = torch.randperm(count)[: count // 2]
    factors: dict[int, Tensor] = {}
    for feature in first:
        if feature.shape[1] not in factors:
            factor = 2.0 * torch.randint(0, 2, (count, feature.shape[1], 1, 1)).to(feature.dtype)
            factor[whole] = 1.0
            factors[feature.shape[1]] = factor.to(feature.device)
    return (
        [feature * factors[feature.shape[1]] for feature in first],
        [feature * (2.0 - factors[feature.shape[1]]) for feature in second],
    )
