"""What all processes that measure for a benchmark have in common: their environment, and how they ended."""

import os
import sys
from pathlib import Path
from types import TracebackType

from segkc_deploy import atomic
from segkc_deploy.errors import SegKCError


def worker_environment(threads: int | None) -> dict[str, str]:
    """Return this process's environment for one that computes with `threads` threads; the engines' choice if None."""
    environment = dict(os.environ)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)  # PyTorch's threads
    return environment


def how_it_ended(returncode: int) -> str:
    """Say in a line how a process ended that did not tell why, by its `returncode`, below 0 for a signal."""
    ending = f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
    return f"its process ended with {ending}; out of memory is the usual cause"


def tell_errors(file: Path) -> None:
    """From now on, write into `file` in a line why this process ends, if an exception ends it."""

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        # A user's mistake needs no traceback; anything else does, and the report gets its last line.
        told = str(error) if isinstance(error, SegKCError) else f"{kind.__name__}: {error}"
        atomic.write_text(file, told)
        if not isinstance(error, SegKCError):
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = report


def end_with_parent() -> None:
    """End this process when its input ends: one whose benchmark was killed would only slow down the next."""
    while os.read(0, 1):
        pass
    os._exit(1)
