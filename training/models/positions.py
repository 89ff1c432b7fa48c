"""A ViT's position embedding resampled as DINOv2's own code does, for networks that were trained with that code.

timm resamples with antialiasing and Keys' -0.5 kernel, DINOv2 (and with it UniMatch V2) with PyTorch's plain bicubic
one, whose coefficient is -0.75, and by a scale with 0.1 added to the grid's sides. At the grid that the embedding was
made for, both leave it as it is; elsewhere logits differ visibly. DINOv2's variants with registers use timm's way.
"""

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from segkc_deploy.errors import ConfigError

#: Added to both sides of the wanted grid before the scale is computed, against rounding to one cell less.
OFFSET = 0.1


class DINOv2Positions(VisionTransformer):
    """timm's ViT with a class token, whose positions are resampled by `resample_as_dinov2`."""

    def _pos_embed(self, x: Tensor) -> Tensor:
        if not self.dynamic_img_size:
            return super()._pos_embed(x)
        assert self.pos_embed is not None and self.cls_token is not None
        batch, height, width, _ = x.shape
        positions = resample_as_dinov2(self.pos_embed, [height, width], self.patch_embed.grid_size, 1)
        tokens = torch.cat([self.cls_token.expand(batch, -1, -1), x.flatten(1, 2)], dim=1)
        return self.pos_drop(tokens + positions)


def use_dinov2_positions(network: VisionTransformer) -> None:
    """Make a ViT of timm's resample its positions as DINOv2 does, from now on.

    Raises:
        ConfigError: it is not a plain ViT with a class token and no registers.
    """
    fits = type(network) is VisionTransformer and network.pos_embed is not None and not network.no_embed_class
    if not fits or network.num_prefix_tokens != 1 or network.cls_token is None:
        raise ConfigError(
            "positions: dinov2 is for ViTs with a learned position embedding, a class token and no registers,"
            " such as vit_small_patch14_dinov2; leave it out"
        )
    # timm makes its networks by name and offers no other way to a class of one's own.
    network.__class__ = DINOv2Positions


def resample_as_dinov2(
    posemb: Tensor, new_size: list[int], old_size: tuple[int, int], num_prefix_tokens: int = 1
) -> Tensor:
    """Return `posemb` (1, prefix + old height * old width, C) for a grid of `new_size` (height, width)."""
    if tuple(new_size) == tuple(old_size):
        return posemb
    prefix, grid = posemb[:, :num_prefix_tokens], posemb[:, num_prefix_tokens:]
    channels = posemb.shape[-1]
    grid = grid.float().reshape(1, *old_size, channels).permute(0, 3, 1, 2)
    scale = [(new + OFFSET) / old for new, old in zip(new_size, old_size, strict=True)]
    resampled = F.interpolate(grid, scale_factor=scale, mode="bicubic")
    assert list(resampled.shape[2:]) == list(new_size)
    return torch.cat([prefix, resampled.permute(0, 2, 3, 1).reshape(1, -1, channels).to(prefix.dtype)], dim=1)
