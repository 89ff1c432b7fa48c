"""CutMix between the images of a batch (Yun et al. 2019, arXiv 1905.04899; French et al. 2020 for segmentation)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from segkc_deploy.training.recipe import StrongAugmentation

_ATTEMPTS = 100


def cutmix_boxes(
    count: int, size: tuple[int, int], config: StrongAugmentation, device: torch.device | None = None
) -> Tensor:
    """Draw one box for each of `count` images and return them as bool masks (count, H, W) on `device`, true inside.

    With probability 1 - `cutmix_probability` a mask is empty. As in UniMatch's code (arXiv 2208.09910), the box's area
    is uniform in `cutmix_area` (share of the image); its ratio of height to width, uniform in `cutmix_ratio`, and its
    corner, anywhere in the image, are drawn until it fits. In an image that is much longer than wide, few ratios do:
    areas are then no larger than what one of them allows, and after 100 attempts the ratio is drawn from those that
    fit. Uses torch's global generator on the CPU, whose state a checkpoint holds.
    """
    height, width = size
    least_ratio, most_ratio = config.cutmix_ratio
    least_area, most_area = config.cutmix_area
    most_area = min(most_area, height / width / least_ratio, width / height * most_ratio)
    boxes = torch.zeros(4, count, dtype=torch.int64)
    for index in range(count):
        if torch.rand(()).item() >= config.cutmix_probability:
            continue
        area = _uniform(min(least_area, most_area), most_area) * height * width
        for _ in range(_ATTEMPTS):
            ratio = _uniform(*config.cutmix_ratio)
            box_height, box_width = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
            top, left = (int(torch.randint(side, ()).item()) for side in (height, width))
            if min(box_height, box_width) > 0 and top + box_height <= height and left + box_width <= width:
                break
        else:
            ratio = _uniform(max(least_ratio, area / width**2), min(most_ratio, height**2 / area))
            box_height = min(max(round((area * ratio) ** 0.5), 1), height)
            box_width = min(max(round((area / ratio) ** 0.5), 1), width)
            top = int(torch.randint(height - box_height + 1, ()).item())
            left = int(torch.randint(width - box_width + 1, ()).item())
        boxes[:, index] = torch.tensor([top, top + box_height, left, left + box_width])
    # Corners instead of masks go to the device: they are few enough for the host not to wait for it.
    tops, bottoms, lefts, rights = boxes.to(device, non_blocking=True)[..., None]
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    return ((rows >= tops) & (rows < bottoms))[:, :, None] & ((columns >= lefts) & (columns < rights))[:, None]


def paste(values: Tensor, boxes: Tensor) -> Tensor:
    """Fill each image's box with the next image's content (the last one's with the first's).

    Args:
        values: (N, H, W) or (N, C, H, W): images, pseudo-labels, confidences or ignore masks alike; see `blend` for
            coarser grids.
        boxes: bool (N, H, W).
    """
    return blend(values.roll(-1, dims=0), values, boxes)


def blend(inside: Tensor, outside: Tensor, mask: Tensor) -> Tensor:
    """Take `inside` where `mask` (bool, (N, H, W)) is true and `outside` elsewhere.

    Both are (N, …, H, W), or floats on a coarser grid, whose cells are mixed by the share of the cell that is true.
    """
    if inside.shape[-2:] == mask.shape[-2:]:
        return torch.where(mask if inside.ndim == 3 else mask[:, None], inside, outside)
    share = F.adaptive_avg_pool2d(mask[:, None].to(inside.dtype), (inside.shape[-2], inside.shape[-1]))
    return torch.lerp(outside, inside, share if inside.ndim == 4 else share[:, 0])


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()
