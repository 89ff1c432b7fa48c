"""One contender in a process of its own: `python -m segkc_deploy.benchmarks.interleaved.worker JOB.json`.

It gets ready and says so, then runs on request. Standard input has one `RoundRequest` a line, standard output one
`Answer` a line; what libraries print goes to standard error.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import IO, Literal

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from segkc_deploy.benchmarks.measure.latency import warm_up
from segkc_deploy.benchmarks.measure.worker import open_target, some_images
from segkc_deploy.benchmarks.options import MeasureOptions
from segkc_deploy.benchmarks.schema import Role
from segkc_deploy.benchmarks.store.masks import save_mask
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import SegKCError

#: See `segkc_deploy.export.baselines`.
BaselineName = Literal["eager", "compiled", "plain export"]

#: Validation images that a contender cycles through.
IMAGES = 8

#: Threads may spin for work after a run. A contender is idle when it takes less than this share of one processor during
#: `_IDLE_S` seconds, and fails if that does not happen within `_IDLE_LIMIT_S`.
_IDLE_SHARE = 0.2
_IDLE_S = 0.02
_IDLE_LIMIT_S = 2.0


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ContenderJob(_Message):
    """What to run: the row of `role` and `target`, or a `baseline` of the junior in the run directory `target`.

    The masks of its images are saved in the folder `masks`.
    """

    baseline: BaselineName | None
    role: Role
    target: Path
    data: Path
    masks: Path
    options: MeasureOptions


class RoundRequest(_Message):
    """Run once unrecorded, then time `runs` runs, beginning with the image number `first`."""

    first: int
    runs: int


class Answer(_Message):
    """`engine` once the contender is ready, later the times of a round. A contender with an `error` has failed."""

    engine: str | None = None
    times_ms: list[float] = Field(default_factory=list)
    error: str | None = None


@dataclass(frozen=True)
class ReadyContender:
    """A contender after its warm-up: what maps an image, uint8 (H, W, 3) RGB, to its mask, and images for it."""

    engine: str
    predict: Callable[[np.ndarray], object]
    images: Sequence[np.ndarray]


def serve(get_ready: Callable[[], ReadyContender]) -> None:
    """Get ready and answer requests; this process ends when its standard input does."""
    answers = _claim_stdout()
    sys.excepthook = _error_reporter(answers)
    requests: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    contender = get_ready()
    _wait_until_idle()
    _send(answers, Answer(engine=contender.engine))
    while True:
        _send(answers, Answer(times_ms=_time_round(contender, RoundRequest.model_validate_json(requests.get()))))


def _claim_stdout() -> IO[bytes]:
    """Return standard output, and redirect everything else that writes there to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def _error_reporter(answers: IO[bytes]) -> Callable[[type[BaseException], BaseException, TracebackType | None], None]:
    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, SegKCError):
            message = str(error)
        else:
            message = f"{kind.__name__}: {next((line for line in str(error).splitlines() if line.strip()), '')}"
            sys.__excepthook__(kind, error, trace)
        _send(answers, Answer(error=message))

    return report


def _send(answers: IO[bytes], answer: Answer) -> None:
    answers.write(answer.model_dump_json().encode() + b"\n")
    answers.flush()


def _read_requests(requests: "SimpleQueue[bytes]") -> None:
    rest = b""
    # Not through `sys.stdin`, whose lock an interpreter that ends would wait for.
    while more := os.read(0, 1 << 16):
        *lines, rest = (rest + more).split(b"\n")
        for line in lines:
            requests.put(line)
    os._exit(1)


def _time_round(contender: ReadyContender, request: RoundRequest) -> list[float]:
    """Return the times of the requested runs in milliseconds, once this process is idle again."""

    def run(number: int) -> float:
        image = contender.images[number % len(contender.images)]
        start = time.perf_counter()
        contender.predict(image)
        return 1e3 * (time.perf_counter() - start)

    run(request.first)  # the other contenders have filled the caches
    times = [run(request.first + number) for number in range(request.runs)]
    _wait_until_idle()
    return times


def _wait_until_idle() -> None:
    """Wait until this process's threads sleep.

    The threads of engines spin for a while after their last work, to start the next inference sooner.

    Raises:
        SpinningError: they never sleep.
    """
    end = time.perf_counter() + _IDLE_LIMIT_S
    while time.perf_counter() < end:
        before, start = time.process_time(), time.perf_counter()
        time.sleep(_IDLE_S)
        if time.process_time() - before <= _IDLE_SHARE * (time.perf_counter() - start):
            return
    raise SpinningError(
        "its threads keep computing between its rounds, which slows the other contenders down; unset OMP_WAIT_POLICY,"
        " GOMP_SPINCOUNT and KMP_BLOCKTIME"
    )


class SpinningError(SegKCError):
    """A contender whose threads never sleep."""


def _prepare(job: ContenderJob) -> ReadyContender:
    """Open the contender of `job`, save its masks, and run it until its time is stable."""
    options = job.options
    if options.threads is not None:
        cv2.setNumThreads(options.threads)
    images = some_images(load_data_spec(job.data).resolve(), IMAGES)
    if job.baseline is None:
        predictor = open_target(job.role, job.target, options)
        contender = ReadyContender(predictor.description, predictor.predict, images)
    else:
        from segkc_deploy.export.baselines import BASELINES

        baseline = BASELINES[job.baseline](job.target, options.device, options.threads)
        contender = ReadyContender(baseline.description, baseline.predict, images)
    for place, image in enumerate(images):
        mask = contender.predict(image)
        assert isinstance(mask, np.ndarray)
        save_mask(job.masks, place, mask)
    warm_up(lambda: contender.predict(images[0]), 2 * options.seconds)
    return contender


if __name__ == "__main__":
    serve(lambda: _prepare(ContenderJob.model_validate_json(Path(sys.argv[1]).read_bytes())))
