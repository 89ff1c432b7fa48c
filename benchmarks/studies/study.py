"""A study: which trainings are compared with which, in which order they are done, and the files that ask for them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator

from segkc_deploy import atomic
from segkc_deploy.data.partitions import partitions
from segkc_deploy.errors import ConfigError
from segkc_deploy.validation import did_you_mean, load_yaml, validate

#: All labels, instead of a fraction such as `1/8`.
FULL = "full"

#: What a row may say that names another row.
_OTHER_ROWS = ("like", "pseudo_labels_from")


@dataclass(frozen=True)
class Trial:
    """One training of a study: a row of its tables, a share of the labels (`1/8`, `full`), a seed."""

    row: str
    labels: str
    seed: int

    @property
    def name(self) -> str:
        """Its name in file names."""
        return f"{self.row}-{in_file_names(self.labels)}-seed{self.seed}"


def in_file_names(labels: str) -> str:
    """Return a share of the labels as file names have it: `1_8` for `1/8`."""
    return labels.replace("/", "_")


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrialBlock(_Part):
    """Every row with every share of labels and every seed; `rows: all` stands for all rows."""

    rows: Annotated[list[str], BeforeValidator(_as_list), Field(min_length=1)]
    labels: Annotated[list[str], BeforeValidator(_as_list), Field(min_length=1)]
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], BeforeValidator(_as_list), Field(min_length=1)]


class Study(_Part):
    """What a study file holds. `load_study` reads one.

    Attributes:
        name: the `study` of its rows.
        summary: one sentence about what is compared.
        data: the data spec without `root` and without the choice of the labeled images.
        lists: below `root`, the list of a share's labeled images, such as `splits/seed{seed}/{labels}/labeled.txt`;
            `{labels}` becomes `1_8` for `1/8`, and with `{seed}` every seed has labels of its own.
        base: the recipe that every row starts from, shipped or a file beside the study.
        common: what every row has on top of its base: steps, crop, augmentation, junior.
        rows: by name, what the row changes; `base` or `like` (another row) replace what it starts from. A row with
            `pseudo_labels_from` (another row) learns from the labels and from the masks that the network of that row's
            finished trial gives the unlabeled images.
        compared: sections of the recipe in which rows may differ, where the study compares these and no methods:
            `supervision`, `weak` and `junior`. Validation stays the same.
        trials: blocks of trainings, the most important ones first.
        merge: by class, the classes that count as it in a second mIoU; without it there is none.
    """

    name: str = Field(pattern=r"^[\w.-]+$")
    summary: str = ""
    data: dict[str, Any]
    lists: str | None = None
    base: str
    common: dict[str, Any] = {}
    rows: dict[Annotated[str, Field(pattern=r"^[\w.+-]+$")], dict[str, Any]] = Field(min_length=1)
    compared: tuple[Literal["supervision", "weak", "junior"], ...] = ()
    trials: list[TrialBlock] = Field(min_length=1, validation_alias=AliasChoices("trials", "cells"))
    merge: dict[str, list[str]] = {}

    _path: Path = PrivateAttr(default=Path("study"))

    @model_validator(mode="after")
    def _rows_exist(self) -> "Study":
        wanted = [row for block in self.trials for row in block.rows if row != "all"]
        wanted += [str(changes[key]) for changes in self.rows.values() for key in _OTHER_ROWS if key in changes]
        for row in wanted:
            if row not in self.rows:
                raise ValueError(f"no row {row!r}; {did_you_mean(row, self.rows)}")
        if both := [row for row, changes in self.rows.items() if {"base", "like"} <= changes.keys()]:
            raise ValueError(f"row {both[0]} has both base and like; keep one")
        for row, changes in self.rows.items():
            if "pseudo_labels_from" in self.rows.get(str(changes.get("pseudo_labels_from")), {}):
                raise ValueError(f"row {row}: pseudo_labels_from names a row that learns pseudo-labels itself")
        for labels in (labels for block in self.trials for labels in block.labels):
            if not re.fullmatch(r"\w[\w/-]*", labels):
                raise ValueError(f"labels {labels!r}: write a fraction such as 1/8, a partition's name, or {FULL}")
        return self

    @property
    def path(self) -> Path:
        """The file that the study was read from."""
        return self._path

    def labeling_trial(self, trial: Trial) -> Trial | None:
        """Return the trial whose network labels the unlabeled images for this one; None where none does."""
        row = self.rows[trial.row].get("pseudo_labels_from")
        return None if row is None else Trial(str(row), trial.labels, trial.seed)

    def ordered_trials(self) -> list[Trial]:
        """Return the trials by importance. Within a block all rows get a seed before any row gets the next one."""
        trials = (
            Trial(row, labels, seed)
            for block in self.trials
            for seed in block.seeds
            for labels in block.labels
            for row in (self.rows if "all" in block.rows else block.rows)
        )
        return list(dict.fromkeys(trials))


def load_study(path: Path) -> Study:
    """Read and check a study file.

    Raises:
        ConfigError: one line that names the file, the key and the fix.
    """
    study = validate(Study, load_yaml(path), path)
    study._path = path
    return study


def chosen_trials(study: Study, only: str | None) -> list[Trial]:
    """Return the study's trials, or those that `row=segkc,labels=1/8,seed=0` describes; a key may come several times.

    Raises:
        ConfigError: a word that is not `row`, `labels` or `seed`, or no trial is left.
    """
    wanted: dict[str, set[str]] = {}
    for part in only.split(",") if only else []:
        key, equals, value = part.strip().partition("=")
        if key not in ("row", "labels", "seed") or not equals:
            raise ConfigError(f"--only {part!r}: write row=NAME, labels=1/8 or seed=0, with commas between them")
        wanted.setdefault(key, set()).add(value)
    trials = [
        trial
        for trial in study.ordered_trials()
        if all(str(getattr(trial, key)) in values for key, values in wanted.items())
    ]
    if not trials:
        raise ConfigError(f"--only {only}: {study.path} has no such trial")
    return trials


def write_recipes(study: Study, folder: Path) -> dict[str, Path]:
    """Write the recipe file of every row and return them by row.

    A row is laid over the study's common values, and those over its base: two files, since a recipe has one base.
    """
    files = {}
    for row, changes in study.rows.items():
        changes = {key: value for key, value in changes.items() if key != "pseudo_labels_from"}
        if like := changes.pop("like", None):
            below = f"{like}.yaml"
        else:
            below = f"{row}.common.yaml"
            base = str(changes.pop("base", study.base))
            if Path(base).suffix in (".yaml", ".yml"):
                base = str((study.path.parent / base).resolve())
            _write_yaml(folder / below, {"base": base} | study.common)
        files[row] = folder / f"{row}.yaml"
        _write_yaml(files[row], {"base": below, "name": row} | changes)
    return files


def write_data_spec(study: Study, labels: str, seed: int, root: Path, lists: Path | None, folder: Path) -> Path:
    """Write the data spec of one share of the labels and return its path.

    Args:
        study: the study.
        labels: the share.
        seed: the seed, which matters only where the study's `lists` depend on it.
        root: the data set.
        lists: a folder with a list of ids for each share (`1_8.txt`); without it and without lists of the study's own,
            the published partition of that name is taken, or else as large a part as drawn by seed 0.
        folder: where the spec is written.
    """
    spec: dict[str, Any] = study.data | {"root": str(root.resolve())}
    name = in_file_names(labels)
    if labels != FULL:
        if lists:
            chosen = {"ids": str((lists / f"{name}.txt").resolve())}
        elif study.lists:
            chosen = {"ids": study.lists.format(labels=name, seed=seed)}
            name = f"{name}-seed{seed}" if "{seed}" in study.lists else name
        else:
            chosen = {"partition" if labels in partitions(str(study.data.get("layout"))) else "fraction": labels}
        spec["labeled"] = dict(spec.get("labeled") or {}) | chosen
    path = folder / f"{name}.yaml"
    _write_yaml(path, spec)
    return path


def _write_yaml(path: Path, content: dict[str, Any]) -> None:
    text = yaml.safe_dump(content, sort_keys=False)
    # Trainings of another invocation may be reading it.
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        atomic.write_text(path, text)
