"""`segkc-deploy train`: from a data spec and a recipe to a run directory."""

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from lightning.fabric import Fabric

from segkc_deploy.data.census import count_classes
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.data.screening import screen
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import ConfigError, DataError, RunDirectoryError, TrainingStoppedError, UserError
from segkc_deploy.pixel_format import require_same_format
from segkc_deploy.training.batch_split import BatchSplit, split_batch
from segkc_deploy.training.data.band_statistics import measured_input, unmeasured_input
from segkc_deploy.training.distributed import rank_fabric, run_on_ranks
from segkc_deploy.training.dry_run import dry_run
from segkc_deploy.training.evaluation.prediction import check_protocol, protocol_in_words
from segkc_deploy.training.files.run_directory import (
    RunDirectory,
    check_same_recipe,
    create_run,
    read_config,
    remove_temporaries,
)
from segkc_deploy.training.files.run_lock import run_lock
from segkc_deploy.training.loop import Trainer
from segkc_deploy.training.methods.base import Method
from segkc_deploy.training.methods.registry import build_method, with_method_defaults
from segkc_deploy.training.models.fixed_size import check_size
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.out_of_memory import is_out_of_memory, smaller_steps
from segkc_deploy.training.recipe import Recipe, with_input, without_pretrained
from segkc_deploy.training.recipe_file import load_recipe, with_overrides
from segkc_deploy.training.run_log import NoLog, RunLog
from segkc_deploy.training.schedule import learning_rate_in_words, total_steps
from segkc_deploy.training.stop_request import StopRequest, stop_request
from segkc_deploy.training.summary import RunResult
from segkc_deploy.training.terms.class_weights import class_weights, needs_census
from segkc_deploy.training.trackers.registry import check_trackers, open_tracker
from segkc_deploy.training.trackers.tracker import Tracker, TrackerError

_PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True)
class _Job:
    """What every rank needs to know; pickled where ranks are processes of their own."""

    recipe: Recipe
    sets: ImageSets
    run: RunDirectory
    steps: int
    split: BatchSplit
    accelerator: str
    resume: bool
    track: tuple[str, ...] = ()


def train_run(
    data: Path | None,
    recipe: str | None,
    out: Path,
    overrides: list[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    devices: int = 1,
    track: Sequence[str] = (),
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
        devices: how many GPUs share each step's images, one process each; with `cpu`, how many processes.
        track: what else receives the values, of `training.trackers.registry.TRACKERS`.

    Raises:
        UserError: the recipe, the data or the run directory cannot be used.
        NonFiniteLossError: training diverged.
        TrainingStoppedError: a signal stopped it; its state is saved and `resume` continues.
    """
    check_trackers(track)
    run = RunDirectory(out)
    if resume:
        chosen, data = _resumed(run, recipe, overrides, data)
    elif data is None or recipe is None:
        raise ConfigError("give --data and --recipe (only --resume reads them from the run directory)")
    else:
        chosen = with_method_defaults(load_recipe(recipe, overrides))
    method, job = _prepare(chosen, data, run, device, devices, resume, tuple(track))
    with run_lock(out):
        if resume:
            remove_temporaries(run)
        else:
            create_run(out, job.recipe, data, overwrite)
        if devices == 1:
            return _train(job, _fabric_of_one(job), method)
        del method  # each rank builds its own
        return run_on_ranks(partial(_train_rank, job), devices)


def estimate_run(
    data: Path | None,
    recipe: str | None,
    overrides: list[str] | None = None,
    device: str = "auto",
    devices: int = 1,
) -> list[str]:
    """Return what `train --dry-run` prints of a training: its parameters, arithmetic, memory and largest batch.

    Weights are random, no image is read, and nothing is written.

    Raises:
        UserError: the recipe or the data cannot be used.
    """
    if data is None or recipe is None:
        raise ConfigError("--dry-run: give --data and --recipe")
    chosen = without_pretrained(with_method_defaults(load_recipe(recipe, overrides)))
    method, job = _prepare(chosen, data, RunDirectory(Path()), device, devices, measure=False)
    return dry_run(job.recipe, method, job.sets, job.split, _fabric_of_one(job))


def _prepare(
    recipe: Recipe,
    data: Path,
    run: RunDirectory,
    device: str,
    devices: int,
    resume: bool = False,
    track: tuple[str, ...] = (),
    measure: bool = True,
) -> tuple[Method, _Job]:
    """Check everything that can be checked before a file is written; `measure` reads images of other bands than RGB."""
    sets = load_data_spec(data).resolve()
    screen(sets)
    if resume:
        require_same_format(recipe.junior.pixels, sets.pixels, run.path, data)
    else:
        recipe = with_input(recipe, measured_input(sets) if measure else unmeasured_input(sets))
    method = _build(recipe, sets, resume)
    _check_sets(sets, data, needs_unlabeled=method.strong_views > 0)
    split = split_batch(recipe, devices, uses_unlabeled=method.strong_views > 0)
    for network in method.networks().values():
        check_size(recipe.crop_size, network.size_multiple)
        check_protocol(recipe.validation, network)
        _try(network, recipe)
    accelerator = _accelerator(recipe, device, devices)
    return method, _Job(recipe, sets, run, total_steps(recipe, sets), split, accelerator, resume, track)


def _fabric_of_one(job: _Job) -> Fabric:
    return Fabric(accelerator=job.accelerator, devices=1, precision=_PRECISIONS[job.recipe.precision])  # type: ignore[arg-type]


def _build(recipe: Recipe, sets: ImageSets, resume: bool) -> Method:
    torch.manual_seed(recipe.seed)
    initial = without_pretrained(recipe) if resume else recipe
    method = build_method(initial, sets.labels.num_classes, sets.labels.ignore_index)
    chosen = recipe.supervision.class_weights
    if chosen != "none":
        census = count_classes(sets.labeled, sets) if needs_census(chosen) else None
        weights = class_weights(chosen, sets.labels.names, census, recipe.supervision.largest_class_weight)
        method.set_class_weights(torch.tensor(weights, dtype=torch.float32))
    return method


def _train_rank(job: _Job) -> RunResult:
    fabric = rank_fabric(job.accelerator, job.split.ranks, _PRECISIONS[job.recipe.precision])
    return _train(job, fabric, _build(job.recipe, job.sets, job.resume))


def _train(job: _Job, fabric: Fabric, method: Method) -> RunResult:
    """Train, on one rank of perhaps several."""
    try:
        trainer = Trainer(job.recipe, method, job.sets, job.run, job.steps, job.split, fabric)
        first_step, remark = trainer.resume() if job.resume else (0, "")
        # With several ranks, rank 0 alone saves, and the first process repeats the signal until it hears it.
        with stop_request(repeated_interrupt_stops=job.split.ranks == 1) as stop:
            if not fabric.is_global_zero:
                trainer.fit(first_step, NoLog(), StopRequest())
                return _result(job, trainer)
            trackers, failures = _open_trackers(job)
            with RunLog(job.run, job.steps, first_step, trackers) as log:
                _log_start(log, job, trainer, first_step)
                for line in (remark, *failures):
                    if line:
                        log.line(line)
                try:
                    trainer.fit(first_step, log, stop)
                except TrainingStoppedError as stopped:
                    log.line(str(stopped), show=False)  # the command prints it
                    raise
                except KeyboardInterrupt:
                    log.line(_interrupted(job, trainer))
                    raise
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise _out_of_memory(job) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _disk_full(job, error) from None
    return _result(job, trainer)


def _open_trackers(job: _Job) -> tuple[list[Tracker], list[str]]:
    """Open what the values are sent to; return also a line for each that cannot be reached."""
    trackers, failures = [], []
    for name in job.track:
        try:
            recipe = job.recipe.model_dump(mode="json", exclude_none=True)
            trackers.append(open_tracker(name, job.run.path, job.run.key, recipe))
        except TrackerError as error:
            failures.append(f"warning: {error}; training continues without it")
    return trackers, failures


def _result(job: _Job, trainer: Trainer) -> RunResult:
    return RunResult(job.run.path, job.steps, trainer.scores, job.recipe.ship, trainer.skipped.messages)


def _interrupted(job: _Job, trainer: Trainer) -> str:
    if not trainer.writer.step:
        return "interrupted before the first checkpoint; start anew with --overwrite"
    devices = f" --devices {job.split.ranks}" if job.split.ranks > 1 else ""
    return (
        f"interrupted; continue from step {trainer.writer.step}:"
        f" segkc-deploy train --out {job.run.path}{devices} --resume"
    )


def _log_start(log: RunLog, job: _Job, trainer: Trainer, first_step: int) -> None:
    recipe, sets, ranks, device = job.recipe, job.sets, job.split.ranks, trainer.fabric.device
    where = f"{ranks} × {device.type}" if ranks > 1 else str(device)
    log.line(
        f"{recipe.name}: {len(sets.labeled)} labeled, {len(sets.unlabeled)} unlabeled, {len(sets.val)} validation"
        f" images; {job.steps} steps from step {first_step} on {where}, {recipe.precision}"
    )
    log.line(job.split.in_words())
    log.line(learning_rate_in_words(recipe))
    if (weights := trainer.method.class_weights) is not None:
        pairs = zip(sets.labels.names, weights.tolist(), strict=True)
        log.line("class weights: " + ", ".join(f"{name} {weight:.3g}" for name, weight in pairs))
    if sets.val:
        multiple = trainer.method.networks()["junior"].size_multiple
        log.line(f"validation: {protocol_in_words(recipe.validation, multiple)}")
    for role in ("junior", "senior"):
        network = trainer.method.networks().get(role)
        if network and network.started_from:
            log.line(f"{role}: starts from {network.started_from}")


def _disk_full(job: _Job, error: OSError) -> RunDirectoryError:
    resumed = job.run.existing_checkpoints()
    devices = f" --devices {job.split.ranks}" if job.split.ranks > 1 else ""
    continued = f"continue with: segkc-deploy train --out {job.run.path}{devices} --resume"
    return RunDirectoryError(
        f"{error.filename}: {error.strerror}; make room, and {continued if resumed else 'start anew with --overwrite'}"
    )


def _out_of_memory(job: _Job) -> ConfigError:
    kept = (
        "its last checkpoint is kept: --resume continues from there once other programs leave the device, or with -o"
        " validation.most_pixels=N where large validation images were too much; else "
        if job.run.existing_checkpoints()
        else ""
    )
    return ConfigError(
        f"{job.run.path}: the device's memory does not hold this training; {kept}start anew (--overwrite) with"
        f" {smaller_steps(job.recipe, job.split)}"
    )


def _resumed(
    run: RunDirectory, recipe: str | None, overrides: list[str] | None, data: Path | None
) -> tuple[Recipe, Path]:
    stored, stored_data = read_config(run)
    if not run.existing_checkpoints():
        raise RunDirectoryError(
            f"{run.path}: no checkpoint to resume from; start the run anew with --overwrite, or start another one from"
            " its weights (junior.pretrained=RUN)"
        )
    if recipe is not None:
        given = with_input(with_method_defaults(load_recipe(recipe, overrides)), stored.junior.input)
        check_same_recipe(run, stored, given)
        return stored, data or stored_data
    # None of them changes what is trained, and each may be why the run has to be resumed.
    free = ("workers=", "unreadable_files=", "validation.most_pixels=")
    allowed = [override for override in overrides or [] if override.startswith(free)]
    if allowed != (overrides or []):
        raise ConfigError(
            "--resume: a run continues with the values it began with; only --workers, -o unreadable_files=N and"
            " -o validation.most_pixels=N may be given"
        )
    return with_overrides(stored, allowed, str(run.config)), data or stored_data


def _try(network: Segmenter, recipe: Recipe) -> None:
    """Run a network once at the crop size: some of timm take one size alone, and only say so when they run.

    Raises:
        ConfigError: it cannot take the crop.
    """
    try:
        with torch.inference_mode():
            network.eval()(torch.zeros(1, network.pixels.bands, *recipe.crop_size))
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


def _accelerator(recipe: Recipe, device: str, devices: int) -> str:
    """Return `cuda` or `cpu`, where the recipe can be trained on as many of them."""
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {device!r}: auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA device; `nvidia-smi` tells whether the driver does")
    if recipe.precision == "fp16" and (device == "cpu" or not torch.cuda.is_available()):
        raise ConfigError("precision fp16 needs a CUDA device; use precision=bf16 or fp32 on a CPU")
    accelerator = "cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu")
    if accelerator == "cuda" and devices > torch.cuda.device_count():
        raise ConfigError(f"--devices {devices}: torch sees {torch.cuda.device_count()} here")
    return accelerator
