"""One way from image to mask in a process of its own: `python -m segkc_deploy.benchmarks.turns.turn_worker ORDER.json`.

It gets ready and says so, then runs when it is told to. Standard input has a `Turn` a line, standard output an `Answer`
a line; what libraries print goes to standard error.
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
from segkc_deploy.benchmarks.report.pictures import save_mask
from segkc_deploy.benchmarks.schema import Role
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import SegKCError

#: How a network is usually run, see `segkc_deploy.export.usual_paths`.
Baseline = Literal["eager", "compiled", "plain export"]

#: After its runs a way's threads may go on spinning for work; it is at rest when it takes less than this share of one
#: processor during `_REST_S` seconds, and lost if that does not happen within `_REST_AT_MOST_S`.
_REST_SHARE = 0.2
_REST_S = 0.02
_REST_AT_MOST_S = 2.0


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TurnOrder(_Message):
    """What to run: the row of `role` and `target`, or a `baseline` of the junior in the run directory `target`.

    `images` validation images are taken; the masks of all of them are kept in the folder `masks`.
    """

    baseline: Baseline | None
    role: Role
    target: Path
    data: Path
    masks: Path
    device: str
    threads: int | None
    images: int
    warm_up_s: float


class Turn(_Message):
    """Run once unrecorded and then time `runs` runs, the image with the number `first` the first of them."""

    first: int
    runs: int


class Answer(_Message):
    """`engine` when ready; then the times of a turn. A way with an `error` is lost."""

    engine: str | None = None
    times_ms: list[float] = Field(default_factory=list)
    error: str | None = None


@dataclass(frozen=True)
class ReadyWay:
    """A way that is warm: what runs it, from uint8 (H, W, 3) RGB to its mask, and the images for it."""

    engine: str
    predict: Callable[[np.ndarray], object]
    images: Sequence[np.ndarray]


def serve(get_ready: Callable[[], ReadyWay]) -> None:
    """Get ready, answer turns, and end this process with its standard input, that is with who gives the turns."""
    answers = _claim_stdout()
    sys.excepthook = _teller(answers)
    turns: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_read_turns, args=(turns,), daemon=True).start()
    way = get_ready()
    _rest()
    _tell(answers, Answer(engine=way.engine))
    while True:
        _tell(answers, Answer(times_ms=_take_turn(way, Turn.model_validate_json(turns.get()))))


def _claim_stdout() -> IO[bytes]:
    """Return standard output, and let everything else that writes there write to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def _teller(answers: IO[bytes]) -> Callable[[type[BaseException], BaseException, TracebackType | None], None]:
    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, SegKCError):
            told = str(error)
        else:
            told = f"{kind.__name__}: {next((line for line in str(error).splitlines() if line.strip()), '')}"
            sys.__excepthook__(kind, error, trace)
        _tell(answers, Answer(error=told))

    return tell


def _tell(answers: IO[bytes], answer: Answer) -> None:
    answers.write(answer.model_dump_json().encode() + b"\n")
    answers.flush()


def _read_turns(turns: "SimpleQueue[bytes]") -> None:
    rest = b""
    # Not through `sys.stdin`, whose lock an interpreter that ends would wait for.
    while more := os.read(0, 1 << 16):
        *lines, rest = (rest + more).split(b"\n")
        for line in lines:
            turns.put(line)
    os._exit(1)


def _take_turn(way: ReadyWay, turn: Turn) -> list[float]:
    """Return the times of a turn's runs in milliseconds, when the others will not notice this way any more."""

    def run(number: int) -> float:
        image = way.images[number % len(way.images)]
        start = time.perf_counter()
        way.predict(image)
        return 1e3 * (time.perf_counter() - start)

    run(turn.first)  # the others have filled the caches
    times = [run(turn.first + number) for number in range(turn.runs)]
    _rest()
    return times


def _rest() -> None:
    """Wait until this process's threads sleep.

    Engines' threads spin for a while after their last work, which is to start the next inference sooner.

    Raises:
        SpinningError: they go on.
    """
    end = time.perf_counter() + _REST_AT_MOST_S
    while time.perf_counter() < end:
        before, start = time.process_time(), time.perf_counter()
        time.sleep(_REST_S)
        if time.process_time() - before <= _REST_SHARE * (time.perf_counter() - start):
            return
    raise SpinningError(
        "its threads compute on between its turns, at the others' cost; unset OMP_WAIT_POLICY, GOMP_SPINCOUNT and"
        " KMP_BLOCKTIME"
    )


class SpinningError(SegKCError):
    """A way whose threads never sleep."""


def _ready_by(order: TurnOrder) -> ReadyWay:
    """Open what `order` names, keep its masks, and run it until its time is stable."""
    if order.threads is not None:
        cv2.setNumThreads(order.threads)
    images = some_images(load_data_spec(order.data).resolve(), order.images)
    if order.baseline is None:
        predictor = open_target(order.role, order.target, order.device, order.threads)
        way = ReadyWay(predictor.description, predictor.predict, images)
    else:
        from segkc_deploy.export.usual_paths import USUAL_PATHS

        path = USUAL_PATHS[order.baseline](order.target, order.device, order.threads)
        way = ReadyWay(path.description, path.predict, images)
    for place, image in enumerate(images):
        mask = way.predict(image)
        assert isinstance(mask, np.ndarray)
        save_mask(order.masks, place, mask)
    warm_up(lambda: way.predict(images[0]), order.warm_up_s)
    return way


def main(order_file: Path) -> None:
    """Be the way that `order_file` describes."""
    serve(lambda: _ready_by(TurnOrder.model_validate_json(order_file.read_bytes())))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
