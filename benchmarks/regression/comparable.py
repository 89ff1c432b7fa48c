"""Whether the metrics of two results may be compared."""

import re
from collections.abc import Sequence

from segkc_deploy.benchmarks.schema import BenchmarkResult, Row

#: What of a machine makes its timings another machine's.
_SAME_MACHINE = ("cpu", "cores", "gpus")
_SAME_OPTIONS = ("threads",)


def other_data(classes: Sequence[str], images: Sequence[str] | None, result: BenchmarkResult) -> str | None:
    """Return how the data of `result` differ from these, in words, or None where they are the same.

    Args:
        classes: class names in the order of their ids.
        images: ids of the validation images, None where no row was scored.
        result: the other result.
    """
    if tuple(classes) != result.labels.names:
        return f"its classes are {_listed(result.labels.names)}, not {_listed(classes)}"
    theirs = scored_images(result)
    if images is None or theirs is None or sorted(images) == sorted(theirs):
        return None
    if len(images) != len(theirs):
        return f"it was scored on {len(theirs)} images, not on {len(images)}"
    strange = min(set(theirs) ^ set(images))
    return f"it was scored on other images: {strange!r} is in one of the two alone"


def scored_images(result: BenchmarkResult) -> list[str] | None:
    """Return the ids of the images that the rows of `result` were scored on, None where none was scored."""
    return next(
        (list(row.accuracy.image_miou) for row in result.rows if row.accuracy and row.accuracy.image_miou), None
    )


def other_machine(ours: BenchmarkResult, theirs: BenchmarkResult) -> str | None:
    """Return why timings of two results cannot be compared, in words, or None where they can."""
    for key in _SAME_MACHINE:
        mine, other = _plain(ours.machine.get(key)), _plain(theirs.machine.get(key))
        if mine != other:
            return f"its {key} is {other}, here {mine}"
    for key in _SAME_OPTIONS:
        if ours.options.get(key) != theirs.options.get(key):
            return f"it was measured with --{key} {theirs.options.get(key)}, this one with {ours.options.get(key)}"
    return None


def other_row(ours: Row, theirs: Row) -> str | None:
    """Return how two rows of one name differ in what they are, in words; versions of a library are no difference."""
    mine, other = _kind(ours), _kind(theirs)
    return None if mine == other else f"it is {mine}, in the baseline {other}"


def _kind(row: Row) -> str:
    engine = re.sub(r"\s+v?\d+(\.\d+)+\S*", "", row.engine)
    return f"{row.role}, {engine}, {row.precision}, {row.size[0]}×{row.size[1]}"


def _plain(value: object) -> str:
    """Return a fact of a machine in words: of GPUs the name and memory, for a driver is a version like a library's."""
    if isinstance(value, list):
        return ", ".join(f"{gpu.get('name')} ({gpu.get('memory_mib')} MiB)" for gpu in value) or "none"
    return str(value)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])}, … ({len(names)})"
