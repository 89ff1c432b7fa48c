"""Joins the results of several machines into one, whose report is made as any other's.

Rows get their machine's label behind their name. Nothing is computed across machines: ratios stay within one.
"""

import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkc_deploy.benchmarks.regression.comparable import other_data, scored_images
from segkc_deploy.benchmarks.report.pictures import remove_pictures
from segkc_deploy.benchmarks.report.report_files import require_no_trainings, write_report
from segkc_deploy.benchmarks.schema import BenchmarkResult, Comparison, Failure, Picture, Row, Source
from segkc_deploy.benchmarks.store.result_file import read_result
from segkc_deploy.errors import ConfigError
from segkc_deploy.invocation import command_line

#: What makers and marketing add to a processor's name.
_NOISE = re.compile(r"\((R|TM|C)\)|\b(Intel|AMD|NVIDIA|CPU|Processor|\d+-Core)\b|@.*$", re.IGNORECASE)
_MEASURED_IMAGES = ("input", "truth")


@dataclass(frozen=True)
class Labeled:
    """A stored result, its file, and what its rows are labeled with."""

    label: str
    file: Path
    result: BenchmarkResult

    def called(self, name: str) -> str:
        """Return the name in the comparison of a row of this result."""
        return f"{name} @ {self.label}"


def compare(files: Sequence[tuple[str | None, Path]], out: Path, accuracy: bool = True) -> BenchmarkResult:
    """Join stored results and write `benchmark.json`, `benchmark.md` and `index.html` into `out`.

    Args:
        files: the results with the labels that were given to them; without one it is the machine's short name.
        out: the report's folder, made when missing.
        accuracy: whether to keep the accuracy; without it the results may be of different data.

    Raises:
        ConfigError: a file cannot be read or is in `out`, labels are alike, or the results are of different data.
    """
    results = _labeled([(label, file, read_result(file)) for label, file in files])
    _check(results, out, accuracy)
    joined = BenchmarkResult(
        created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        command=command_line(),
        options=_common(results, lambda result: result.options),
        machine=_common(results, lambda result: result.machine),
        versions=_common(results, lambda result: result.versions),
        data=_one_or_each([(labeled.label, labeled.result.data) for labeled in results]),
        labels=results[0].result.labels,
        rows=[_row(row, labeled, accuracy) for labeled in results for row in labeled.result.rows],
        failures=[_failure(failure, labeled) for labeled in results for failure in labeled.result.failures],
        notes=[f"{labeled.label}: {note}" for labeled in results for note in labeled.result.notes],
        sources=[_source(labeled) for labeled in results],
    )
    remove_pictures(out)  # of an earlier comparison
    if accuracy:
        _take_pictures(joined, results, out)
    write_report(joined, out)
    return joined


def short_name(machine: dict[str, Any]) -> str:
    """Return a few words for a machine: its GPU, or its processor where it has none."""
    gpus = machine.get("gpus") or []
    full = str(gpus[0].get("name") if gpus else machine.get("cpu") or "machine")
    return " ".join(_NOISE.sub(" ", full).split()) or full


def _labeled(stored: Sequence[tuple[str | None, Path, BenchmarkResult]]) -> list[Labeled]:
    """Label each result; where two machines have one name, the results' folders tell them apart."""
    labels = [label or short_name(result.machine) for label, _, result in stored]
    results = []
    for (given, file, result), label in zip(stored, labels, strict=True):
        alike = given is None and labels.count(label) > 1
        results.append(Labeled(f"{label}, {file.absolute().parent.name}" if alike else label, file, result))
    return results


def _check(results: Sequence[Labeled], out: Path, accuracy: bool) -> None:
    # Where no row of a result was scored, nothing says which images it is of.
    first = next((labeled for labeled in results if scored_images(labeled.result)), results[0])
    for place, labeled in enumerate(results):
        if labeled.result.sources:
            raise ConfigError(f"{labeled.file}: is a comparison itself; give the results that it was made of")
        if labeled.file.resolve().parent == out.resolve():
            raise ConfigError(f"{labeled.file}: would be overwritten; give another --out")
        if twice := next((other for other in results[:place] if other.label == labeled.label), None):
            raise ConfigError(
                f"{twice.file} and {labeled.file}: both would be called {labeled.label!r}; label them, NAME=FILE"
            )
        other = other_data(first.result.labels.names, scored_images(first.result), labeled.result)
        if accuracy and other:
            raise ConfigError(
                f"{labeled.file}: is of other data than {first.file}: {other};"
                " add --without-accuracy to compare the rest"
            )
    require_no_trainings(out)
    if (out / "benchmark.json").exists() and not read_result(out / "benchmark.json").sources:
        raise ConfigError(f"{out}: holds a benchmark, which would be lost; give another --out")


def _row(row: Row, labeled: Labeled, accuracy: bool) -> Row:
    changes: dict[str, Any] = {"name": labeled.called(row.name), "machine": labeled.label}
    if not accuracy:
        changes["accuracy"] = None
    elif row.accuracy and row.accuracy.agreement_with:
        twin = {"agreement_with": labeled.called(row.accuracy.agreement_with)}
        changes["accuracy"] = row.accuracy.model_copy(update=twin)
    return row.model_copy(update=changes)


def _failure(failure: Failure, labeled: Labeled) -> Failure:
    return failure.model_copy(update={"name": labeled.called(failure.name)})


def _source(labeled: Labeled) -> Source:
    shared = {name: getattr(labeled.result, name) for name in Source.model_fields if name not in ("label", "file")}
    return Source(label=labeled.label, file=str(labeled.file), **shared)


def _common(results: Sequence[Labeled], part: Callable[[BenchmarkResult], dict[str, Any]]) -> dict[str, Any]:
    """Return one mapping of several: each key's value where all that have it agree, else each value with its label."""
    keys = dict.fromkeys(key for labeled in results for key in part(labeled.result))
    return {key: _one_or_each([(labeled.label, part(labeled.result).get(key)) for labeled in results]) for key in keys}


def _one_or_each(values: Sequence[tuple[str, Any]]) -> Any:
    first = values[0][1]
    if all(value == first for _, value in values):
        return first
    return "; ".join(f"{_plain(value)} ({label})" for label, value in values)


def _plain(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return ", ".join(str(item.get("name")) for item in value) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _take_pictures(joined: BenchmarkResult, results: Sequence[Labeled], out: Path) -> None:
    """Copy the pictures of the first result that has any: masks are nearly alike on every machine."""
    for labeled in results:
        folder, result = labeled.file.parent, labeled.result
        if not any(
            (folder / picture.file).is_file() for comparison in result.comparisons for picture in comparison.pictures
        ):
            continue
        joined.chosen_by = labeled.called(result.chosen_by) if result.chosen_by else None
        joined.comparisons = [_copied(comparison, labeled, out) for comparison in result.comparisons]
        return


def _copied(comparison: Comparison, labeled: Labeled, out: Path) -> Comparison:
    copies = []
    for picture in comparison.pictures:
        source, target = labeled.file.parent / picture.file, out / picture.file
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        title = picture.title if picture.title in _MEASURED_IMAGES else labeled.called(picture.title)
        copies.append(Picture(title=title, file=picture.file))
    return comparison.model_copy(update={"pictures": copies})
