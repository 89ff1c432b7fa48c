"""How a training begins: anew, or from the last checkpoint of its run directory."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segkc_deploy.errors import ConfigError, RunDirectoryError
from segkc_deploy.invocation import suggested_command
from segkc_deploy.training.files.run_directory import (
    RunDirectory,
    check_same_recipe,
    is_of_job,
    is_trained_here,
    read_config,
)
from segkc_deploy.training.launched_ranks import launched_job, launched_ranks, restarted
from segkc_deploy.training.methods.registry import with_method_defaults
from segkc_deploy.training.recipe import Recipe, with_input
from segkc_deploy.training.recipe_file import load_recipe, with_overrides

#: The recipe values that a resumed run may be given. None of them changes what is trained, and each may be why the run
#: has to be resumed.
FREE_OVERRIDES = (
    "workers",
    "cache.size_gib",
    "cache.folder",
    "unreadable_files",
    "validation.most_pixels",
    "validation.window",
)

#: The options of `train` that stand for other recipe values.
_OPTIONS = {
    "schedule.steps": "--steps",
    "schedule.epochs": "--epochs",
    "batch.labeled": "--batch",
    "crop_size": "--size",
    "seed": "--seed",
}


@dataclass(frozen=True)
class Beginning:
    """What a training begins with.

    Attributes:
        recipe: with the settings of its method written out.
        data: the data spec.
        resume: continue from the last checkpoint.
        overwrite: delete what the run directory holds.
    """

    recipe: Recipe
    data: Path
    resume: bool
    overwrite: bool


def beginning(
    run: RunDirectory,
    data: Path | None,
    recipe: str | None,
    overrides: Sequence[str],
    resume: bool,
    overwrite: bool,
) -> Beginning:
    """Decide how a training begins that was started with these values.

    A job that its launcher has restarted is given the command of its first start; it resumes all the same, or begins
    anew where it died before its first checkpoint. The run of another job is treated as at the first start.

    Raises:
        UserError: there is nothing to resume, or the values are not those that the run began with.
    """
    if restarted() and run.config.is_file() and is_trained_here(run) and is_of_job(run, launched_job()):
        has_checkpoint = bool(run.existing_checkpoints())
        if not has_checkpoint and recipe is not None:
            check_same_recipe(run, read_config(run)[0], _given(run, recipe, overrides))
        resume, overwrite = has_checkpoint, not has_checkpoint
    if resume:
        return _resumed(run, data, recipe, overrides)
    if data is None or recipe is None:
        raise ConfigError("give --data and --recipe (only --resume reads them from the run directory)")
    return Beginning(with_method_defaults(load_recipe(recipe, list(overrides))), data, False, overwrite)


def how_to_resume(run: Path, ranks: int) -> str:
    """Return the command that continues a run which has stopped on so many devices."""
    if launched := launched_ranks():
        return f"{suggested_command('train', '--out', run, '--resume')}, started by {launched.launcher} as before"
    devices = ["--devices", ranks] if ranks > 1 else []
    return suggested_command("train", "--out", run, *devices, "--resume")


def _resumed(run: RunDirectory, data: Path | None, recipe: str | None, overrides: Sequence[str]) -> Beginning:
    stored, stored_data = read_config(run)
    if not run.existing_checkpoints():
        raise RunDirectoryError(
            f"{run.path}: no checkpoint to resume from; start the run anew with --overwrite, or start another one from"
            " its weights (junior.pretrained=RUN)"
        )
    data = data or stored_data
    if data is None:
        raise ConfigError(f"{run.path}: imported without a data spec; give --data")
    if recipe is not None:
        given = load_recipe(recipe, list(overrides))
        check_same_recipe(run, stored, _given(run, recipe, overrides))
        named = [name for name in FREE_OVERRIDES if any(_names(override, name) for override in overrides)]
        return Beginning(_with_values(stored, given, named, run), data, True, False)
    if refused := [override for override in overrides if override.partition("=")[0] not in FREE_OVERRIDES]:
        allowed = [f"-o {name}=…" for name in FREE_OVERRIDES]
        raise ConfigError(
            f"--resume: a run continues with the values it began with, so leave out {_as_given(refused)}; only"
            f" {', '.join(allowed[:-1])} and {allowed[-1]} may be given. For other values start a new run from its"
            f" weights: {shlex.join(['-o', f'junior.pretrained={run.path}'])}"
        )
    return Beginning(with_overrides(stored, list(overrides), str(run.config)), data, True, False)


def _as_given(overrides: Sequence[str]) -> str:
    """Return an override, one of `overrides`, with the option that stands for it."""
    # --epochs comes as schedule.epochs=… and schedule.steps=null.
    chosen = next((override for override in overrides if not override.endswith("=null")), overrides[0])
    option = _OPTIONS.get(chosen.partition("=")[0])
    return f"{chosen} ({option})" if option else f"-o {chosen}"


def _given(run: RunDirectory, recipe: str, overrides: Sequence[str]) -> Recipe:
    """Return the recipe of the command line, to be compared with the run's: its free values are the run's own."""
    stored, _ = read_config(run)
    given = with_input(with_method_defaults(load_recipe(recipe, list(overrides))), stored.junior.input)
    return _with_values(given, stored, FREE_OVERRIDES, run)


def _names(override: str, name: str) -> bool:
    """Return whether an override sets a value: by its name, or with its section (`cache={…}`)."""
    return f"{name}.".startswith(f"{override.partition('=')[0]}.")


def _with_values(recipe: Recipe, source: Recipe, names: Sequence[str], run: RunDirectory) -> Recipe:
    """Return `recipe` with the named values of `source`."""
    overrides = []
    for name in names:
        value = source.model_dump(mode="json")
        for part in name.split("."):
            value = value[part]
        overrides.append(f"{name}={json.dumps(value)}")
    return with_overrides(recipe, overrides, str(run.config))
