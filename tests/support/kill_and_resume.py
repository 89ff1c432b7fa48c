"""Kill trainings at random instants with SIGKILL, resume them, and compare their last weights bit for bit.

python tests/support/kill_and_resume.py --runs 100 [--seed 0] [--steps 6]

Every run is killed and resumed until it is finished; the deaths are spread over the whole length of a training, so that
they hit checkpoint writes, validations and the start too. Prints a line for each run and ends with exit code 1 at the
first difference.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

_LONGEST_RUN_S = 600.0
_STRETCH = 1.1

#: Loaded once: every training is forked from a process that has imported them.
_PRELOADED = ["segkc_deploy.training.train", "timm"]


@dataclass(frozen=True)
class Outcome:
    """How often a run was killed, and in how many of these cases it had a checkpoint to resume from."""

    kills: int
    resumed: int


def weights(run: Path) -> dict[str, bytes]:
    """Return every tensor of both networks and of the last checkpoint, which have to be equal in two finished runs."""
    from segkc_deploy.training.files.tensor_file import read_tensors

    found: dict[str, bytes] = {}
    for name in ("junior.safetensors", "senior.safetensors", "checkpoints/last.safetensors"):
        tensors, _ = read_tensors(run / name)
        found |= {f"{name}: {key}": tensor.numpy().tobytes() for key, tensor in tensors.items()}
    return found


def train(data: Path, recipe: Path, run: Path) -> None:
    """Start or resume a training, whichever the run directory calls for."""
    import torch

    from segkc_deploy.training.files.run_directory import RunDirectory
    from segkc_deploy.training.train import train_run

    torch.set_num_threads(1)
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    if RunDirectory(run).existing_checkpoints():
        train_run(None, None, run, resume=True, device="cpu")
    else:
        train_run(data, str(recipe), run, overwrite=True, device="cpu")


def finish(data: Path, recipe: Path, run: Path) -> float:
    """Train without a kill and return the seconds that it took."""
    started = time.monotonic()
    process = _start(data, recipe, run)
    process.join(_LONGEST_RUN_S)
    if process.exitcode != 0:
        raise RuntimeError(f"{run}: exit code {process.exitcode}")
    return time.monotonic() - started


def kill_until_finished(data: Path, recipe: Path, run: Path, seconds: float, rng: random.Random) -> Outcome:
    """Kill a training at a random instant of `seconds`, resume it, and so on, until it finishes by itself.

    Each kill stretches the span a little: on a machine that has become slower a run would else hardly get anywhere.
    """
    kills = resumed = 0
    while True:
        has_checkpoint = any((run / "checkpoints").glob("[lp]*.safetensors"))
        process = _start(data, recipe, run)
        process.join(rng.uniform(0.05, 1.0) * seconds)
        if process.is_alive():
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
            seconds *= _STRETCH
        elif process.exitcode != 0:
            raise RuntimeError(f"{run}: exit code {process.exitcode} after {kills} kills")
        if kills and has_checkpoint:
            resumed += 1
        if process.exitcode == 0:
            return Outcome(kills, resumed)


def _start(data: Path, recipe: Path, run: Path) -> multiprocessing.process.BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    process = context.Process(target=train, args=(data, recipe, run))
    process.start()
    return process


def main() -> int:
    """Run the whole of it."""
    from tiny_data import tiny_recipe, write_recipe, write_tiny_data

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=6)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    folder = Path(tempfile.mkdtemp())
    data = write_tiny_data(folder / "data")
    settings = {"schedule": {"steps": arguments.steps}, "checkpoint_every": 1, "validation": {"every": 3}}
    recipe = write_recipe(folder / "tiny.yaml", tiny_recipe(**settings))
    finish(data, recipe, folder / "warm-up")
    seconds = finish(data, recipe, folder / "reference")
    expected = weights(folder / "reference")
    kills = 0
    for number in range(arguments.runs):
        run = folder / "run"
        outcome = kill_until_finished(data, recipe, run, seconds, rng)
        kills += outcome.kills
        found = weights(run)
        different = [name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)]
        print(f"run {number + 1}: {outcome.kills} kills, {outcome.resumed} resumes, {different or 'equal'}", flush=True)
        if different:
            return 1
        shutil.rmtree(run)
    print(f"{arguments.runs} runs, {kills} kills: all weights equal, bit for bit")
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
