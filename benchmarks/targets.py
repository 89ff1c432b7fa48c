"""What a benchmark's targets are: a run directory gives its senior and its junior, an artifact itself."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from segkc_deploy.benchmarks.schema import Role
from segkc_deploy.errors import ArtifactError, ConfigError, RunDirectoryError
from segkc_deploy.manifest import read_manifest


@dataclass(frozen=True)
class PlannedRow:
    """A row to measure; `name` is unique among the planned ones."""

    name: str
    role: Role
    target: Path


def plan(targets: Sequence[Path]) -> tuple[list[PlannedRow], list[str]]:
    """Return the rows of `targets` in the order of the report, and notes about what was left out and why.

    Raises:
        UserError: a target is missing or is neither a run directory nor an artifact, or no row is left.
    """
    if len(set(targets)) < len(targets):
        twice = next(target for target, count in Counter(targets).items() if count > 1)
        raise ConfigError(f"{twice}: given twice; give each target once")
    rows: list[tuple[Role, Path]] = []
    notes: list[str] = []
    for target in targets:
        if not target.is_dir():
            if not target.exists():
                raise ArtifactError(f"{target}: no such run directory or artifact")
            read_manifest(target)
            rows.append(("artifact", target))
            continue
        roles = [role for role in _RUN_ROLES if (target / f"{role}.safetensors").is_file()]
        if "junior" not in roles:
            raise RunDirectoryError(f"{target}: holds no junior.safetensors; train first, or name an artifact's file")
        if find_spec("torch") is None or find_spec("timm") is None:
            notes.append(
                f"{target}: its PyTorch rows ({', '.join(roles)}) are left out, since torch or timm is not installed:"
                ' pip install "segkc-deploy[train]"'
            )
            continue
        rows += [(role, target) for role in roles]
    if not rows:
        raise ConfigError(f"nothing to measure: {'; '.join(notes)}")
    names = _unique_names(rows)
    return [PlannedRow(name, role, target) for name, (role, target) in zip(names, rows, strict=True)], notes


_RUN_ROLES: tuple[Role, ...] = ("senior", "junior")


def _unique_names(rows: Sequence[tuple[Role, Path]]) -> list[str]:
    """Name artifacts by their file and networks by run and role, with as many parent folders as tell them apart."""
    depth = 1
    while True:
        names = [_name(role, target.absolute(), depth) for role, target in rows]
        if len(set(names)) == len(names):
            return names
        depth += 1


def _name(role: Role, target: Path, depth: int) -> str:
    tail = "/".join(target.parts[-depth:])
    return tail if role == "artifact" else f"{tail} {role}"
