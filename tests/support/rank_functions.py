"""What tests run in ranks: in a module of its own, since every spawned process imports it."""

import os
import signal
from pathlib import Path

import torch

from segkc_deploy.errors import DataError
from segkc_deploy.training.distributed import rank_fabric


def fail_on_rank_1(path: Path) -> None:
    """Fail as the loading of an image does; rank 0 waits for rank 1 all the while."""
    fabric = rank_fabric("cpu", 2, "32-true")
    if fabric.global_rank == 1:
        raise DataError(f"{path}: cannot be read")
    fabric.all_reduce(torch.zeros(1))


def kill_rank_1() -> None:
    """Die as a process does that the system kills; rank 0 waits for rank 1 all the while."""
    fabric = rank_fabric("cpu", 2)
    if fabric.global_rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    fabric.all_reduce(torch.zeros(1))
