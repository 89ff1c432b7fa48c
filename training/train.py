"""`segkc-deploy train`: from a data spec and a recipe to a run directory."""

from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.fabric import Fabric

from segkc_deploy.data.samples import ImageSets
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import ConfigError, DataError, UserError
from segkc_deploy.training.loop import Trainer
from segkc_deploy.training.methods.registry import build_method, with_method_defaults
from segkc_deploy.training.models.fixed_size import check_size
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.recipe import Recipe, without_pretrained
from segkc_deploy.training.recipe_file import load_recipe, with_overrides
from segkc_deploy.training.run_directory import RunDirectory, check_same_recipe, create_run, read_config
from segkc_deploy.training.run_log import RunLog
from segkc_deploy.training.schedule import total_steps

_PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True)
class RunResult:
    """Where a finished run is, and the mIoU (percent) of its networks at the last step."""

    path: Path
    steps: int
    miou: dict[str, float]


def train_run(
    data: Path | None,
    recipe: str | None,
    out: Path,
    overrides: list[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
) -> RunResult:
    """Train by a recipe and return the finished run.

    Args:
        data: the data spec; may be left out with `resume`.
        recipe: a shipped recipe's name or a file; may be left out with `resume`.
        out: the run directory.
        overrides: recipe values as `key=value`.
        resume: go on from the run's last checkpoint; every later step is as if it had never stopped.
        overwrite: delete an earlier run in `out` first.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        UserError: the recipe, the data or the run directory cannot be used.
        NonFiniteLossError: training diverged.
    """
    run = RunDirectory(out)
    if resume:
        chosen, data = _resumed(run, recipe, overrides, data)
    elif data is None or recipe is None:
        raise ConfigError("give --data and --recipe (only --resume reads them from the run directory)")
    else:
        chosen = with_method_defaults(load_recipe(recipe, overrides))
    sets = load_data_spec(data).resolve()
    steps = total_steps(chosen, sets)

    torch.manual_seed(chosen.seed)
    initial = without_pretrained(chosen) if resume else chosen
    method = build_method(initial, sets.labels.num_classes, sets.labels.ignore_index)
    _check_sets(sets, data, needs_unlabeled=method.strong_views > 0)
    for network in method.networks().values():
        check_size(chosen.crop_size, network.size_multiple)
        _try(network, chosen)
    trainer_fabric = _fabric(chosen, device)
    if not resume:
        run = create_run(out, chosen, data, overwrite)

    trainer = Trainer(chosen, method, sets, run, steps, trainer_fabric)
    first_step = trainer.resume() if resume else 0
    with RunLog(run, steps, first_step) as log:
        log.line(
            f"{chosen.name}: {len(sets.labeled)} labeled, {len(sets.unlabeled)} unlabeled, {len(sets.val)} validation"
            f" images; {steps} steps from step {first_step} on {trainer_fabric.device}, {chosen.precision}"
        )
        for role in ("junior", "senior"):
            network = method.networks().get(role)
            if network and network.started_from:
                log.line(f"{role}: starts from {network.started_from}")
        try:
            trainer.fit(log)
        except KeyboardInterrupt:
            log.line(
                f"interrupted; go on from step {trainer.saved_step}: segkc-deploy train --out {out} --resume"
                if trainer.saved_step
                else "interrupted before the first checkpoint; start anew with --overwrite"
            )
            raise
    return RunResult(out, steps, trainer.scores)


def _resumed(
    run: RunDirectory, recipe: str | None, overrides: list[str] | None, data: Path | None
) -> tuple[Recipe, Path]:
    stored, stored_data = read_config(run)
    if recipe is not None:
        check_same_recipe(run, stored, with_method_defaults(load_recipe(recipe, overrides)))
        return stored, data or stored_data
    # Loading processes change no result, and too many of them may be why the run has to be resumed.
    workers = [override for override in overrides or [] if override.startswith("workers=")]
    if workers != (overrides or []):
        raise ConfigError("--resume: a run goes on with the values it began with; only --workers may be given")
    return with_overrides(stored, workers, str(run.config)), data or stored_data


def _try(network: Segmenter, recipe: Recipe) -> None:
    """Run a network once at the crop size: some of timm take one size alone, and only say so when they run.

    Raises:
        ConfigError: it cannot take the crop.
    """
    try:
        with torch.inference_mode():
            network.eval()(torch.zeros(1, 3, *recipe.crop_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        height, width = recipe.crop_size
        raise ConfigError(
            f"recipe {recipe.name}: {network.spec.backbone} cannot take crops of {height}x{width}"
            f" (height x width): {reason}; change crop_size or take another backbone"
        ) from None


def _check_sets(sets: ImageSets, data: Path, needs_unlabeled: bool) -> None:
    if not sets.labeled:
        raise DataError(f"{data}: no labeled images; training needs some (section `labeled:`)")
    if needs_unlabeled and not sets.unlabeled:
        raise DataError(f"{data}: no unlabeled images, which this method needs (section `unlabeled:`)")


def _fabric(recipe: Recipe, device: str) -> Fabric:
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {device!r}: auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA device; `nvidia-smi` tells whether the driver does")
    if recipe.precision == "fp16" and (device == "cpu" or not torch.cuda.is_available()):
        raise ConfigError("precision fp16 needs a CUDA device; use precision=bf16 or fp32 on a CPU")
    accelerator = "cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu")
    return Fabric(accelerator=accelerator, devices=1, precision=_PRECISIONS[recipe.precision])  # type: ignore[arg-type]
