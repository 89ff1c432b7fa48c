"""A training step of one network, written the straightforward way, as published code of UniMatch V2 takes it.

FP32, a forward pass for labeled images and one for the strong views, AdamW and EMA as the first example in PyTorch's
documentation has them. What a step of this package is timed against.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from segkc_deploy.training.methods.base import Batch

_THRESHOLD, _DECAY, _IGNORED = 0.95, 0.996, 255


def plain_step(network: nn.Module, average: nn.Module, batch: Batch) -> Callable[[int], None]:
    """Return a function that takes one step on `batch`.

    Args:
        network: from images to logits; it learns.
        average: its EMA, the teacher on the weak view.
        batch: with two strong views.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)
    labeled, unlabeled = batch.labeled, batch.unlabeled
    assert unlabeled is not None

    def step(number: int) -> None:
        with torch.no_grad():
            confidence, label = average(unlabeled["weak"]).softmax(dim=1).max(dim=1)
        logits = network(labeled["image"])
        views = network(torch.cat([unlabeled["strong_1"], unlabeled["strong_2"]])).chunk(2)
        loss = F.cross_entropy(logits, labeled["mask"], ignore_index=_IGNORED)
        valid = ~unlabeled["ignored"]
        counted = (confidence >= _THRESHOLD) & valid
        for view in views:
            of_view = (F.cross_entropy(view, label, reduction="none") * counted).sum() / valid.sum()
            loss = loss + of_view / len(views)
        optimizer.zero_grad()
        (loss / 2).backward()
        optimizer.step()
        with torch.no_grad():
            for old, new in zip(average.parameters(), network.parameters(), strict=True):
                old.copy_(old * _DECAY + new * (1 - _DECAY))
        loss.item()

    return step
