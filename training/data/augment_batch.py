"""Strong views of a whole batch at once, on the device of its images: what `augment.strong_view` does to each.

On a GPU this takes the larger part of their work from the processes that load images. Values are rounded to whole gray
levels wherever OpenCV rounds them, so that both make the same views but for single levels.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from segkc_deploy.training.data.augment import LUMA, StrongDraw

_CONTRAST, _SATURATION, _HUE = 1, 2, 3
#: No other tensor of a batch has it.
DRAW_DTYPE = torch.float64
#: OpenCV keeps the whole circle of hues in one byte.
_HUES = 256


def packed(draw: StrongDraw) -> Tensor:
    """Return a draw as float64 (10,), for `make_strong_views`."""
    order = draw.order or (-1,) * len(draw.amounts)
    return torch.tensor([*order, *draw.amounts, draw.grayscale, draw.blur_sigma], dtype=DRAW_DTYPE)


def make_strong_views(images: Tensor, draws: Tensor) -> Tensor:
    """Return strong views, float (N, 3, H, W) from 0 to 1.

    Args:
        images: weak views, uint8 (N, H, W, 3) RGB, on any device.
        draws: what changes each, float64 (N, 10) as `packed` makes them, on the CPU: nothing waits for the device.
    """
    values = images.permute(0, 3, 1, 2).float()
    order, amounts = draws[:, :4], draws[:, 4:8]
    for position in range(order.shape[1]):
        change = order[:, position].long()
        amount = amounts.gather(1, change.clamp(min=0)[:, None])[:, 0]
        values = _blended(values, change, amount)
        turned = change == _HUE
        values = _changed(values, turned, partial(_with_turned_hue, steps=torch.round(amount[turned] * _HUES)))
    gray = draws[:, 8] > 0
    if bool(gray.any()):
        values = _blended(values, torch.where(gray, _SATURATION, -1), torch.zeros(len(gray)))
    sigma = draws[:, 9]
    values = _changed(values, sigma > 0, partial(_blurred, sigmas=sigma[sigma > 0].tolist()))
    return values / 255


def _changed(values: Tensor, chosen: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Change the images that are `chosen`, bool (N,) on the CPU."""
    if not bool(chosen.any()):
        return values
    rows = _to(values, torch.nonzero(chosen)[:, 0])
    return values.index_copy(0, rows, change(values[rows]))


def _to(values: Tensor, few: Tensor) -> Tensor:
    """Return a small tensor of the CPU on the device of `values`, floats as its type; nothing waits for the device."""
    dtype = values.dtype if few.is_floating_point() else few.dtype
    return few.to(values.device, dtype, non_blocking=True)


def _blended(values: Tensor, change: Tensor, amount: Tensor) -> Tensor:
    """Blend images with black (brightness), their mean gray (contrast) or their own gray (saturation).

    `change` (N,) says with which; any other number leaves an image as it is.
    """
    factor = torch.where((change >= 0) & (change < _HUE), amount, 1.0)
    rest = torch.stack([factor, (1 - factor) * (change == _CONTRAST), (1 - factor) * (change == _SATURATION)])
    own, of_mean, of_gray = _to(values, rest)[..., None, None, None]
    gray = (values * _to(values, torch.from_numpy(LUMA))[:, None, None]).sum(dim=1, keepdim=True)
    blend = own * values + of_mean * gray.mean(dim=(2, 3), keepdim=True) + of_gray * gray
    return blend.round().clamp(0, 255)


def _with_turned_hue(values: Tensor, steps: Tensor) -> Tensor:
    """Turn hues by `steps` (N,) of 256, through 8 bits of hue and saturation as OpenCV does."""
    red, green, blue = values.unbind(dim=1)
    largest = values.amax(dim=1)
    spread = largest - values.amin(dim=1)
    sector = torch.where(largest == green, blue - red + 2 * spread, red - green + 4 * spread)
    sector = torch.where(largest == red, green - blue, sector)
    hue = torch.floor(sector * (_HUES / 6) / spread.clamp(min=1) + 0.5) + _to(values, steps)[:, None, None]
    hue = hue % _HUES * (6 / (_HUES - 1))  # OpenCV's way back takes the last of the 256 hues for the first one again
    saturation = torch.floor(255 * spread / largest.clamp(min=1) + 0.5) / 255
    # How far each channel is below the largest one, by how far its own hue is away.
    offsets = _to(values, torch.tensor([5.0, 3.0, 1.0]))
    place = (hue[:, None] + offsets[:, None, None]) % 6
    share = torch.minimum(place, 4 - place).clamp(0, 1)
    return (largest[:, None] * (1 - saturation[:, None] * share)).round()


def _blurred(values: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Blur each image by a Gaussian of its own sigma, cut off where OpenCV cuts it off."""
    reaches = [(round(6 * sigma + 1) | 1) // 2 for sigma in sigmas]
    widest = max(reaches)
    offsets = torch.arange(-widest, widest + 1, dtype=torch.float64)
    kernels = torch.exp(-(offsets**2) / (2 * torch.tensor(sigmas, dtype=torch.float64)[:, None] ** 2))
    kernels = kernels * (offsets.abs() <= torch.tensor(reaches)[:, None])
    kernels = kernels / kernels.sum(dim=1, keepdim=True)
    kernels = _to(values, kernels).repeat_interleave(values.shape[1], dim=0)
    # A group for each channel of each image, as each has a kernel of its own.
    flat = values.reshape(1, -1, *values.shape[2:])
    for dim, kernel in ((2, kernels[:, None, :, None]), (3, kernels[:, None, None, :])):
        flat = flat.index_select(dim, _to(flat, _mirrored(flat.shape[dim], widest)))
        flat = F.conv2d(flat, kernel, groups=len(kernel))
    return flat.view_as(values).round().clamp(0, 255)


def _mirrored(length: int, reach: int) -> Tensor:
    """Return the pixels along a side with `reach` further ones on both ends, mirrored without repeating the border."""
    period = max(2 * (length - 1), 1)
    places = torch.arange(-reach, length + reach).abs() % period
    return torch.minimum(places, period - places).clamp(max=length - 1)
