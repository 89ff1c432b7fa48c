"""A ViT's positions computed inside the graph, for graphs whose height and width are free.

Two things in timm are in the way. An absolute position embedding is resampled by an antialiased bicubic resize, which
TensorRT refuses (Resize with antialias), and by a branch on the sizes, which ties height to width when it is traced.
The same interpolation is two matrix products, whose matrices are made from the sizes by elementwise formulas that every
engine has; so is DINOv2's own way of resampling (`training.models.positions`), which is not antialiased and leaves the
embedding alone at the size it was made for. A rotary embedding (DINOv3, EVA02) divides by `float(size)`, which writes
the traced size into the graph as a constant, silently.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from timm.layers import pos_embed_sincos
from timm.models import deit, eva, vision_transformer
from torch import Tensor

from segkc_deploy.training.models import positions

#: The cubic convolution's parameter in PyTorch's and Pillow's antialiased bicubic resize (Keys), and in the plain one.
_CUBIC = -0.5
_PLAIN_CUBIC = -0.75


@contextmanager
def free_positions() -> Iterator[None]:
    """Within the block, timm's ViTs can be traced with a free height and width."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(pos_embed_sincos, "float", _float, create=True))
        for module in (vision_transformer, eva, deit):
            stack.enter_context(patch.object(module, "resample_abs_pos_embed", resample))
        stack.enter_context(patch.object(positions, "resample_as_dinov2", resample_as_dinov2))
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
    rows, columns = (_weights(new, old, posemb) for new, old in zip(new_size, old_size, strict=True))
    return _multiplied(posemb, rows, columns, num_prefix_tokens)


def resample_as_dinov2(
    posemb: Tensor, new_size: list[int], old_size: tuple[int, int], num_prefix_tokens: int = 1
) -> Tensor:
    """Resample as `training.models.positions.resample_as_dinov2` does, without resizing or branching."""
    indices = [torch.arange(new, device=posemb.device, dtype=torch.float32) for new in new_size]
    is_other = [(_length(index) - old).abs().clamp(max=1) for index, old in zip(indices, old_size, strict=True)]
    # Zero at the embedding's own size: there the matrices below are those of the identity.
    offset = positions.OFFSET * torch.maximum(*is_other)
    rows, columns = (_plain_weights(index, old, offset) for index, old in zip(indices, old_size, strict=True))
    return _multiplied(posemb, rows, columns, num_prefix_tokens)


def _multiplied(posemb: Tensor, rows: Tensor, columns: Tensor, num_prefix_tokens: int) -> Tensor:
    """Apply the matrices (new height, old height) and (new width, old width) to the grid of an embedding."""
    prefix, grid = posemb[:, :num_prefix_tokens], posemb[:, num_prefix_tokens:]
    channels = posemb.shape[-1]
    new_rows = rows @ grid.reshape(rows.shape[1], columns.shape[1] * channels)
    cells = columns @ new_rows.reshape(rows.shape[0], columns.shape[1], channels)
    return torch.cat([prefix, cells.reshape(1, -1, channels)], dim=1)


def _weights(new: int, old: int, like: Tensor) -> Tensor:
    """Return the matrix (new, old) of antialiased cubic interpolation along one axis."""
    targets = torch.arange(new, device=like.device, dtype=torch.float32)
    sources = torch.arange(old, device=like.device, dtype=torch.float32)
    scale = old / _length(targets)
    distance = (sources[None, :] + 0.5 - (targets[:, None] + 0.5) * scale) / scale.clamp(min=1)
    weights = _cubic(distance.abs(), _CUBIC)
    return weights / weights.sum(dim=1, keepdim=True)


def _plain_weights(targets: Tensor, old: int, offset: Tensor) -> Tensor:
    """Return the matrix (new, old) of plain cubic interpolation by the scale (new + offset) / old."""
    # Two cells beyond either edge, which repeat it.
    sources = torch.arange(-2, old + 2, device=targets.device, dtype=torch.float32)
    centers = (targets + 0.5) * (old / (_length(targets) + offset)) - 0.5
    weights = _cubic((sources[None, :] - centers[:, None]).abs(), _PLAIN_CUBIC)
    edges = [weights[:, part].sum(dim=1, keepdim=True) for part in (slice(3), slice(-3, None))]
    return torch.cat([edges[0], weights[:, 3:-3], edges[1]], dim=1)


def _length(indices: Tensor) -> Tensor:
    """Return the length of 0, 1, 2, … as a tensor: a symbolic size cannot enter float arithmetic while traced."""
    return indices.amax(dim=0) + 1


def _float(value: Any) -> Any:
    """Stand in for `float`, which turns a symbolic size into the number that it has while traced."""
    if isinstance(value, torch.SymInt):
        return _length(torch.arange(value, dtype=torch.float32))
    return float(value)


def _cubic(x: Tensor, parameter: float) -> Tensor:
    """The cubic convolution kernel at distances x >= 0: zero from 2 on."""
    near = ((parameter + 2) * x - (parameter + 3)) * x * x + 1
    far = ((parameter * x - 5 * parameter) * x + 8 * parameter) * x - 4 * parameter
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
