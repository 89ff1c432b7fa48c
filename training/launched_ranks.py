"""Ranks that a launcher has started, `torchrun` or SLURM's `srun`: every one of them runs the same command.

Lightning Fabric detects the launcher by its environment variables; the ones read here are those that Fabric's own
cluster environments read.
"""

import os
import signal
from dataclasses import dataclass
from types import FrameType

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from segkc_deploy.errors import ConfigError
from segkc_deploy.machine import available_cores
from segkc_deploy.progress import console
from segkc_deploy.training.stop_request import SIGNALS


@dataclass(frozen=True)
class LaunchedRanks:
    """The ranks of a job, of which this process is one.

    Attributes:
        launcher: `torchrun` or `SLURM`.
        rank: of this process, among all.
        ranks: how many there are on all nodes.
        ranks_on_node: how many there are on each node, one for each device.
    """

    launcher: str
    rank: int
    ranks: int
    ranks_on_node: int

    @property
    def nodes(self) -> int:
        return self.ranks // self.ranks_on_node

    @property
    def has_own_cores(self) -> bool:
        """Whether no other rank uses the cores of this one, as where SLURM binds each task to its own."""
        of_task = os.environ.get("SLURM_CPUS_PER_TASK", "")
        return self.launcher == "SLURM" and of_task.isdecimal() and available_cores() <= int(of_task)


def launched_ranks() -> LaunchedRanks | None:
    """Return the ranks that a launcher has started, or None where this process is alone.

    Raises:
        ConfigError: SLURM does not say how many tasks each node runs, or nodes run different numbers of ranks.
    """
    if TorchElasticEnvironment.detect():
        launcher, environment, on_node = "torchrun", TorchElasticEnvironment(), os.environ.get("LOCAL_WORLD_SIZE", "1")
        ranks, rank = environment.world_size(), environment.global_rank()
    elif int(os.environ.get("SLURM_NTASKS", "1")) > 1 and SLURMEnvironment.detect():
        launcher, on_node = "SLURM", os.environ.get("SLURM_NTASKS_PER_NODE", "")
        ranks, rank = int(os.environ["SLURM_NTASKS"]), int(os.environ["SLURM_PROCID"])
        if not on_node.isdecimal():
            raise ConfigError(
                f"SLURM started {ranks} tasks, but not so many on each node: replace --ntasks={ranks} by"
                " --nodes=N --ntasks-per-node=M, a task for each GPU"
            )
    else:
        return None
    if ranks == 1:
        return None
    if ranks % int(on_node):
        raise ConfigError(f"{launcher} started {ranks} ranks, {on_node} on this node; every node needs the same number")
    return LaunchedRanks(launcher, rank, ranks, int(on_node))


def restarted() -> bool:
    """Return whether this job has run before: torchrun restarts its ranks when one has died, SLURM requeues jobs."""
    counts = (os.environ.get(name, "0") for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))
    return any(int(count) > 0 for count in counts)


def launched_job() -> str | None:
    """Return a name of the launcher's job that each of its restarts has too, and no other job; None without one."""
    if job := os.environ.get("SLURM_JOB_ID"):  # first: torchrun inside of it gets another id when SLURM requeues it
        return f"SLURM {job}"
    rendezvous = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return None if rendezvous == "none" else f"torchrun {rendezvous}"  # so torchrun says where it was given no id


def follow_rank_0() -> None:
    """Show nothing, and leave signals to rank 0, which may need this rank to finish its step."""
    console.quiet = True
    for number in SIGNALS:
        signal.signal(number, _leave_to_rank_0)


def _leave_to_rank_0(number: int, frame: FrameType | None) -> None:
    """A function of Python, not SIG_IGN: what this process starts as another program must not inherit it."""
