"""Scores of networks in training: each rank counts its share of the validation images."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from lightning.fabric import Fabric

from segkc_deploy.data.masks import read_sample
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.evaluation import ReadSample, count_pixels, scores_of


def shared_miou(
    predictors: Mapping[str, Callable[[np.ndarray], np.ndarray]],
    sets: ImageSets,
    fabric: Fabric,
    read: ReadSample = read_sample,
) -> dict[str, float]:
    """Return each network's mIoU (percent) over all validation images, the same on every rank, however many there are.

    Args:
        predictors: by name, from an image, uint8 (H, W, 3), to its mask, uint8 (H, W).
        sets: with validation images.
        fabric: the launched one; all its ranks have to call this.
        read: gives what `read_sample` does.

    Raises:
        DataError: an image or mask cannot be used, or no mask has a labeled pixel.
    """
    own = sets.val[fabric.global_rank :: fabric.world_size]
    totals, _ = count_pixels(list(predictors.values()), sets, own, "validating", read=read)
    of_this_rank = torch.from_numpy(np.stack([total.counts for total in totals])).to(fabric.device)
    counts = fabric.all_reduce(of_this_rank, reduce_op="sum")
    assert isinstance(counts, torch.Tensor)
    for total, of_all_ranks in zip(totals, counts.cpu().numpy(), strict=True):
        total.counts = of_all_ranks
    return {name: scores_of(total, sets).miou for name, total in zip(predictors, totals, strict=True)}
