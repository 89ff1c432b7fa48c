"""Image to mask, several ways in one process and in turn.

`python -m segkc_deploy.benchmarks.side_by_side RUN ARTIFACT… --data data.yaml --out side-by-side.json`

Each round times every way once on the same image, in an order that changes from round to round, so that whatever else
the machine does falls on all of them alike. The ratio to eager PyTorch is taken within each round.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segkc_deploy import atomic
from segkc_deploy.benchmarks.latency import summarize
from segkc_deploy.data.images import read_image
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import SegKCError
from segkc_deploy.invocation import command_line
from segkc_deploy.machine import describe_machine
from segkc_deploy.predictor import load
from segkc_deploy.progress import track

Way = Callable[[np.ndarray], object]

_WARM_UP_ROUNDS = 5


def measure(ways: dict[str, Way], images: Sequence[np.ndarray], rounds: int) -> dict[str, list[float]]:
    """Return the times of each way in milliseconds, one a round.

    Args:
        ways: from an image, uint8 (H, W, 3) RGB, to its mask, by name.
        images: taken in turn.
        rounds: how many times each way is timed, after a few rounds of warm-up.
    """
    order = list(ways)
    shuffle = random.Random(0).shuffle
    times: dict[str, list[float]] = {name: [] for name in ways}
    for place in track(range(-_WARM_UP_ROUNDS, rounds), "side by side"):
        shuffle(order)
        for name in order:
            start = time.perf_counter()
            ways[name](images[place % len(images)])
            if place >= 0:
                times[name].append(1000 * (time.perf_counter() - start))
    return times


def rows_of(times: dict[str, list[float]], baseline: str) -> list[dict[str, Any]]:
    """Return one row a way: percentiles in milliseconds, and the ratio to `baseline` with its quartiles over rounds."""
    reference = np.asarray(times[baseline])
    rows = []
    for name, values in times.items():
        low, middle, high = np.percentile(reference / np.asarray(values), (25, 50, 75))
        found = summarize(values)
        figures = {"p50_ms": found.p50, "p90_ms": found.p90, "p99_ms": found.p99, "samples": found.samples}
        ratio = {"times_faster": middle, "times_faster_quartiles": [low, high]}
        rows.append({"way": name} | _rounded(figures | ratio))
    return rows


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    return {key: np.round(value, 3).tolist() for key, value in figures.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure a run's usual paths and artifacts; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m segkc_deploy.benchmarks.side_by_side", description=__doc__)
    parser.add_argument("run", type=Path, help="the run directory")
    parser.add_argument("artifacts", type=Path, nargs="+", help="artifacts of it")
    parser.add_argument("--data", type=Path, required=True, help="data spec, for its validation images")
    parser.add_argument("--out", type=Path, required=True, help="JSON file of the figures")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    try:
        rows = _measure(options)
    except SegKCError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    content = {"command": command_line(), "threads": options.threads, "machine": describe_machine(), "rows": rows}
    atomic.write_text(options.out, json.dumps(content, indent=1) + "\n")
    for row in rows:
        low, high = row["times_faster_quartiles"]
        ratio = f"{row['times_faster']:.2f}x [{low:.2f}, {high:.2f}]"
        print(f"{row['p50_ms']:8.2f} ms (p90 {row['p90_ms']:.2f})  {ratio}  {row['way']}")
    return 0


def _measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    from segkc_deploy.export.usual_paths import EagerPath, PlainExportPath

    sets = load_data_spec(options.data).resolve()
    images = [read_image(sample.image) for sample in sets.val[:: max(len(sets.val) // 16, 1)]]
    ways: dict[str, Way] = {
        path.name: path(options.run, options.threads).predict for path in (EagerPath, PlainExportPath)
    }
    for artifact in options.artifacts:
        predictor = load(artifact, "cpu", options.threads)
        ways[f"{artifact}, {predictor.description}"] = predictor.predict
    return rows_of(measure(ways, images, options.rounds), EagerPath.name)


if __name__ == "__main__":
    sys.exit(main())
