"""Times the rows of a benchmark and their juniors' baselines in alternation: A/B/A/B.

Rows that are measured one after the other see a machine that grows warmer, busier or changes its clocks. Here every
contender has a process of its own that stays alive, and all of them run in each round, so that changes of the machine
affect all of them alike.
"""

import random
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from segkc_deploy.benchmarks.interleaved.contender_process import ContenderProcess
from segkc_deploy.benchmarks.interleaved.relative_speed import relative_speed
from segkc_deploy.benchmarks.interleaved.worker import BaselineName, ContenderJob, RoundRequest
from segkc_deploy.benchmarks.measure.latency import summarize
from segkc_deploy.benchmarks.measure.worker_process import worker_environment
from segkc_deploy.benchmarks.options import MeasureOptions
from segkc_deploy.benchmarks.schema import Contender, InterleavedTiming, Role, Row
from segkc_deploy.benchmarks.store.masks import mask_agreement
from segkc_deploy.progress import track

#: Number of rounds by default.
ROUNDS = 30
#: Timed runs of a contender in each round.
RUNS = 3
#: Seconds that a contender may take to get ready (`torch.compile` takes minutes) or to answer.
LIMIT_S = 900.0
_SEED = 0

_BASELINES: dict[BaselineName, str] = {
    "eager": "PyTorch eager",
    "compiled": "torch.compile",
    "plain export": "plain torch.onnx.export",
}


@dataclass(frozen=True)
class PlannedContender:
    """A contender to time; `engine` is what is known of it before it runs."""

    name: str
    kind: Literal["row", "baseline"]
    engine: str
    role: Role
    target: Path
    baseline: BaselineName | None = None


@dataclass
class ContenderTimes:
    """A list of times in milliseconds for each round, unless the contender failed with `error`."""

    engine: str | None = None
    rounds_ms: list[list[float]] = field(default_factory=list)
    error: str | None = None


def plan_contenders(rows: Sequence[Row]) -> list[PlannedContender]:
    """Return the baselines of every junior of `rows`, then `rows` themselves; nothing if that is a single contender."""
    contenders = [
        PlannedContender(f"{row.name}, {title}", "baseline", title, row.role, Path(row.target), baseline)
        for row in rows
        if row.role == "junior"
        for baseline, title in _BASELINES.items()
    ]
    contenders += [PlannedContender(row.name, "row", row.engine, row.role, Path(row.target)) for row in rows]
    return contenders if len(contenders) > 1 else []


def measure_interleaved(
    contenders: Sequence[PlannedContender], data: Path, rounds: int, options: MeasureOptions
) -> InterleavedTiming:
    """Time `contenders` in alternation, from a decoded validation image to its mask at the image's own size.

    A contender that fails gets an `error` and does not affect the others.

    Args:
        contenders: at least one.
        data: the data spec.
        rounds: how often each contender runs.
        options: device, threads and the time for the warm-up.
    """
    with tempfile.TemporaryDirectory() as name, ExitStack() as ends:
        folders = [Path(name, f"{number:03d}") for number in range(len(contenders))]
        processes = []
        for contender, folder in zip(contenders, folders, strict=True):
            folder.mkdir()
            job = ContenderJob(
                baseline=contender.baseline,
                role=contender.role,
                target=contender.target,
                data=data,
                masks=folder,
                options=options,
            )
            job_file = folder / "job.json"
            job_file.write_text(job.model_dump_json())
            command = [sys.executable, "-m", "segkc_deploy.benchmarks.interleaved.worker", str(job_file)]
            process = ContenderProcess(command, worker_environment(options.threads), LIMIT_S)
            processes.append(ends.enter_context(process))
        return compare_times(contenders, time_rounds(processes, rounds), folders, rounds)


def time_rounds(processes: Sequence[ContenderProcess], rounds: int) -> list[ContenderTimes]:
    """Start `processes` one after the other, then run each once in every round, in a new random order each time."""
    times = [ContenderTimes() for _ in processes]
    for process, contender in zip(track(processes, "interleaved: getting ready"), times, strict=True):
        answer = process.start()
        contender.engine, contender.error = answer.engine, answer.error
    order, shuffle = list(range(len(processes))), random.Random(_SEED).shuffle
    for number in track(range(rounds), "interleaved"):
        shuffle(order)
        for place in order:
            if times[place].error is not None:
                continue
            answer = processes[place].run(RoundRequest(first=number * RUNS, runs=RUNS))
            times[place].error = answer.error
            times[place].rounds_ms.append(answer.times_ms)
    return times


def compare_times(
    contenders: Sequence[PlannedContender], times: Sequence[ContenderTimes], folders: Sequence[Path], rounds: int
) -> InterleavedTiming:
    """Return the times of `contenders`, whose masks are in `folders`, compared with one of them.

    The reference is the first PyTorch eager baseline that was timed, else the first row that was.
    """
    timed = [place for place, contender in enumerate(times) if contender.error is None]
    reference = min(timed, key=lambda place: _preference(contenders[place]), default=0)
    images = len(list(folders[reference].glob("*.png")))
    result = InterleavedTiming(reference=contenders[reference].name, rounds=rounds, runs=RUNS)
    for planned, measured, folder in zip(contenders, times, folders, strict=True):
        engine = measured.engine or planned.engine
        contender = Contender(name=planned.name, kind=planned.kind, engine=engine, error=measured.error)
        if measured.error is None:
            rounds_ms = np.asarray(measured.rounds_ms)
            speed = relative_speed(np.asarray(times[reference].rounds_ms), rounds_ms)
            contender.total = summarize(rounds_ms.ravel())
            contender.speed, contender.speed_interval = speed.median, speed.interval
            contender.speed_quartiles = speed.quartiles
            contender.same_masks = mask_agreement(folder, folders[reference], images)
        result.contenders.append(contender)
    return result


def _preference(contender: PlannedContender) -> int:
    """Rank a contender as a reference, the lowest first."""
    if contender.baseline == "eager":
        return 0
    return 1 if contender.kind == "row" else 2


def renamed(timing: InterleavedTiming, contenders: Sequence[PlannedContender]) -> InterleavedTiming:
    """Return a stored timing of `contenders` under the names that these have now."""
    names = {kept.name: now.name for kept, now in zip(timing.contenders, contenders, strict=True)}
    found = [contender.model_copy(update={"name": names[contender.name]}) for contender in timing.contenders]
    return timing.model_copy(update={"reference": names[timing.reference], "contenders": found})
