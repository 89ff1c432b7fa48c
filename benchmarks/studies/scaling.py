"""What several devices exchange in a step, and how long a step takes on 1, 2 and 4 processes of this machine.

`python -m segkc_deploy.benchmarks.studies.scaling --results RESULTS.json`

The bytes follow from the parameters that learn: DDP averages one FP32 gradient for each. The processes share the CPU's
cores and talk through gloo, so that their times show what sharing a step costs, not what more devices gain.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from pydantic import BaseModel, ConfigDict

from segkc_deploy import atomic
from segkc_deploy.benchmarks.studies.benchmark_rows import current_commit
from segkc_deploy.benchmarks.studies.random_batch import CLASSES, random_batch
from segkc_deploy.error_messages import one_line_errors
from segkc_deploy.machine import describe_machine
from segkc_deploy.training.distributed import rank_fabric, run_on_ranks
from segkc_deploy.training.methods.registry import build_method
from segkc_deploy.training.recipe import Recipe, without_pretrained
from segkc_deploy.training.recipe_file import load_recipe

#: One recipe for each pair of networks.
PAIRS = ("segkc-dinov2-s-voc", "segkc-convnext-t-voc", "segkc-resnet50-voc", "own-data-cpu")
_GRADIENT_BYTES = 4


class PairRow(BaseModel):
    """What the networks of a recipe exchange: the parameters that learn, and the bytes of their gradients."""

    model_config = ConfigDict(extra="forbid")

    recipe: str
    junior: str
    senior: str
    parameters: int
    gradient_bytes: int


class RanksRow(BaseModel):
    """Seconds of a step that so many processes share, median and extremes of `steps` of them."""

    model_config = ConfigDict(extra="forbid")

    ranks: int
    steps: int
    seconds: float
    fastest: float
    slowest: float


class ScalingResult(BaseModel):
    """All rows of one invocation, and the machine that they were measured on."""

    model_config = ConfigDict(extra="forbid")

    study: str = "scaling"
    machine: dict[str, Any]
    remark: str
    command: str = "python -m segkc_deploy.benchmarks.studies.scaling --results RESULTS.json"
    commit: str
    timed_recipe: str
    timed_crop: int
    pairs: list[PairRow]
    ranks: list[RanksRow]


def pair_row(name: str) -> PairRow:
    """Count the parameters of a recipe's networks that learn; they are never filled with numbers."""
    recipe = without_pretrained(load_recipe(name))
    with torch.device("meta"):
        online = build_method(recipe, num_classes=CLASSES, ignore_index=255).online
    count = sum(parameter.numel() for parameter in online.parameters())
    senior = recipe.senior.backbone if recipe.senior else ""
    return PairRow(
        recipe=name,
        junior=recipe.junior.backbone,
        senior=senior,
        parameters=count,
        gradient_bytes=_GRADIENT_BYTES * count,
    )


def step_seconds(recipe: Recipe, ranks: int, steps: int) -> list[float]:
    """Return the seconds of each of `steps` steps, one more warming up; called on each of `ranks` ranks."""
    torch.set_num_threads(1)
    fabric = rank_fabric("cpu", ranks) if ranks > 1 else Fabric(accelerator="cpu", devices=1)
    torch.manual_seed(0)
    method = build_method(recipe, num_classes=CLASSES, ignore_index=255).train().to(memory_format=torch.channels_last)
    wrapped, optimizer = fabric.setup(method, torch.optim.AdamW(method.online.parameters(), lr=1e-5, fused=True))
    batch = random_batch(recipe, method.strong_views, ranks)
    seconds = []
    for step in range(steps + 1):
        started = time.perf_counter()
        fabric.backward(wrapped(batch, step).total())
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def ranks_row(recipe: Recipe, ranks: int, steps: int) -> RanksRow:
    """Time a step that `ranks` processes share."""
    timed = partial(step_seconds, without_pretrained(recipe), ranks, steps)
    seconds = run_on_ranks(timed, ranks) if ranks > 1 else timed()
    return RanksRow(
        ranks=ranks, steps=steps, seconds=statistics.median(seconds), fastest=min(seconds), slowest=max(seconds)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the results; return the exit code."""
    options = _parser().parse_args(arguments)
    overrides = [f"crop_size=[{options.crop}, {options.crop}]", "precision=fp32"]
    recipe = load_recipe(options.recipe, overrides)
    result = ScalingResult(
        machine=describe_machine(),
        remark=options.remark,
        commit=current_commit(),
        timed_recipe=options.recipe,
        timed_crop=options.crop,
        pairs=[pair_row(name) for name in PAIRS],
        ranks=[ranks_row(recipe, ranks, options.steps) for ranks in options.ranks],
    )
    atomic.write_text(options.results, result.model_dump_json(indent=1) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m segkc_deploy.benchmarks.studies.scaling", description=__doc__)
    parser.add_argument("--results", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4], help="numbers of processes")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each")
    parser.add_argument("--recipe", default="own-data-cpu", help="the recipe whose step is timed")
    parser.add_argument("--crop", type=int, default=160, help="the side of its crop")
    parser.add_argument("--remark", default="an otherwise idle machine", help="what else the machine did")
    return parser


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
