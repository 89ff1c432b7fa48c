"""How to measure: the options of a benchmark, and the suite file that may give them together with the targets.

`MeasureOptions` is the one place of these options and their defaults: the suite file extends it, the command line
fills it, and every worker's job carries it.
"""

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from segkc_deploy.errors import ConfigError
from segkc_deploy.manifest import manifest_path
from segkc_deploy.validation import load_yaml, validate

_Count = Annotated[int, Field(ge=1)]
_Batches = Annotated[tuple[_Count, ...], Field(min_length=1), AfterValidator(lambda sizes: tuple(sorted(set(sizes))))]
_WILDCARDS = "*?["


class MeasureOptions(BaseModel):
    """How each row is measured.

    Attributes:
        batches: batch sizes of the throughput, in ascending order.
        seconds: time to measure each latency for; the warm-up may take twice that.
        samples: number of runs to measure instead of a time.
        device: `auto`, `cpu` or `cuda`.
        threads: CPU threads of one inference; the engine's own default if None.
        images: validation images to cycle through when timing.
        block: successive images drawn together for the intervals of mIoU.
        sustained: seconds of load without pauses, for throughput and energy; 0 skips it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    batches: _Batches = (1, 2, 4, 8)
    seconds: float = Field(default=5.0, ge=0.01, allow_inf_nan=False)
    samples: _Count | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: _Count | None = None
    images: _Count = 32
    block: _Count = 1
    sustained: float = Field(default=60.0, ge=0, allow_inf_nan=False)


class NamedTarget(BaseModel):
    """A run directory or an artifact, and its name in the report; a run's two rows add their role."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(min_length=1)
    name: str | None = Field(default=None, min_length=1)


class SuiteFile(MeasureOptions):
    """What a suite file holds. Paths are relative to its folder; keys that are missing keep the command's defaults."""

    targets: list[str | NamedTarget] = Field(default_factory=list)
    data: str | None = None
    out: str | None = None
    rounds: int | None = Field(default=None, ge=0)
    pictures: bool | None = None
    baseline: str | None = None
    fail_if: list[str] = Field(default_factory=list)


@dataclass(frozen=True)
class Suite:
    """A suite with its paths resolved: `options` holds those that the file gives, `names` those of named targets."""

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
        ConfigError: one line that names the file, the key and the fix; a pattern that matches nothing is an error too.
    """
    stored = validate(SuiteFile, load_yaml(path), path)
    folder = path.parent
    given = [NamedTarget(path=target) if isinstance(target, str) else target for target in stored.targets]
    targets, names = _find(given, folder, path)
    return Suite(
        targets=targets,
        names=names,
        data=None if stored.data is None else folder / stored.data,
        out=None if stored.out is None else folder / stored.out,
        options=stored.model_dump(include=set(MeasureOptions.model_fields), exclude_unset=True),
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

    Other files beside them are passed over, and artifacts that the export's verification has rejected.
    """
    # Unlike `Path.glob` it passes hidden files over, such as an export's unfinished ones, and takes absolute patterns.
    found = [folder / name for name in sorted(glob.glob(pattern, root_dir=folder, recursive=True))]  # noqa: PTH207
    targets = [match for match in found if manifest_path(match).is_file() or (match / "junior.safetensors").is_file()]
    matches = [target for target in targets if target.suffix != ".rejected"]
    if not matches:
        raise ConfigError(f"{suite}: targets: {pattern} finds no artifact and no run directory below {folder}")
    return matches
