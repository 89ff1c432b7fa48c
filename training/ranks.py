"""Several processes, one a device, through Lightning Fabric; what goes wrong in one of them is told once.

Processes are spawned, not launched by running the command again: then only this one reads the command line, makes the
run directory and tells of mistakes, and the same works from Python and from tests.
"""

import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from types import FrameType
from typing import Any, TypeVar

from lightning.fabric import Fabric
from lightning.fabric.strategies.ddp import DDPStrategy
from torch.multiprocessing.spawn import ProcessException

from segkc_deploy.errors import SegKCError
from segkc_deploy.progress import console

Result = TypeVar("Result")

#: How long rank 0 may take to end its step and to note that it was interrupted.
_LAST_STEP_S = 60.0
#: Rank 0 writes checkpoints and draws pictures while the others wait for it.
_LONGEST_WAIT = timedelta(hours=1)


class RankStrategy(DDPStrategy):
    """DDP in spawned processes: gradients are averaged over the ranks after the last pass of a step."""

    def __init__(self) -> None:
        # Which parameters take part depends on the terms that a method weights above 0.
        super().__init__(start_method="spawn", find_unused_parameters=True, timeout=_LONGEST_WAIT)

    def setup_environment(self) -> None:
        """Make a new process a rank, without every rank telling so."""
        for name in ("lightning.fabric", "lightning.pytorch"):
            logging.getLogger(name).setLevel(logging.WARNING)
        super().setup_environment()


def run_on_ranks(fabric: Fabric, function: Callable[[Fabric], Result]) -> Result:
    """Run `function` in one process for each of the fabric's devices and return what rank 0's returns.

    Args:
        fabric: with a `RankStrategy`.
        function: something that can be pickled; it is called with the process's own fabric.

    Raises:
        SegKCError, OSError: raised in one of the processes; the others are ended.
        KeyboardInterrupt: likewise, or raised here; rank 0 gets the time to end its step.
    """
    failures = multiprocessing.get_context("spawn").SimpleQueue()
    # Where every parameter takes part, each rank would warn that looking for those that do not was not needed.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # it tells of each process that it ends
    try:
        result: Result = fabric.launch(partial(_run_rank, failures, function))
        return result
    except ProcessException:
        if failures.empty():
            raise
        raise failures.get() from None
    except KeyboardInterrupt:
        _interrupt(multiprocessing.active_children())
        raise
    finally:
        os.environ.pop("MASTER_PORT", None)  # the launcher's; the next launch finds a free one
        console.show_cursor()


def _run_rank(failures: Any, function: Callable[[Fabric], Result], fabric: Fabric) -> Result:
    """Run in a spawned process: hand over what went wrong, and end without waiting for the other ones."""
    signal.signal(signal.SIGINT, _interrupted_once if fabric.is_global_zero else partial(_outlive, os.getppid()))
    console.quiet = not fabric.is_global_zero
    try:
        return function(fabric)
    except (SegKCError, OSError, KeyboardInterrupt) as error:
        try:
            failures.put(error)
        finally:
            sys.stderr.flush()
            # An orderly exit takes the process group down, and would wait for ranks that wait for this one.
            os._exit(1)


def _interrupted_once(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal and the first process may both send it
    raise KeyboardInterrupt


def _outlive(parent: int, number: int, frame: FrameType | None) -> None:
    """Leave the interrupt to rank 0, which may wait for this rank to end its step, unless nobody is left to end us."""
    if os.getppid() != parent:
        os._exit(1)


def _interrupt(processes: list[multiprocessing.process.BaseProcess]) -> None:
    """Interrupt rank 0, which notes where the run can go on, and end the others."""
    try:
        for process in processes:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGINT)  # the other ranks do not heed it
        end = time.monotonic() + _LAST_STEP_S
        while all(process.is_alive() for process in processes) and time.monotonic() < end:
            time.sleep(0.05)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
