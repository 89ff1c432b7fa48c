"""A suite: one YAML file that describes a whole benchmark, with the names of the command's options as its keys."""

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from segkc_deploy.errors import ConfigError
from segkc_deploy.manifest import manifest_path
from segkc_deploy.validation import load_yaml, validate

_Count = Annotated[int, Field(ge=1)]
_WILDCARDS = "*?["
#: Keys that are options of the measuring itself, under the same names.
_MEASURING = ("batches", "seconds", "samples", "device", "threads", "images", "block", "sustained")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NamedTarget(_Part):
    """A run directory or an artifact, and what the report calls it; a run's two rows add their role."""

    path: str = Field(min_length=1)
    name: str | None = Field(default=None, min_length=1)


class SuiteFile(_Part):
    """What a suite file holds. Paths are relative to its folder; what is left out is the command's own default."""

    targets: list[str | NamedTarget] = Field(default_factory=list)
    data: str | None = None
    out: str | None = None
    batches: list[_Count] | None = Field(default=None, min_length=1)
    seconds: float | None = Field(default=None, ge=0.01)
    samples: _Count | None = None
    device: str | None = None
    threads: _Count | None = None
    images: _Count | None = None
    block: _Count | None = None
    sustained: float | None = Field(default=None, ge=0)
    rounds: int | None = Field(default=None, ge=0)
    pictures: bool | None = None
    baseline: str | None = None
    fail_if: list[str] = Field(default_factory=list)


@dataclass(frozen=True)
class Suite:
    """A suite with its paths found: `options` holds those that the file gives, `names` those of named targets."""

    targets: list[Path] = field(default_factory=list)
    names: dict[Path, str] = field(default_factory=dict)
    data: Path | None = None
    out: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)
    rounds: int | None = None
    pictures: bool | None = None
    baseline: Path | None = None
    fail_if: list[str] = field(default_factory=list)


def read_suite(path: Path) -> Suite:
    """Read and check a suite file.

    Raises:
        ConfigError: one line that names the file, the key and the fix; a pattern that finds nothing is a mistake too.
    """
    stored = validate(SuiteFile, load_yaml(path), path)
    folder = path.parent
    given = [NamedTarget(path=target) if isinstance(target, str) else target for target in stored.targets]
    targets, names = _find(given, folder, path)
    options = {name: value for name in _MEASURING if (value := getattr(stored, name)) is not None}
    if "batches" in options:
        options["batches"] = tuple(sorted(set(options["batches"])))
    return Suite(
        targets=targets,
        names=names,
        data=None if stored.data is None else folder / stored.data,
        out=None if stored.out is None else folder / stored.out,
        options=options,
        rounds=stored.rounds,
        pictures=stored.pictures,
        baseline=None if stored.baseline is None else folder / stored.baseline,
        fail_if=stored.fail_if,
    )


def _find(given: Sequence[NamedTarget], folder: Path, suite: Path) -> tuple[list[Path], dict[Path, str]]:
    """Return the targets in order, each once, and the names that were given to some."""
    plain = {folder / target.path for target in given if not _is_pattern(folder, target)}
    targets: list[Path] = []
    names: dict[Path, str] = {}
    for target in given:
        found = [folder / target.path]
        if _is_pattern(folder, target):
            matches = _matches(folder, target.path, suite)
            # One that is also listed by itself stands where it is listed.
            found = [match for match in matches if match not in plain and match not in targets]
            if target.name is not None and len(matches) > 1:
                raise ConfigError(
                    f"{suite}: targets: {target.path} finds {len(matches)} targets: they need a name each"
                )
        if target.name is not None:
            names |= dict.fromkeys(found, target.name)
        targets += found
    if twice := [name for name, count in Counter(names.values()).items() if count > 1]:
        raise ConfigError(f"{suite}: targets: the name {twice[0]!r} is given twice")
    return targets, names


def _is_pattern(folder: Path, target: NamedTarget) -> bool:
    return any(character in target.path for character in _WILDCARDS) and not (folder / target.path).exists()


def _matches(folder: Path, pattern: str, suite: Path) -> list[Path]:
    """Return the artifacts and run directories that a pattern finds.

    Other files beside them are passed over, and artifacts that the export's gate has rejected.
    """
    # Unlike `Path.glob` it passes hidden files over, such as an export's unfinished ones, and takes absolute patterns.
    found = [folder / name for name in sorted(glob.glob(pattern, root_dir=folder, recursive=True))]  # noqa: PTH207
    targets = [match for match in found if manifest_path(match).is_file() or (match / "junior.safetensors").is_file()]
    matches = [target for target in targets if target.suffix != ".rejected"]
    if not matches:
        raise ConfigError(f"{suite}: targets: {pattern} finds no artifact and no run directory below {folder}")
    return matches
