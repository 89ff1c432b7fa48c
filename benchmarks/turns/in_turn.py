"""Times the rows of a benchmark and the ways in which their juniors are usually run, in turn: A/B/A/B.

Rows that are measured one after the other see a machine that is warmer, busier or clocked otherwise. Here every way has
a process of its own that stays alive, and in each round all of them run, so that whatever else the machine does falls
on all alike.
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

from segkc_deploy.benchmarks.mask_agreement import mask_agreement
from segkc_deploy.benchmarks.measure.latency import summarize
from segkc_deploy.benchmarks.measure.worker_process import worker_environment
from segkc_deploy.benchmarks.report.formatting import significant
from segkc_deploy.benchmarks.schema import InTurn, Role, Row, Way
from segkc_deploy.benchmarks.turns.turn_process import TurnProcess
from segkc_deploy.benchmarks.turns.turn_speed import speed
from segkc_deploy.benchmarks.turns.turn_worker import Baseline, Turn, TurnOrder
from segkc_deploy.progress import track

#: How many turns each way has unless something else is asked for.
ROUNDS = 30
#: Timed runs of a way in each of its turns, and how many images they cycle through.
RUNS = 3
IMAGES = 8
#: How long a way may take to get ready, which is minutes for `torch.compile`, or for a turn.
LIMIT_S = 900.0
_SEED = 0

_BASELINES: dict[Baseline, str] = {
    "eager": "PyTorch eager",
    "compiled": "torch.compile",
    "plain export": "plain torch.onnx.export",
}


@dataclass(frozen=True)
class PlannedWay:
    """A way to time; `engine` is what is known of it before it has run."""

    name: str
    kind: Literal["row", "baseline"]
    engine: str
    role: Role
    target: Path
    baseline: Baseline | None = None


@dataclass
class TakenTurns:
    """What one way gave: a list of times in milliseconds for each round, unless it was lost with `error`."""

    engine: str | None = None
    rounds_ms: list[list[float]] = field(default_factory=list)
    error: str | None = None


def plan_ways(rows: Sequence[Row]) -> list[PlannedWay]:
    """Return the baselines of every junior of `rows`, then `rows` themselves; none where that is a single way."""
    baselines = [
        PlannedWay(f"{row.name}, {title}", "baseline", title, row.role, Path(row.target), baseline)
        for row in rows
        if row.role == "junior"
        for baseline, title in _BASELINES.items()
    ]
    ways = [*baselines, *(PlannedWay(row.name, "row", row.engine, row.role, Path(row.target)) for row in rows)]
    return ways if len(ways) > 1 else []


def measure_in_turn(
    ways: Sequence[PlannedWay], data: Path, rounds: int, *, device: str, threads: int | None, warm_up_s: float
) -> InTurn:
    """Time `ways` in turn, from a decoded validation image to its mask at the image's own size.

    A way that fails has its `error`, and costs the others nothing.

    Args:
        ways: at least one.
        data: the data spec.
        rounds: how many turns each way has.
        device: as for `segkc_deploy.load`.
        threads: CPU threads of one inference; the engines' own choice if None.
        warm_up_s: how long each way may warm up for.
    """
    with tempfile.TemporaryDirectory() as name, ExitStack() as ends:
        folders = [Path(name, f"{number:03d}") for number in range(len(ways))]
        processes = []
        for way, folder in zip(ways, folders, strict=True):
            folder.mkdir()
            order = TurnOrder(
                baseline=way.baseline,
                role=way.role,
                target=way.target,
                data=data,
                masks=folder,
                device=device,
                threads=threads,
                images=IMAGES,
                warm_up_s=warm_up_s,
            )
            order_file = folder / "order.json"
            order_file.write_text(order.model_dump_json())
            command = [sys.executable, "-m", "segkc_deploy.benchmarks.turns.turn_worker", str(order_file)]
            processes.append(ends.enter_context(TurnProcess(command, worker_environment(threads), LIMIT_S)))
        return in_turn_of(ways, take_turns(processes, rounds), folders, rounds)


def take_turns(processes: Sequence[TurnProcess], rounds: int) -> list[TakenTurns]:
    """Let `processes` get ready one by one, then run them in turn, in an order that is drawn anew each round."""
    taken = [TakenTurns() for _ in processes]
    for process, way in zip(track(processes, "in turn: getting ready"), taken, strict=True):
        answer = process.start()
        way.engine, way.error = answer.engine, answer.error
    order, shuffle = list(range(len(processes))), random.Random(_SEED).shuffle
    for number in track(range(rounds), "in turn"):
        shuffle(order)
        for place in order:
            if taken[place].error is not None:
                continue
            answer = processes[place].take(Turn(first=number * RUNS, runs=RUNS))
            taken[place].error = answer.error
            taken[place].rounds_ms.append(answer.times_ms)
    return taken


def in_turn_of(ways: Sequence[PlannedWay], taken: Sequence[TakenTurns], folders: Sequence[Path], rounds: int) -> InTurn:
    """Return what the report tells of `ways`, whose masks are in `folders`.

    They are compared with the first eager PyTorch that gave times, else with the first such row.
    """
    timed = [place for place, way in enumerate(taken) if way.error is None]
    reference = min(timed, key=lambda place: _preference(ways[place]), default=0)
    images = len(list(folders[reference].glob("*.png")))
    result = InTurn(reference=ways[reference].name, rounds=rounds, runs=RUNS)
    for way, turns, folder in zip(ways, taken, folders, strict=True):
        told = Way(name=way.name, kind=way.kind, engine=turns.engine or way.engine, error=turns.error)
        if turns.error is None:
            times = np.asarray(turns.rounds_ms)
            found = speed(np.asarray(taken[reference].rounds_ms), times)
            told.total = summarize(times.ravel())
            told.speed, told.speed_interval, told.speed_quartiles = found.median, found.interval, found.quartiles
            told.same_masks = mask_agreement(folder, folders[reference], images)
        result.ways.append(told)
    return result


def _preference(way: PlannedWay) -> int:
    """Rank a way as a reference, the lowest first."""
    if way.baseline == "eager":
        return 0
    return 1 if way.kind == "row" else 2


def in_turn_lines(in_turn: InTurn) -> list[str]:
    """Return a title and a line a way, for the console."""
    lines = [
        f"In turn, {in_turn.rounds} rounds of {in_turn.runs} runs:"
        f" median, and how many times faster than {in_turn.reference} (95% interval)"
    ]
    for way in in_turn.ways:
        if way.total is None or way.speed is None:
            lines.append(f"{'':12}{way.name}: {way.error}")
            continue
        low, high = way.speed_interval or (way.speed, way.speed)
        gain = f"{way.speed:.2f}× ({low:.2f} to {high:.2f})"
        lines.append(f"{significant(way.total.p50):>8} ms  {gain}  {way.name}, {way.engine}")
    return lines
