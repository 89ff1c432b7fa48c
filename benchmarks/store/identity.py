"""What a row's metrics depend on: a rerun keeps the row that has the same identity and measures the others."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import segkc_deploy
from segkc_deploy.benchmarks.targets import PlannedRow
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.manifest import manifest_path, sha256_of

#: Environment variables that change how fast a row runs, or where.
_VARIABLES = (
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
)
_FOLDERS_WITHOUT_FIGURES = ("cli", "__pycache__")


def row_identity(row: PlannedRow, conditions: Mapping[str, Any]) -> str:
    """Return the sha256 of everything that a row's metrics depend on, its name left out.

    Args:
        row: its role, its target as it was given, and the target's content.
        conditions: what is the same for all rows, of `shared_conditions`.
    """
    what = {"role": row.role, "target": str(row.target), "content": _content(row)}
    return _digest(what | dict(conditions))


def timing_identity(rows: Sequence[str], rounds: int) -> str:
    """Return the sha256 of everything that the interleaved timing depends on, given all rows' identities."""
    return _digest({"rows": list(rows), "rounds": rounds})


def peaks_identity(conditions: Mapping[str, Any], wanted: Mapping[Any, Sequence[str]]) -> str:
    """Return the sha256 of everything that the machine's peaks depend on: all `shared_conditions` but the data."""
    kept = {name: conditions[name] for name in ("machine", "versions", "environment", "code")}
    options = {name: conditions["options"][name] for name in ("threads", "seconds")}
    return _digest(kept | options | {"wanted": dict(wanted)})


def shared_conditions(
    sets: ImageSets, options: Mapping[str, Any], machine: Mapping[str, Any], versions: Mapping[str, str]
) -> dict[str, Any]:
    """Return what all rows of one benchmark depend on: the data, the options, the machine, the versions and the code.

    Images and masks count by their path, size and time of change; the code by its files, since a checkout keeps its
    version for many changes.
    """
    return {
        "data": _data(sets),
        "options": dict(options),
        "machine": dict(machine),
        "versions": dict(versions),
        "environment": {name: os.environ.get(name) for name in _VARIABLES},
        "code": _code(),
    }


def _content(row: PlannedRow) -> str:
    if row.role == "artifact":
        # The manifest holds the sha256 of the artifact and of its companions; `plan` has compared them.
        return sha256_of(manifest_path(row.target))
    return sha256_of(row.target / f"{row.role}.safetensors")


def _data(sets: ImageSets) -> str:
    files = [(sample.id, *map(_stamp, (sample.image, sample.mask))) for sample in sets.val]
    coding = sets.coding
    mappings = [sorted(mapping.items()) for mapping in (coding.label_mapping, coding.colors, coding.name_mapping)]
    meaning = [sets.labels.model_dump(mode="json"), mappings, coding.by_color, coding.object_names, str(sets.pixels)]
    return _digest([meaning, files])


def _stamp(path: Path | None) -> list[Any] | None:
    if path is None:
        return None
    status = path.stat()
    return [str(path), status.st_size, status.st_mtime_ns]


def _code() -> str:
    digest = hashlib.sha256()
    assert segkc_deploy.__file__ is not None
    # `os.walk` follows the links to training, export and benchmarks.
    for folder, inner, names in os.walk(Path(segkc_deploy.__file__).parent, followlinks=True):
        inner[:] = sorted(name for name in inner if name not in _FOLDERS_WITHOUT_FIGURES)
        for name in sorted(name for name in names if name.endswith(".py")):
            digest.update(name.encode() + (Path(folder) / name).read_bytes())
    return digest.hexdigest()


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
