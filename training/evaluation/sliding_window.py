"""Scores of a whole image from windows that slide over it: how Cityscapes is evaluated in published protocols."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from segkc_deploy.tiles import window_starts


def summed_probabilities(
    network: Callable[[Tensor], Tensor], image: Tensor, window: tuple[int, int], stride: tuple[int, int]
) -> Iterator[Tensor]:
    """Yield for each pixel the sum, over the windows that show it, of the softmax of the network's logits.

    As UniMatch V2 evaluates (arXiv 2410.10777, its public code): plain sums, so a pixel that more windows show has a
    larger total; the class of the largest sum is the prediction. An image smaller than the window is padded right and
    below with black, as training crops are, and what is predicted there is dropped.

    Args:
        network: from images (1, 3, *window) to logits (1, C, *window).
        image: (1, 3, H, W), values from 0 to 1.
        window, stride: (height, width) in pixels.

    Yields:
        float32 (1, C, rows, W), from the top to the bottom, as soon as no further window shows the rows: the sums of a
        large image, all classes at once, may not fit into a GPU's memory.
    """
    height, width = image.shape[2:]
    image = F.pad(image, (0, max(window[1] - width, 0), 0, max(window[0] - height, 0)))
    tops = window_starts(image.shape[2], window[0], stride[0])
    band: Tensor | None = None
    for top, following in zip(tops, [*tops[1:], image.shape[2]], strict=True):
        for left in window_starts(image.shape[3], window[1], stride[1]):
            columns = slice(left, left + window[1])
            probabilities = network(image[:, :, top : top + window[0], columns]).float().softmax(dim=1)
            if band is None:
                band = torch.zeros(1, probabilities.shape[1], window[0], image.shape[3], device=image.device)
            band[:, :, :, columns] += probabilities
        assert band is not None
        finished = following - top
        yield band[:, :, : min(finished, height - top), :width]
        band = F.pad(band[:, :, finished:], (0, 0, 0, finished))
