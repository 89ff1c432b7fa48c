"""One training as its run directory tells it, whether it is finished or still goes on."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from segkc_deploy.benchmarks.report.formatting import flat
from segkc_deploy.benchmarks.report.trainings.curves import Curves, read_curves
from segkc_deploy.benchmarks.report.trainings.facts import LogFacts, count_parameters, read_log
from segkc_deploy.errors import RunDirectoryError
from segkc_deploy.training.files.run_directory import RunDirectory, read_config
from segkc_deploy.training.recipe import Recipe
from segkc_deploy.validation import load_yaml

ROLES = ("junior", "senior")

#: Networks that a validation scores, in the order in which they are shown.
NETWORKS = ("junior", "junior_ema", "senior", "senior_ema")

#: What makes no other training of a recipe: how it is called, seeded, loaded, logged and kept.
_SAME_TRAINING = ("summary", "seed", "workers", "cache", "log_every", "checkpoint_every", "unreadable_files")


class TrainingRun(BaseModel):
    """What a run directory holds.

    `state` is `interrupted` where the log ends so, and `unfinished` for any other run that has not scored its last
    step: it may be training, or may have been killed. `miou` are the scores in percent at the last step of all, by
    network; an unfinished run has none, and `latest` are those of its last validation, at `latest_step`.
    `configuration` holds what two trainings that differ by seed alone have in common, as text by dotted key.
    """

    name: str
    path: str
    recipe: str
    method: str
    networks: dict[str, str]
    parameters: dict[str, int | None]
    shipped: str
    seed: int
    state: Literal["finished", "interrupted", "unfinished"]
    steps_done: int
    steps: int | None
    miou: dict[str, float]
    latest_step: int | None
    latest: dict[str, float]
    images: dict[str, int] | None
    device: str | None
    precision: str
    version: str
    started: str | None
    written: str | None
    seconds: float | None
    notes: list[str]
    configuration: dict[str, str]
    training: Curves
    validation: Curves


def read_runs(paths: Sequence[Path]) -> list[TrainingRun]:
    """Read run directories; one that is given twice is read once.

    Raises:
        RunDirectoryError: a folder is no run, or was imported and not trained.
        ConfigError: a recipe in it cannot be read by this version.
    """
    given = {path.resolve(): path for path in paths}
    return [_read_run(path, name) for path, name in zip(given.values(), _names(list(given)), strict=True)]


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the folders' names, with as many of their parents as it takes to tell them apart."""
    names = [folder.name for folder in folders]
    depth = 1
    while len(set(names)) < len(names):
        depth += 1
        names = [
            "/".join(folder.parts[-depth:]) if names.count(name) > 1 else name
            for folder, name in zip(folders, names, strict=True)
        ]
    return names


def _read_run(folder: Path, name: str) -> TrainingRun:
    run = RunDirectory(folder)
    recipe, data = read_config(run)
    if not run.metrics.is_file() and not run.log.is_file():
        raise RunDirectoryError(f"{folder}: nothing was trained here (no metrics.jsonl); leave it out")
    version = str(load_yaml(run.config).get("segkc_deploy", "unknown"))
    training, validation, damaged = read_curves(run.metrics)
    log = read_log(run.log)
    steps = recipe.schedule.steps or log.steps
    steps_done = max([*training.steps, *validation.steps], default=0)
    roles = [role for role in ROLES if getattr(recipe, role) is not None]
    scores = {step: _scores(validation, step) for step in validation.steps}
    latest = max(scores, default=None)
    return TrainingRun(
        name=name,
        path=str(folder),
        recipe=recipe.name,
        method=str(recipe.method.get("name")),
        networks={role: getattr(recipe, role).backbone for role in roles},
        parameters={role: count_parameters(run.network(role)) for role in roles},
        shipped=recipe.ship,
        seed=recipe.seed,
        state=_state(log, steps, training, validation),
        steps_done=steps_done,
        steps=steps,
        miou=scores.get(steps, {}) if steps is not None else {},
        latest_step=latest,
        latest=scores[latest] if latest is not None else {},
        images=log.images,
        device=log.device,
        precision=recipe.precision,
        version=version,
        started=log.started,
        written=_changed(run.metrics),
        seconds=log.seconds,
        notes=_notes(damaged, steps, training),
        configuration=_configuration(recipe, data, version),
        training=training,
        validation=validation,
    )


def _state(
    log: LogFacts, steps: int | None, training: Curves, validation: Curves
) -> Literal["finished", "interrupted", "unfinished"]:
    last = training if log.images and not log.images["val"] else validation
    if steps is not None and steps in last.steps:
        return "finished"
    return "interrupted" if log.interrupted else "unfinished"


def _scores(validation: Curves, step: int) -> dict[str, float]:
    found = {name.removeprefix("miou_"): value for name, value in validation.at(step).items()}
    return {name: found[name] for name in NETWORKS if name in found}


def _notes(damaged: int, steps: int | None, training: Curves) -> list[str]:
    notes = []
    if damaged:
        notes.append(f"unreadable lines of metrics.jsonl, which are left out: {damaged}")
    if steps is None:
        notes.append("neither config.yaml nor train.log says how many steps it has, so its scores are not compared")
    if training.joined > 1:
        notes.append(f"each point of its training curves is the mean of {training.joined} records")
    return notes


def _configuration(recipe: Recipe, data: Path | None, version: str) -> dict[str, str]:
    content: dict[str, Any] = recipe.model_dump(mode="json", exclude=set(_SAME_TRAINING))
    return dict(flat(content | {"data": str(data), "segkc_deploy": version}))


def _changed(path: Path) -> str | None:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(path.stat().st_mtime)) if path.is_file() else None
