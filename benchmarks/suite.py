"""Runs a whole benchmark: one fresh process a row, the result on disk after each, and the report at the end."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from segkc_deploy.benchmarks.pictures import mask_path, read_mask, save_pictures
from segkc_deploy.benchmarks.report import write_report
from segkc_deploy.benchmarks.schema import BenchmarkResult, Failure, Row
from segkc_deploy.benchmarks.targets import PlannedRow, plan
from segkc_deploy.benchmarks.worker import Order
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import DataError
from segkc_deploy.invocation import command_line
from segkc_deploy.machine import describe_machine
from segkc_deploy.progress import console

_MORE_PACKAGES = ("segkc-deploy", "timm")


@dataclass(frozen=True)
class Options:
    """How to measure: see `segkc-deploy benchmark --help`."""

    batches: tuple[int, ...] = (1, 2, 4, 8)
    seconds: float = 5.0
    samples: int | None = None
    device: str = "auto"
    threads: int | None = None
    images: int = 32


def run_benchmark(targets: Sequence[Path], data: Path, out: Path, options: Options | None = None) -> BenchmarkResult:
    """Measure every row of `targets` and write `benchmark.json`, `benchmark.md` and `index.html` into `out`.

    `benchmark.json` is rewritten after each row. A row that fails is listed in the result's `failures`; the others
    are measured all the same.

    Args:
        targets: run directories and artifacts.
        data: the data spec; its validation images are predicted and timed.
        out: the report's folder, made when missing.
        options: how to measure.

    Raises:
        UserError: a target or the data cannot be used; found before anything is measured.
    """
    options = options or Options()
    planned, notes = plan(targets)
    sets = load_data_spec(data).resolve()
    if not sets.val:
        raise DataError(f"{data}: no validation images, and a benchmark is made of them (section `val:`)")
    result = _new_result(data, sets, options, notes)
    with tempfile.TemporaryDirectory(prefix="segkc-benchmark-") as scratch:
        masks = {row.name: Path(scratch) / f"{place:03d}-masks" for place, row in enumerate(planned)}
        # The junior first: the others are compared with its masks.
        for row in sorted(planned, key=lambda row: row.role != "junior"):
            console.print(f"Measuring {row.name}", soft_wrap=True)
            measured, error = _measure(row, data, masks[row.name], options)
            if measured is not None:
                result.rows.append(measured)
                result.rows.sort(key=lambda done: [row.name for row in planned].index(done.name))
                _compare_with_junior(measured, result.rows, masks)
            if error is not None:
                console.print(f"{row.name}: {error}", style="red", soft_wrap=True, markup=False)
                result.failures.append(Failure(name=row.name, role=row.role, target=str(row.target), error=error))
            result.write(out / "benchmark.json")
        save_pictures(result, sets, masks, out)
    result.write(out / "benchmark.json")
    write_report(result, out)
    return result


def _new_result(data: Path, sets: ImageSets, options: Options, notes: list[str]) -> BenchmarkResult:
    machine = describe_machine()
    versions = {"python": machine.pop("python"), **machine.pop("packages")}
    for package in _MORE_PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return BenchmarkResult(
        created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        command=command_line(),
        options=asdict(options),
        machine=machine,
        versions=versions,
        data=str(data),
        labels=sets.labels,
        notes=notes,
    )


def _measure(row: PlannedRow, data: Path, masks: Path, options: Options) -> tuple[Row | None, str | None]:
    """Return what a fresh process measured, and why it ended early if it did; both may be there."""
    masks.mkdir()
    order = Order(name=row.name, role=row.role, target=row.target, data=data, masks=masks, **asdict(options))
    order_file, row_file = masks / "order.json", masks / "row.json"
    order_file.write_text(order.model_dump_json())
    command = [sys.executable, "-m", "segkc_deploy.benchmarks.worker", str(order_file), str(row_file)]
    environment = dict(os.environ)
    if options.threads is not None:
        environment["OMP_NUM_THREADS"] = str(options.threads)  # PyTorch's threads
    ended = subprocess.run(command, env=environment, check=False)
    measured = Row.model_validate_json(row_file.read_bytes()) if row_file.exists() else None
    if ended.returncode == 0:
        return measured, None
    told = row_file.with_suffix(".error")
    if told.exists():
        return measured, told.read_text()
    ending = f"signal {-ended.returncode}" if ended.returncode < 0 else f"exit code {ended.returncode}"
    return measured, f"its process ended with {ending}; out of memory is the usual cause"


def _compare_with_junior(row: Row, rows: Sequence[Row], masks: dict[str, Path]) -> None:
    """Set the agreement of `row` with the PyTorch junior that it belongs to: the same weights, or the same run."""
    if row.accuracy is None or row.role == "junior":
        return
    for junior in rows:
        same_weights = row.about.get("weights_sha256") == junior.about.get("weights_sha256", "unknown")
        if junior.role != "junior" or junior.accuracy is None or not (same_weights or row.target == junior.target):
            continue
        row.accuracy.agreement = _agreement(masks[row.name], masks[junior.name], row.accuracy.images)
        row.accuracy.agreement_with = junior.name
        return


def _agreement(folder: Path, other: Path, images: int) -> float | None:
    """Percentage of pixels with the same class, over all pixels of all images."""
    equal = pixels = 0
    for place in range(images):
        if not mask_path(other, place).exists():
            return None
        mask = read_mask(folder, place)
        equal += int(np.count_nonzero(mask == read_mask(other, place)))
        pixels += mask.size
    return 100 * equal / pixels
