"""Several processes on this machine, one for each device; an error in one of them is reported once.

Processes are spawned, not launched by running the command again: then only this one reads the command line, makes the
run directory and reports mistakes, and the same works from Python and from tests. Several machines need a launcher
(`launched_ranks`).
"""

import atexit
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from types import FrameType
from typing import Any, TypeVar

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.precision import Precision
from lightning.fabric.strategies.ddp import DDPStrategy
from torch.multiprocessing.spawn import ProcessContext, start_processes

from segkc_deploy.errors import RankDiedError, SegKCError
from segkc_deploy.progress import console
from segkc_deploy.training.launched_ranks import launched_ranks
from segkc_deploy.training.stop_request import SIGNALS

Result = TypeVar("Result")

#: How long rank 0 may take to finish its step and to save.
_LAST_STEP_S = 300.0
#: How long the first process may take to notice that a rank has ended.
_NOTICE_S = 2.0
#: Rank 0 writes checkpoints and draws pictures while the others wait for it.
_LONGEST_WAIT = timedelta(hours=1)


def run_on_ranks(function: Callable[[], Result], ranks: int) -> Result:
    """Call `function` in `ranks` new processes, in which `rank_fabric` works, and return what it returns on rank 0.

    Args:
        function: something that can be pickled, as its result.
        ranks: how many.

    Raises:
        SegKCError, OSError: raised on one of the ranks; the others are ended.
        RankDiedError: one of them was killed; the others are ended.
        KeyboardInterrupt: likewise, or raised here; rank 0 gets the time to end its step.
    """
    context = multiprocessing.get_context("spawn")
    results, failures = context.SimpleQueue(), context.SimpleQueue()
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # it tells of each process that it ends
    with _environment_of_ranks(), _ignored_signals():
        started = start_processes(_run_rank, (function, results, failures), ranks, join=False, start_method="spawn")
    try:
        with _signals_interrupt():
            _wait_for(started, failures)
        result: Result = results.get()
        return result
    except KeyboardInterrupt:
        _interrupt(started.processes)
        if not failures.empty():
            raise failures.get() from None
        raise
    finally:
        for process in started.processes:
            process.kill()
        for process in started.processes:
            process.join()
        console.show_cursor()


def rank_fabric(accelerator: str, ranks: int, precision: Precision | None = None) -> Fabric:
    """Return the launched Fabric of this rank; DDP averages gradients over all ranks.

    Args:
        accelerator: `cuda` or `cpu`.
        ranks: how many `run_on_ranks` has started; where a launcher has started them, it says so itself.
        precision: the plugin that computes in the recipe's precision; FP32 without it.
    """
    for name in ("lightning.fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    launched = launched_ranks()
    fabric = Fabric(
        accelerator=accelerator,
        devices=launched.ranks_on_node if launched else ranks,
        num_nodes=launched.nodes if launched else 1,
        # Which parameters take part depends on the terms that a method weights above 0.
        strategy=DDPStrategy(find_unused_parameters=True, timeout=_LONGEST_WAIT),
        # Fabric detects a launcher; our own ranks are no part of the cluster that this machine may belong to.
        plugins=[precision or Precision(), *([] if launched else [LightningEnvironment()])],
    )
    fabric.launch()
    atexit.register(_leave_process_group)
    return fabric


def keep_process_group() -> None:
    """Let this process end without taking its process group down, when other ranks do not end in an orderly way.

    NCCL would wait for them. Gloo waits for nobody, and its threads have to end all the same (`_leave_process_group`).
    """
    if torch.distributed.get_backend() == "nccl":
        atexit.unregister(_leave_process_group)


def _leave_process_group() -> None:
    """End the threads of the process group while Python still runs.

    A thread of Gloo may free the last tensors after its operation has returned here. If Python is ending by then, the
    thread cannot take the GIL, which aborts the process after all its work is done.
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _run_rank(rank: int, function: Callable[[], Any], results: Any, failures: Any) -> None:
    """Run in a new process: hand over the result or what went wrong; then end without waiting for the other ranks."""
    os.environ["LOCAL_RANK"] = str(rank)
    for number in SIGNALS:
        signal.signal(number, _interrupted_once if rank == 0 else partial(_outlive, os.getppid()))
    console.quiet = rank > 0
    try:
        result = function()
    except (SegKCError, OSError, KeyboardInterrupt) as error:
        try:
            failures.put(error)
        finally:
            sys.stderr.flush()
            # An orderly exit takes the process group down, and would wait for ranks that wait for this one.
            os._exit(1)
    except RuntimeError:
        # So does a collective operation fail where another rank has ended, which the first process is about to notice.
        time.sleep(_NOTICE_S)
        raise
    if rank == 0:
        results.put(result)


@contextmanager
def _environment_of_ranks() -> Iterator[None]:
    """Set what new processes inherit."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    wanted = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    # Where every parameter takes part, each rank would warn that looking for those that do not was not needed.
    wanted["TORCH_CPP_LOG_LEVEL"] = os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR")
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _ignored_signals() -> Iterator[None]:
    """Let new processes ignore signals until `_run_rank` handles them: while loading, each would print a traceback."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may change it
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Let every signal that asks to stop interrupt this process, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _interrupt_this) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt_this(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _interrupted_once(number: int, frame: FrameType | None) -> None:
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)  # the terminal and the first process may both send it
    raise KeyboardInterrupt


def _outlive(parent: int, number: int, frame: FrameType | None) -> None:
    """Ignore a signal: rank 0 may wait for this rank to finish its step. Exit if the first process has died."""
    if os.getppid() != parent:
        os._exit(1)


def _wait_for(started: ProcessContext, failures: Any) -> None:
    """Wait until all processes have ended.

    Raises:
        RankDiedError: one was killed.
        SegKCError, OSError, KeyboardInterrupt: what one has handed over to `failures`.
        ProcessException: one has failed in another way.
    """
    waiting = dict(started.sentinels)
    while waiting:
        ended = [waiting.pop(sentinel) for sentinel in multiprocessing.connection.wait(list(waiting))]
        codes = {rank: _exit_code(started.processes[rank]) for rank in ended}
        for rank, code in codes.items():
            if code < 0:
                process = f"rank {rank} of {len(started.processes)} (process {started.processes[rank].pid})"
                raise RankDiedError(f"{process} was ended by {signal.Signals(-code).name}")
        if any(codes.values()):
            if not failures.empty():
                raise failures.get()
            while not started.join():  # raises what the process has written of its error
                pass


def _exit_code(process: multiprocessing.process.BaseProcess) -> int:
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _interrupt(processes: list[multiprocessing.process.BaseProcess]) -> None:
    """Interrupt rank 0, which finishes its step and saves; the others are ended with it."""
    end = time.monotonic() + _LAST_STEP_S
    while all(process.is_alive() for process in processes) and time.monotonic() < end:
        assert processes[0].pid is not None
        os.kill(processes[0].pid, signal.SIGINT)  # again and again: while it loads, it does not listen
        processes[0].join(0.2)
