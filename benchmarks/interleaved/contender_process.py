"""The coordinator's end of a contender: starts its process, asks it to run, and finds out why it failed."""

import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from segkc_deploy.benchmarks.interleaved.worker import Answer, RoundRequest
from segkc_deploy.benchmarks.measure.worker_process import how_it_ended


class ContenderProcess:
    """A process that runs `worker.serve`. A context manager: leaving it ends the process.

    Args:
        command: what to start.
        environment: the process's environment.
        limit_s: how long it may take to get ready, or to answer.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], limit_s: float) -> None:
        self._command = command
        self._environment = environment
        self._limit_s = limit_s
        self._timed_out = False
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Answer:
        """Start the process and return its first answer, when it is ready."""
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self._answer(self._process)

    def run(self, request: RoundRequest) -> Answer:
        """Let it run and return its times, or the error with which it failed."""
        assert self._process is not None and self._process.stdin is not None
        # A broken pipe means that the process has ended, and the answer says how.
        with suppress(BrokenPipeError):
            self._process.stdin.write(request.model_dump_json().encode() + b"\n")
            self._process.stdin.flush()
        return self._answer(self._process)

    def _answer(self, process: "subprocess.Popen[bytes]") -> Answer:
        assert process.stdout is not None
        timer = threading.Timer(self._limit_s, self._give_up, [process])
        timer.daemon = True  # otherwise an interrupted benchmark would wait for it
        timer.start()
        try:
            line = process.stdout.readline()
        finally:
            timer.cancel()
        if line:
            return Answer.model_validate_json(line)
        returncode = process.wait()
        if self._timed_out:
            return Answer(error=f"gave no answer within {self._limit_s:g} seconds")
        return Answer(error=how_it_ended(returncode))

    def _give_up(self, process: "subprocess.Popen[bytes]") -> None:
        self._timed_out = True
        process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):  # a request that nobody read
                pipe.close()
