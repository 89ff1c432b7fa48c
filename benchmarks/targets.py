"""What a benchmark's targets are: a run directory gives its senior and its junior, an artifact itself."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from segkc_deploy.benchmarks.schema import Role
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.errors import ArtifactError, ConfigError, RunDirectoryError, UserError
from segkc_deploy.labels import require_same_classes
from segkc_deploy.manifest import read_manifest
from segkc_deploy.pixel_format import require_same_format


@dataclass(frozen=True)
class PlannedRow:
    """A row to measure; `name` is unique among the planned ones."""

    name: str
    role: Role
    target: Path


def plan(targets: Sequence[Path], names: Mapping[Path, str] | None = None) -> tuple[list[PlannedRow], list[str]]:
    """Return the rows of `targets` in the order of the report, and notes about what was left out and why.

    Args:
        targets: run directories and artifacts.
        names: what to call the rows of some targets; a run directory's are followed by the role.

    Raises:
        UserError: a target is missing or is neither a run directory nor an artifact, two rows would have one name, or
            no row is left.
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
                f"{target}: its PyTorch rows ({', '.join(roles)}) are left out, and its baselines,"
                ' since torch or timm is not installed: pip install "segkc-deploy[train]"'
            )
            continue
        rows += [(role, target) for role in roles]
    if not rows:
        raise ConfigError(f"nothing to measure: {'; '.join(notes)}")
    unique = _unique_names(rows, names or {})
    return [PlannedRow(name, role, target) for name, (role, target) in zip(unique, rows, strict=True)], notes


def require_fitting(rows: Sequence[PlannedRow], data: Path, sets: ImageSets) -> None:
    """Raise a UserError if no row's network has the classes of a data spec and takes its images.

    Of several rows, those that do not fit fail by themselves and leave the others alone.
    """
    reasons = []
    for row in rows:
        try:
            _require_same_data(row, data, sets)
        except UserError as error:
            reasons.append(error)
    if len(reasons) == len(rows):
        raise reasons[0]


def _require_same_data(row: PlannedRow, data: Path, sets: ImageSets) -> None:
    if row.role == "artifact":
        manifest = read_manifest(row.target)
        names, pixels = manifest.labels.names, manifest.contract.pixels
    else:
        from segkc_deploy.export.run_input import classes_and_pixels

        names, pixels = classes_and_pixels(row.target, row.role)
    require_same_classes(names, sets.labels.names, row.target, data)
    require_same_format(pixels, sets.pixels, row.target, data)


_RUN_ROLES: tuple[Role, ...] = ("senior", "junior")


def _unique_names(rows: Sequence[tuple[Role, Path]], given: Mapping[Path, str]) -> list[str]:
    """Name artifacts by their file and networks by run and role, with as many parent folders as tell them apart.

    Rows of a target in `given` keep the name that they have there.
    """
    longest = max(len(target.absolute().parts) for _, target in rows)
    for depth in range(1, longest + 1):
        names = [_name(role, given.get(target) or _tail(target, depth)) for role, target in rows]
        if len(set(names)) == len(names):
            return names
    twice = next(name for name, count in Counter(names).items() if count > 1)
    raise ConfigError(f"two rows are called {twice!r}; give their targets different names")


def _name(role: Role, target: str) -> str:
    return target if role == "artifact" else f"{target} {role}"


def _tail(target: Path, depth: int) -> str:
    return "/".join(target.absolute().parts[-depth:])
