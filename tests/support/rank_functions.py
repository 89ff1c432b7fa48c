"""What tests run in ranks: in a module of its own, since every spawned process imports it."""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from segkc_deploy.errors import DataError
from segkc_deploy.training.distributed import rank_fabric
from segkc_deploy.training.terms.alignment import DistributionAlignment
from segkc_deploy.training.terms.losses import PseudoLabels
from segkc_deploy.training.terms.threshold import SoftWeights


def fail_on_rank_1(path: Path) -> None:
    """Fail as the loading of an image does; rank 0 waits for rank 1 all the while."""
    fabric = rank_fabric("cpu", 2)
    if fabric.global_rank == 1:
        raise DataError(f"{path}: cannot be read")
    fabric.all_reduce(torch.zeros(1))


def kill_rank_1() -> None:
    """Die as a process does that the system kills; rank 0 waits for rank 1 all the while."""
    fabric = rank_fabric("cpu", 2)
    if fabric.global_rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    fabric.all_reduce(torch.zeros(1))


def return_before_the_last_operations_end() -> str:
    """Return while the process group's threads still hold tensors of Python's, which nothing here waits for."""
    rank_fabric("cpu", 2)
    for _ in range(3000):
        torch.distributed.all_reduce(torch.zeros(4), async_op=True)
    return "done"


@dataclass(frozen=True)
class LabeledBatch:
    """A step's true masks (N, H, W) and the teacher's logits (N, C, H, W), which count where `valid` (N, H, W)."""

    masks: Tensor
    logits: Tensor
    valid: Tensor

    def part(self, rank: int, ranks: int) -> "LabeledBatch":
        """Return the images of one rank."""
        return LabeledBatch(*(tensor.chunk(ranks)[rank] for tensor in (self.masks, self.logits, self.valid)))


def pseudo_label_statistics(batches: Sequence[LabeledBatch], classes: int) -> dict[str, list[float]]:
    """Return what soft weights and the distribution alignment have kept of `batches`."""
    soft, alignment = SoftWeights(classes, momentum=0.75), DistributionAlignment(classes, momentum=0.75)
    for batch in batches:
        confidence, given = batch.logits.softmax(dim=1).max(dim=1)
        soft.update(PseudoLabels(given, confidence), batch.valid)
        alignment.update(batch.masks, batch.logits, batch.valid)
    return {
        name: value.flatten().tolist() for module in (soft, alignment) for name, value in module.state_dict().items()
    }


def pseudo_label_statistics_of_ranks(batches: Sequence[LabeledBatch], classes: int) -> list[dict[str, list[float]]]:
    """Return what each of two ranks has kept, of which each has seen its part of every batch."""
    fabric = rank_fabric("cpu", 2)
    own = pseudo_label_statistics([batch.part(fabric.global_rank, 2) for batch in batches], classes)
    of_ranks: list[dict[str, list[float]]] = [{}, {}]
    torch.distributed.all_gather_object(of_ranks, own)
    return of_ranks
