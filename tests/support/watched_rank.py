"""One rank of a watched job in a process of its own, which ends in the way that a test asks for."""

import os
import signal
import sys
import time
from pathlib import Path

from segkc_deploy.errors import DataError, SegKCError, TrainingStoppedError

#: What is loaded once: every rank is forked from a process that has imported it.
PRELOADED = ["segkc_deploy.training.rank_watch", "segkc_deploy.training.distributed"]


def run_rank(rank: int, port: int, ending: str, stderr: Path) -> None:
    """Join a job of two ranks that SLURM seems to have started; exit as the command line does.

    Args:
        rank: 0 or 1.
        port: where rank 0 listens.
        ending: how `rank 1` or `rank 0` ends, such as `killed 1`; `both` means that both end by themselves.
        stderr: the file that gets what this rank prints.
    """
    os.environ |= {
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_JOB_ID": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    sys.stderr = stderr.open("w")
    os.dup2(sys.stderr.fileno(), 2)
    try:
        _train(rank, *ending.split())
    except SegKCError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.stderr.flush()
        sys.exit(error.exit_code)


def _train(rank: int, how: str, whom: str = "") -> None:
    import torch

    from segkc_deploy.training import rank_watch
    from segkc_deploy.training.distributed import rank_fabric

    rank_watch._PERIOD = 0.1
    if how in ("killed", "hanging"):  # elsewhere a busy machine may keep a rank silent for longer
        rank_watch._SILENT_AFTER_FAILURE, rank_watch._SILENT = 2.0, 4.0
    fabric = rank_fabric("cpu", 2)
    assert fabric.world_size == 2
    with rank_watch.watched_ranks(fabric):
        if whom == str(rank):
            time.sleep(0.5)
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "hanging":
                os.kill(os.getpid(), signal.SIGSTOP)
            if how == "stopped":
                raise TrainingStoppedError("stopped by SIGUSR1")
            if how == "mistaken":
                raise DataError("a.png: cannot be read")
        fabric.all_reduce(torch.zeros(1))
