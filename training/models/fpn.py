"""Semantic FPN: a light decoder for hierarchical backbones (Kirillov et al. 2019, arXiv 1901.02446).

Chosen over DeepLabV3+ because a compact junior spends its budget in the decoder: FPN is 1x1 and 3x3 convolutions and
bilinear resizing alone (no dilation, which breaks Winograd and is slow on most engines), reads all four stages, and
costs about a third of an ASPP head at the same width.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class ConvNormReLU(nn.Sequential):
    """Convolution without bias, batch normalization, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )


class FPNDecoder(nn.Module):
    """Four feature maps, fine to coarse, to logits at the finest map's size.

    Args:
        in_channels: channels of the four maps.
        channels: width of the decoder.
        num_classes: number of classes.
    """

    align_corners = False

    def __init__(self, in_channels: Sequence[int], channels: int, num_classes: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(ConvNormReLU(channel, channels, 1) for channel in in_channels)
        self.smooth = nn.ModuleList(ConvNormReLU(channels, channels, 3) for _ in in_channels)
        self.fuse = ConvNormReLU(channels, channels, 3)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map features (N, in_channels[i], h_i, w_i) to logits (N, num_classes, h_0, w_0)."""
        path = self.lateral[-1](features[-1])
        levels = [self.smooth[-1](path)]
        for index in range(len(features) - 2, -1, -1):
            level = self.lateral[index](features[index])
            path = level + F.interpolate(path, level.shape[2:], mode="bilinear", align_corners=False)
            levels.append(self.smooth[index](path))
        size = levels[-1].shape[2:]
        # Not `sum()`: its start value 0 would leave an addition of zero in the exported graph.
        merged = levels[-1]
        for level in levels[:-1]:
            merged = merged + F.interpolate(level, size, mode="bilinear", align_corners=False)
        return self.classifier(self.fuse(merged))
