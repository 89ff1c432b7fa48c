"""Several processes, one for each device; an error in one of them is reported once.

Processes are spawned, not launched by running the command again: then only this one reads the command line, makes the
run directory and reports mistakes, and the same works from Python and from tests.
"""

import logging
import multiprocessing
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

from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.strategies.ddp import DDPStrategy
from torch.multiprocessing.spawn import ProcessException, start_processes

from segkc_deploy.errors import SegKCError
from segkc_deploy.progress import console
from segkc_deploy.training.stop_request import SIGNALS

Result = TypeVar("Result")

#: How long rank 0 may take to finish its step and to save.
_LAST_STEP_S = 300.0
#: Rank 0 writes checkpoints and draws pictures while the others wait for it.
_LONGEST_WAIT = timedelta(hours=1)


def run_on_ranks(function: Callable[[], Result], ranks: int) -> Result:
    """Call `function` in `ranks` new processes, in which `rank_fabric` works, and return what it returns on rank 0.

    Args:
        function: something that can be pickled, as its result.
        ranks: how many.

    Raises:
        SegKCError, OSError: raised on one of the ranks; the others are ended.
        KeyboardInterrupt: likewise, or raised here; rank 0 gets the time to end its step.
    """
    context = multiprocessing.get_context("spawn")
    results, failures = context.SimpleQueue(), context.SimpleQueue()
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # it tells of each process that it ends
    with _environment_of_ranks(), _ignored_signals():
        started = start_processes(_run_rank, (function, results, failures), ranks, join=False, start_method="spawn")
    try:
        with _signals_interrupt():
            while not started.join():
                pass
        result: Result = results.get()
        return result
    except ProcessException:
        if failures.empty():
            raise
        raise failures.get() from None
    except KeyboardInterrupt:
        _interrupt(started.processes)
        if not failures.empty():
            raise failures.get() from None
        raise
    finally:
        console.show_cursor()


def rank_fabric(accelerator: str, ranks: int, precision: Any) -> Fabric:
    """Return the launched Fabric of this process, one of `run_on_ranks`; DDP averages gradients over all ranks."""
    # Which parameters take part depends on the terms that a method weights above 0.
    strategy = DDPStrategy(find_unused_parameters=True, timeout=_LONGEST_WAIT)
    environment = LightningEnvironment()  # whatever cluster this machine may be part of
    fabric = Fabric(accelerator=accelerator, devices=ranks, strategy=strategy, precision=precision, plugins=environment)
    fabric.launch()
    return fabric


def _run_rank(rank: int, function: Callable[[], Any], results: Any, failures: Any) -> None:
    """Run in a new process: hand over the result or what went wrong; then end without waiting for the other ranks."""
    os.environ["LOCAL_RANK"] = str(rank)
    for name in ("lightning.fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
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


def _interrupt(processes: list[multiprocessing.process.BaseProcess]) -> None:
    """Interrupt rank 0, which finishes its step and saves, and end the others."""
    try:
        end = time.monotonic() + _LAST_STEP_S
        while all(process.is_alive() for process in processes) and time.monotonic() < end:
            assert processes[0].pid is not None
            os.kill(processes[0].pid, signal.SIGINT)  # again and again: while it loads, it does not listen
            processes[0].join(0.2)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
