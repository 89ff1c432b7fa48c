"""DPT: a convolutional decoder for plain ViTs (Ranftl et al. 2021, arXiv 2103.13413).

The variant is the one of UniMatch V2 (arXiv 2410.10777): no batch normalization, patch tokens only. Modules are named
and shaped as in its published weights, so that those load key by key.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

#: Widths of the four levels for ViT-L and ViT-g; below, they are the embedding dimension / 8, / 4, / 2 and / 1.
_PUBLISHED_WIDTHS = {1024: (256, 512, 1024, 1024), 1536: (1536,) * 4}


class ResidualConvUnit(nn.Module):
    """x + conv(relu(conv(relu(x)))), 3x3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class FeatureFusionBlock(nn.Module):
    """Join the coarser path with a level, refine, and upsample (bilinear, corners aligned)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(channels, channels, 1)
        # The coarsest block joins no level and leaves resConfUnit1 unused; published weights hold it all the same.
        self.resConfUnit1 = ResidualConvUnit(channels)
        self.resConfUnit2 = ResidualConvUnit(channels)

    def forward(self, path: Tensor, level: Tensor | None, size: tuple[int, int]) -> Tensor:
        if level is not None:
            path = path + self.resConfUnit1(level)
        path = F.interpolate(self.resConfUnit2(path), size, mode="bilinear", align_corners=True)
        return self.out_conv(path)


class _Scratch(nn.Module):
    """Holds the fusion stages under the name that the published weights use."""

    def __init__(self, level_channels: Sequence[int], features: int, num_classes: int) -> None:
        super().__init__()
        for index, channels in enumerate(level_channels, start=1):
            self.add_module(f"layer{index}_rn", nn.Conv2d(channels, features, 3, padding=1, bias=False))
            self.add_module(f"refinenet{index}", FeatureFusionBlock(features))
        self.output_conv = nn.Sequential(
            nn.Conv2d(features, features, 3, padding=1), nn.ReLU(), nn.Conv2d(features, num_classes, 1)
        )


class DPTDecoder(nn.Module):
    """Four ViT feature maps to logits at 8 times the patch grid.

    Args:
        in_channels: the ViT's embedding dimension, by which the widths of the four levels are those published.
        features: width of the fusion path; 64 for ViT-S, 128 for ViT-B, 256 for ViT-L as published.
        num_classes: number of classes.
    """

    #: logits are upsampled with corners aligned, as in the published network
    align_corners = True

    def __init__(self, in_channels: int, features: int, num_classes: int) -> None:
        super().__init__()
        widths = _PUBLISHED_WIDTHS.get(in_channels) or tuple(max(in_channels // by, 1) for by in (8, 4, 2, 1))
        self.projects = nn.ModuleList(nn.Conv2d(in_channels, width, 1) for width in widths)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(widths[0], widths[0], 4, stride=4),
                nn.ConvTranspose2d(widths[1], widths[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(widths[3], widths[3], 3, stride=2, padding=1),
            ]
        )
        self.scratch = _Scratch(widths, features, num_classes)

    @property
    def classifier(self) -> nn.Conv2d:
        """The last layer, whose output channels are the classes."""
        layer = self.scratch.output_conv[2]
        assert isinstance(layer, nn.Conv2d)
        return layer

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map four maps (N, in_channels, h, w) to logits (N, num_classes, 8h, 8w)."""
        levels = []
        for index, feature in enumerate(features):
            level = self.resize_layers[index](self.projects[index](feature))
            levels.append(self.scratch.get_submodule(f"layer{index + 1}_rn")(level))
        path = self.scratch.get_submodule("refinenet4")(levels[3], None, levels[2].shape[2:])
        path = self.scratch.get_submodule("refinenet3")(path, levels[2], levels[1].shape[2:])
        path = self.scratch.get_submodule("refinenet2")(path, levels[1], levels[0].shape[2:])
        height, width = levels[0].shape[2:]
        path = self.scratch.get_submodule("refinenet1")(path, levels[0], (2 * height, 2 * width))
        return self.scratch.output_conv(path)
