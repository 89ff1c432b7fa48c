"""A ViT's positions computed inside the graph, for graphs whose height and width are free.

Two things in timm are in the way. An absolute position embedding is resampled by an antialiased bicubic resize, which
TensorRT refuses (Resize with antialias), and by a branch on the sizes, which ties height to width when it is traced.
The same interpolation is two matrix products, whose matrices are made from the sizes by elementwise formulas that every
engine has. A rotary embedding (DINOv3, EVA02) divides by `float(size)`, which writes the traced size into the graph as
a constant, silently.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from timm.layers import pos_embed_sincos
from timm.models import deit, eva, vision_transformer
from torch import Tensor

#: Keys' cubic convolution parameter, as in PyTorch's and Pillow's antialiased bicubic resize.
_CUBIC = -0.5


@contextmanager
def free_positions() -> Iterator[None]:
    """Within the block, timm's ViTs can be traced with a free height and width."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(pos_embed_sincos, "float", _float, create=True))
        for module in (vision_transformer, eva, deit):
            stack.enter_context(patch.object(module, "resample_abs_pos_embed", resample))
        yield


def resample(posemb: Tensor, new_size: list[int], old_size: list[int], num_prefix_tokens: int = 1, **_: Any) -> Tensor:
    """Resample a position embedding as timm's `resample_abs_pos_embed` does, without resizing or branching.

    Args:
        posemb: (1, prefix + old height * old width, C).
        new_size: (height, width) of the grid of patches wanted; may be symbolic.
        old_size: that of `posemb`.
        num_prefix_tokens: leading tokens that belong to no patch and stay as they are.

    Returns:
        (1, prefix + height * width, C).
    """
    prefix, grid = posemb[:, :num_prefix_tokens], posemb[:, num_prefix_tokens:]
    channels = posemb.shape[-1]
    rows = _weights(new_size[0], old_size[0], posemb) @ grid.reshape(old_size[0], old_size[1] * channels)
    cells = _weights(new_size[1], old_size[1], posemb) @ rows.reshape(new_size[0], old_size[1], channels)
    return torch.cat([prefix, cells.reshape(1, -1, channels)], dim=1)


def _weights(new: int, old: int, like: Tensor) -> Tensor:
    """Return the matrix (new, old) of antialiased cubic interpolation along one axis."""
    targets = torch.arange(new, device=like.device, dtype=torch.float32)
    sources = torch.arange(old, device=like.device, dtype=torch.float32)
    scale = old / _length(targets)
    distance = (sources[None, :] + 0.5 - (targets[:, None] + 0.5) * scale) / scale.clamp(min=1)
    weights = _cubic(distance.abs())
    return weights / weights.sum(dim=1, keepdim=True)


def _length(indices: Tensor) -> Tensor:
    """Return the length of 0, 1, 2, … as a tensor: a symbolic size cannot enter float arithmetic while traced."""
    return indices.amax(dim=0) + 1


def _float(value: Any) -> Any:
    """Stand in for `float`, which turns a symbolic size into the number that it has while traced."""
    if isinstance(value, torch.SymInt):
        return _length(torch.arange(value, dtype=torch.float32))
    return float(value)


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic kernel at distances x >= 0: zero from 2 on."""
    near = ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
    far = ((_CUBIC * x - 5 * _CUBIC) * x + 8 * _CUBIC) * x - 4 * _CUBIC
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
