"""The folder that holds everything one training produced, and the rules for opening it."""

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from segkc_deploy import __version__, atomic
from segkc_deploy.engines import ENGINES
from segkc_deploy.errors import ConfigError, RunDirectoryError
from segkc_deploy.folder_lock import LOCK_NAME
from segkc_deploy.training.recipe import Recipe, ValidationConfig
from segkc_deploy.validation import load_yaml, require_text, validate

#: What `segkc_deploy.atomic` calls the files of a run until they are complete.
_TEMPORARY = re.compile(r"\.(junior|senior|last|config|metrics)-[a-z0-9_]{8}\.(safetensors|yaml|jsonl)")


@dataclass(frozen=True)
class RunDirectory:
    """Paths inside a run directory."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved recipe and where the data is."""
        return self.path / "config.yaml"

    @property
    def checkpoint(self) -> Path:
        """The state from which `--resume` continues."""
        return self.path / "checkpoints" / "last.safetensors"

    @property
    def previous_checkpoint(self) -> Path:
        """The checkpoint before the last one, used where the last one is damaged."""
        return self.path / "checkpoints" / "previous.safetensors"

    @property
    def key(self) -> str:
        """A name that no other run has, the same as long as this one is continued; 16 hexadecimal digits."""
        if key := load_yaml(self.config).get("key"):
            return str(key)
        made = self.config.stat().st_mtime_ns  # a run that is overwritten is another one, whatever its recipe
        return hashlib.sha256(self.config.read_bytes() + str(made).encode()).hexdigest()[:16]

    def existing_checkpoints(self) -> list[Path]:
        """Return the checkpoints there are, newest first."""
        return [path for path in (self.checkpoint, self.previous_checkpoint) if path.is_file()]

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "train.log"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    def network(self, role: str) -> Path:
        """Weights and description of the `junior` or the `senior`."""
        return self.path / f"{role}.safetensors"


def create_run(
    path: Path, recipe: Recipe, data: Path | None, overwrite: bool, origin: dict[str, Any] | None = None
) -> RunDirectory:
    """Make an empty run directory and write its `config.yaml`.

    Args:
        path: the folder.
        recipe: what the run is made by.
        data: the data spec.
        overwrite: delete an earlier run first.
        origin: what else tells where the run comes from: the launcher's `job`, or where weights were `imported` from.

    Raises:
        RunDirectoryError: the folder has content and `overwrite` is not set, or has content that no run wrote.
    """
    run = RunDirectory(path)
    remove_temporaries(run)
    for found in require_room(run, overwrite):
        if found.is_dir() and not found.is_symlink():
            shutil.rmtree(found)
        else:
            found.unlink()
    content = {
        "segkc_deploy": __version__,
        **(origin or {}),
        "data": str(data.resolve()) if data else None,
        "recipe": recipe.model_dump(mode="json", exclude_none=True),
    }
    atomic.write_text(run.config, yaml.safe_dump(content, sort_keys=False))
    return run


def store_session(run: RunDirectory, validation: ValidationConfig, data: Path) -> None:
    """Write how a resumed run scores from now on, and where its data is, into its `config.yaml` for later commands.

    The run keeps its key, which was made from what the file held before.
    """
    stored, stored_data = read_config(run)
    if stored.validation == validation and stored_data == data.resolve():
        return
    content = load_yaml(run.config)
    recipe = content["recipe"] | {"validation": validation.model_dump(mode="json", exclude_none=True)}
    content = content | {"key": run.key, "data": str(data.resolve()), "recipe": recipe}
    atomic.write_text(run.config, yaml.safe_dump(content, sort_keys=False))


def remove_temporaries(run: RunDirectory) -> None:
    """Remove the unfinished files that a killed process left; the caller holds the run's lock."""
    for folder in (run.path, run.checkpoint.parent):
        for path in folder.glob(".*") if folder.is_dir() else ():
            if _TEMPORARY.fullmatch(path.name):
                path.unlink()


def require_room(run: RunDirectory, overwrite: bool) -> list[Path]:
    """Return what of the folder's content an earlier run wrote, for it to be deleted.

    Raises:
        RunDirectoryError: there is some and `overwrite` is not set, or there is something that no run wrote.
    """
    path = run.path
    if not path.exists() or (path.is_dir() and all(_is_left(entry) for entry in path.iterdir())):
        return []
    if not overwrite:
        raise RunDirectoryError(f"{path}: not empty; add --overwrite to start anew, or --resume to train on")
    written = {
        *(path.name for path in (run.config, run.log, run.metrics, run.tensorboard, run.checkpoint.parent)),
        *(run.network(role).name for role in ("junior", "senior")),
        "wandb",  # what Weights & Biases keeps of an offline run
    }
    found = [entry for entry in sorted(path.iterdir()) if not _is_left(entry)] if path.is_dir() else []
    foreign = [entry.name for entry in found if entry.name not in written and not _is_artifact(entry)]
    if foreign or not run.config.is_file() or path.is_symlink():
        what = f"holds {foreign[0]!r}, which no run wrote" if foreign else "not a run"
        raise RunDirectoryError(f"{path}: {what}, so it is not overwritten; choose another --out")
    return found


def _is_left(path: Path) -> bool:
    """Whether a killed process, or the one that holds the lock, left it."""
    return path.name == LOCK_NAME or bool(_TEMPORARY.fullmatch(path.name))


def _is_artifact(path: Path) -> bool:
    """Whether `export` wrote it: an artifact's default place is its run. `junior-old.safetensors` is no artifact."""
    precisions = "|".join({precision for entry in ENGINES.values() for precision in entry.precisions})
    return path.is_file() and bool(re.fullmatch(rf"\.?junior-({precisions})[.-].+", path.name))


def read_config(run: RunDirectory) -> tuple[Recipe, Path | None]:
    """Return the recipe and the data spec's path of an existing run; None where it was imported without a spec.

    Raises:
        RunDirectoryError: this is not a run directory.
        ConfigError: its path is not UTF-8.
    """
    require_text(run.path, "run")
    if not run.config.is_file():
        raise RunDirectoryError(f"{run.path}: not a run directory (it has no config.yaml)")
    content = load_yaml(run.config)
    data = content.get("data")
    return validate(Recipe, content.get("recipe"), f"{run.config}, recipe"), None if data is None else Path(str(data))


def is_trained_here(run: RunDirectory) -> bool:
    """Return whether training made the run; an imported one says in a section of its own where it comes from."""
    return load_yaml(run.config).keys() <= {"segkc_deploy", "job", "data", "key", "recipe"}


def is_of_job(run: RunDirectory, job: str | None) -> bool:
    """Return whether the launcher's `job` began the run, or may have done so: not all launchers name their jobs."""
    return load_yaml(run.config).get("job", job) == job


def check_same_recipe(run: RunDirectory, stored: Recipe, given: Recipe) -> None:
    """Raise ConfigError, naming the first key that differs, unless a resumed run is given the recipe it began with."""
    difference = _first_difference(stored.model_dump(mode="json"), given.model_dump(mode="json"))
    if difference:
        key, old, new = difference
        raise ConfigError(
            f"{run.config}: this run began with {key} = {old}, not {new}; leave --recipe and -o out to resume it,"
            " or train into another --out"
        )


def _first_difference(old: Any, new: Any, key: str = "") -> tuple[str, Any, Any] | None:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in old.keys() | new.keys():
            found = _first_difference(old.get(name), new.get(name), f"{key}.{name}".removeprefix("."))
            if found:
                return found
        return None
    return None if old == new else (key, old, new)
