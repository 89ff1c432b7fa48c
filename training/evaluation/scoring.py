"""Scores of networks in training: each rank counts its share of the validation images."""

from collections.abc import Callable

import numpy as np
import torch
from lightning.fabric import Fabric

from segkc_deploy.data.masks import read_sample
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.evaluation import ReadSample, count_pixels, scores_of


def shared_miou(
    predict: Callable[[np.ndarray], np.ndarray],
    sets: ImageSets,
    fabric: Fabric,
    description: str,
    read: ReadSample = read_sample,
) -> float:
    """Return the mIoU (percent) over all validation images, the same on every rank and however many there are.

    Args:
        predict: from an image, uint8 (H, W, 3), to its mask, uint8 (H, W).
        sets: with validation images.
        fabric: the launched one; all its ranks have to call this.
        description: what the progress bar says.
        read: gives what `read_sample` does.

    Raises:
        DataError: an image or mask cannot be used, or no mask has a labeled pixel.
    """
    own = sets.val[fabric.global_rank :: fabric.world_size]
    total, _ = count_pixels(predict, sets, own, description, read=read)
    counts = fabric.all_reduce(torch.from_numpy(total.counts).to(fabric.device), reduce_op="sum")
    assert isinstance(counts, torch.Tensor)
    total.counts = counts.cpu().numpy()
    return scores_of(total, sets).miou
