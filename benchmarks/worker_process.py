"""What all processes that measure for a benchmark have in common: their environment, and how they ended."""

import os


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
