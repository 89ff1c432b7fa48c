"""Runs jobs in processes of their own, so that no measurement affects the next, and reports how they ended."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from pydantic import BaseModel

from segkc_deploy import atomic
from segkc_deploy.errors import SegKCError

Job = TypeVar("Job", bound=BaseModel)


def worker_environment(threads: int | None) -> dict[str, str]:
    """Return this process's environment for a worker that computes with `threads` threads; the engines' own if None."""
    environment = dict(os.environ)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = environment["MKL_NUM_THREADS"] = str(threads)  # PyTorch's threads
    return environment


def run_worker(
    module: str, job: BaseModel, folder: Path, environment: Mapping[str, str], limit_s: float | None = None
) -> tuple[Path, str | None]:
    """Run `python -m MODULE` on a job and return the file for its result, and the error if the worker failed.

    The file may be missing, and it may be there although the worker failed later.

    Args:
        module: calls `work_on_job`.
        job: what to do.
        folder: existing folder for the job's and the result's file.
        environment: the worker's environment.
        limit_s: longest run time; no limit if None.
    """
    job_file, result_file = folder / "job.json", folder / "measured.json"
    job_file.write_text(job.model_dump_json())
    command = [sys.executable, "-m", module, str(job_file), str(result_file)]
    # The worker ends when its standard input does, so it never outlives this process.
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE) as worker:
        try:
            returncode = worker.wait(limit_s)
        except subprocess.TimeoutExpired:
            worker.kill()
            return result_file, f"it did not finish within {limit_s:g} s"
    if returncode == 0:
        return result_file, None
    message = _error_file(result_file)
    return result_file, message.read_text() if message.exists() else how_it_ended(returncode)


def how_it_ended(returncode: int) -> str:
    """Describe in one line how a process ended that left no message; `returncode` is below 0 for a signal."""
    ending = f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
    return f"its process ended with {ending}; out of memory is the usual cause"


def work_on_job(kind: type[Job], work: Callable[[Job, Path], object]) -> None:
    """Be the worker of `run_worker`: read the job of type `kind` and call `work` with it and the result's file.

    An exception's message is written beside the result's file. The process ends when its standard input does.
    """
    job_file, result_file = map(Path, sys.argv[1:])
    _report_errors(_error_file(result_file))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work(kind.model_validate_json(job_file.read_bytes()), result_file)


def _error_file(result_file: Path) -> Path:
    return result_file.with_suffix(".error")


def _report_errors(file: Path) -> None:
    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        # A user's mistake needs no traceback; anything else does, and the report gets its last line.
        atomic.write_text(file, str(error) if isinstance(error, SegKCError) else f"{kind.__name__}: {error}")
        if not isinstance(error, SegKCError):
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = report


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)
