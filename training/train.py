"""`segkc-deploy train`: from a data spec and a recipe to a run directory."""

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import torch
from lightning.fabric import Fabric

from segkc_deploy.errors import ConfigError, RankDiedError, RunDirectoryError, TrainingStoppedError
from segkc_deploy.folder_lock import folder_lock
from segkc_deploy.training.autocast import precision_plugin
from segkc_deploy.training.distributed import rank_fabric, run_on_ranks
from segkc_deploy.training.dry_run import dry_run
from segkc_deploy.training.evaluation.prediction import protocol_in_words
from segkc_deploy.training.files.run_directory import (
    RunDirectory,
    create_run,
    remove_temporaries,
    require_room,
    store_session,
)
from segkc_deploy.training.job import Job, accelerator_of, build, prepare
from segkc_deploy.training.launched_ranks import LaunchedRanks, follow_rank_0, launched_job, launched_ranks
from segkc_deploy.training.loop import Trainer
from segkc_deploy.training.methods.base import Method
from segkc_deploy.training.methods.registry import with_method_defaults
from segkc_deploy.training.out_of_memory import is_loading_out_of_memory, is_out_of_memory, smaller_steps
from segkc_deploy.training.rank_watch import watched_ranks
from segkc_deploy.training.recipe import without_pretrained
from segkc_deploy.training.recipe_file import load_recipe
from segkc_deploy.training.resuming import beginning, how_to_resume
from segkc_deploy.training.run_log import NoLog, RunLog
from segkc_deploy.training.schedule import learning_rate_in_words
from segkc_deploy.training.stop_request import StopRequest, stop_request
from segkc_deploy.training.summary import RunResult
from segkc_deploy.training.trackers.registry import check_trackers, open_tracker
from segkc_deploy.training.trackers.tracker import Tracker, TrackerError
from segkc_deploy.validation import require_text

#: What opens a run: yields the job and its method while this process holds the run's lock.
_Opened = AbstractContextManager[tuple[Job, Method]]


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

    Where torchrun or SLURM has started several ranks, each of them calls this, all train together, and each gets the
    result.

    Args:
        data: the data spec; may be left out with `resume`.
        recipe: a shipped recipe's name or a file; may be left out with `resume`.
        out: the run directory.
        overrides: recipe values as `key=value`.
        resume: go on from the run's last checkpoint; every later step is as if it had never stopped. A job that its
            launcher has restarted resumes without it.
        overwrite: delete an earlier run in `out` first.
        device: `auto`, `cpu` or `cuda`.
        devices: how many GPUs share each step's images, one process each; with `cpu`, how many processes. 1 under a
            launcher, which starts the processes itself.
        track: what else receives the values, of `training.trackers.registry.TRACKERS`.

    Raises:
        UserError: the recipe, the data or the run directory cannot be used.
        NonFiniteLossError: training diverged.
        RankDiedError: one of several processes died.
        TrainingStoppedError: a signal stopped it; its state is saved and `resume` continues.
    """
    check_trackers(track)
    require_text(out, "--out")
    launched = launched_ranks()
    ranks = _ranks(launched, device, devices)
    run = RunDirectory(out)

    @contextmanager
    def opened() -> Iterator[tuple[Job, Method]]:
        begun = beginning(run, data, recipe, overrides or [], resume, overwrite)
        if not begun.resume:
            require_room(run, begun.overwrite)  # before the data is read; `create_run` looks again under the lock
        method, job = prepare(begun.recipe, begun.data, run, device, ranks, begun.resume, tuple(track))
        with folder_lock(out):
            if begun.resume:
                remove_temporaries(run)
                store_session(run, job.recipe.validation, begun.data)
            else:
                started = launched_job()
                create_run(out, job.recipe, begun.data, begun.overwrite, {"job": started} if started else None)
            yield job, method

    try:
        return _train_launched(launched, opened, device) if launched else _train_here(opened())
    except RankDiedError as error:
        raise RankDiedError(f"{error}, which ends the training; {_how_to_continue(run, ranks)}") from None


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
    method, job = prepare(chosen, data, RunDirectory(Path()), device, _ranks(None, device, devices), measure=False)
    return dry_run(job.recipe, method, job.sets, job.split, _fabric_of_one(job))


def _ranks(launched: LaunchedRanks | None, device: str, devices: int) -> int:
    """Return how many devices share a step, after checking that this machine has its part of them."""
    if launched and devices > 1:
        raise ConfigError(f"--devices {devices}: leave it out, {launched.launcher} has started {launched.ranks} ranks")
    here = launched.ranks_on_node if launched else devices
    if accelerator_of(device) == "cuda" and here > (seen := torch.cuda.device_count()):
        what = f"{launched.launcher} started {here} ranks on this machine" if launched else f"--devices {devices}"
        raise ConfigError(f"{what}: torch sees {seen} GPU{'s' * (seen != 1)} here; every rank has to see all of them")
    return launched.ranks if launched else devices


def _train_here(opened: _Opened) -> RunResult:
    """Train on this machine, in processes of our own where there are several devices."""
    with opened as (job, method):
        if job.split.ranks == 1:
            return _train(job, _fabric_of_one(job), method)
        del method  # each rank builds its own
        return run_on_ranks(partial(_train_rank, job), job.split.ranks)


def _train_launched(launched: LaunchedRanks, opened: Callable[[], _Opened], device: str) -> RunResult:
    """Train as one of the ranks that a launcher has started: rank 0 opens the run and tells the others the job."""
    if launched.rank > 0:
        follow_rank_0()
    # The precision is in the job, which takes a process group to be handed over: so there are two of them.
    fabric = rank_fabric(accelerator_of(device), launched.ranks_on_node)
    with watched_ranks(fabric):
        if launched.rank > 0:
            received: object = fabric.broadcast(None)
            assert isinstance(received, Job)
            return _train_rank(received)
        with opened() as (job, method):
            fabric.broadcast(job)
            return _train(job, _fabric_of_rank(job), method)


def _fabric_of_one(job: Job) -> Fabric:
    plugin = precision_plugin(job.recipe.precision, job.accelerator)
    return Fabric(accelerator=job.accelerator, devices=1, plugins=plugin)


def _fabric_of_rank(job: Job) -> Fabric:
    return rank_fabric(job.accelerator, job.split.ranks, precision_plugin(job.recipe.precision, job.accelerator))


def _train_rank(job: Job) -> RunResult:
    return _train(job, _fabric_of_rank(job), build(job.recipe, job.sets, job.census, job.resume))


def _train(job: Job, fabric: Fabric, method: Method) -> RunResult:
    """Train, on one rank of perhaps several."""
    try:
        trainer = Trainer(job.recipe, method, job.sets, job.run, job.steps, job.split, fabric, job.census)
        first_step, remarks = trainer.resume() if job.resume else (0, [])
        # With several ranks, rank 0 alone saves, and the first process repeats the signal until it hears it.
        with stop_request(repeated_interrupt_stops=job.split.ranks == 1) as stop:
            if not fabric.is_global_zero:
                trainer.fit(first_step, NoLog(), StopRequest())
                return _result(job, trainer)
            trackers, failures = _open_trackers(job)
            validated = trainer.validated_step == first_step
            with RunLog(job.run, job.steps, first_step, trackers, validated) as log:
                _log_start(log, job, trainer, first_step)
                for line in (*remarks, *failures):
                    log.line(line)
                try:
                    trainer.fit(first_step, log, stop)
                except TrainingStoppedError as stopped:
                    log.line(str(stopped), show=False)  # the command prints it
                    raise
                except KeyboardInterrupt:
                    log.line(_interrupted(job, trainer))
                    raise
    except (RuntimeError, MemoryError) as error:
        if is_loading_out_of_memory(error):
            raise _loading_out_of_memory(job) from None
        if isinstance(error, MemoryError) or not is_out_of_memory(error):
            raise
        raise _out_of_memory(job) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _disk_full(job, error) from None
    return _result(job, trainer)


def _open_trackers(job: Job) -> tuple[list[Tracker], list[str]]:
    """Open what the values are sent to; return also a line for each that cannot be reached."""
    trackers, failures = [], []
    for name in job.track:
        try:
            recipe = job.recipe.model_dump(mode="json", exclude_none=True)
            trackers.append(open_tracker(name, job.run.path, job.run.key, recipe))
        except TrackerError as error:
            failures.append(f"warning: {error}; training continues without it")
    return trackers, failures


def _result(job: Job, trainer: Trainer) -> RunResult:
    return RunResult(job.run.path, job.steps, trainer.scores, job.recipe.ship, trainer.skipped.messages)


def _interrupted(job: Job, trainer: Trainer) -> str:
    if not trainer.writer.step:
        return "interrupted before the first checkpoint; start anew with --overwrite"
    command = how_to_resume(job.run.path, job.split.ranks)
    return f"interrupted; continue from step {trainer.writer.step}: {command}"


def _log_start(log: RunLog, job: Job, trainer: Trainer, first_step: int) -> None:
    recipe, sets, ranks, device = job.recipe, job.sets, job.split.ranks, trainer.fabric.device
    where = f"{ranks} × {device.type}" if ranks > 1 else str(device)
    log.line(
        f"{recipe.name}: {len(sets.labeled)} labeled, {len(sets.unlabeled)} unlabeled, {len(sets.val)} validation"
        f" images; {job.steps} steps from step {first_step} on {where}, {recipe.precision}"
    )
    log.line(job.split.in_words())
    log.line(learning_rate_in_words(recipe))
    if job.cache:
        log.line(job.cache)
    if (weights := trainer.method.class_weights) is not None:
        pairs = zip(sets.labels.names, weights.tolist(), strict=True)
        log.line("class weights: " + ", ".join(f"{name} {weight:.3g}" for name, weight in pairs))
    rare = job.census.rare(recipe.weak.rare_class_share) if job.census and recipe.weak.rare_class_crops > 0 else []
    if job.census and rare:
        images = (job.census.pixels[:, rare] > 0).sum(axis=0)
        named = (f"{sets.labels.names[index]} (in {count} images)" for index, count in zip(rare, images, strict=True))
        log.line(f"rare classes, for {recipe.weak.rare_class_crops:.0%} of the labeled crops: {', '.join(named)}")
    if sets.val:
        multiple = trainer.method.networks()["junior"].size_multiple
        log.line(f"validation: {protocol_in_words(recipe.validation, multiple)}")
    for role in ("junior", "senior"):
        network = trainer.method.networks().get(role)
        if network and network.started_from:
            log.line(f"{role}: starts from {network.started_from}")


def _disk_full(job: Job, error: OSError) -> RunDirectoryError:
    return RunDirectoryError(
        f"{error.filename}: {error.strerror}; make room, and {_how_to_continue(job.run, job.split.ranks)}"
    )


def _how_to_continue(run: RunDirectory, ranks: int) -> str:
    if not run.existing_checkpoints():
        return "start anew with --overwrite"
    return f"continue with: {how_to_resume(run.path, ranks)}"


def _loading_out_of_memory(job: Job) -> ConfigError:
    return ConfigError(
        f"{job.run.path}: loading images ran out of memory, or in a container out of shared memory (docker --shm-size);"
        f" {_how_to_continue(job.run, job.split.ranks)} and fewer --workers"
    )


def _out_of_memory(job: Job) -> ConfigError:
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
