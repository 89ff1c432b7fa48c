"""Runs a whole benchmark: one fresh process a row, the result on disk after each, and the report at the end."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from segkc_deploy.benchmarks.baseline_gate import Gate
from segkc_deploy.benchmarks.finished_rows import FinishedRows
from segkc_deploy.benchmarks.interval import miou_difference, read_counts
from segkc_deploy.benchmarks.mask_agreement import mask_agreement
from segkc_deploy.benchmarks.measure.floor import set_floor
from segkc_deploy.benchmarks.measure.peaks import FinishedPeaks, MeasuredPeaks, measure_peaks, wanted_peaks
from segkc_deploy.benchmarks.measure.worker import Order
from segkc_deploy.benchmarks.measure.worker_process import how_it_ended, worker_environment
from segkc_deploy.benchmarks.report.pictures import save_pictures
from segkc_deploy.benchmarks.report.report_files import write_report
from segkc_deploy.benchmarks.row_identity import peaks_identity, row_identity, shared_conditions, turns_identity
from segkc_deploy.benchmarks.schema import Accuracy, BenchmarkResult, Failure, InTurn, Row
from segkc_deploy.benchmarks.targets import PlannedRow, plan
from segkc_deploy.benchmarks.turns.finished_turns import FinishedTurns
from segkc_deploy.benchmarks.turns.in_turn import measure_in_turn, plan_ways
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import DataError
from segkc_deploy.invocation import command_line
from segkc_deploy.machine import describe_machine
from segkc_deploy.progress import console

_MORE_PACKAGES = ("segkc-deploy", "timm", "openvino", "tensorrt-rtx-cu13-bindings")

#: The longest for one size of one library's products.
_PEAK_SECONDS = 0.5

_TIME = "%Y-%m-%dT%H:%M:%S%z"


@dataclass(frozen=True)
class Options:
    """How to measure: see `segkc-deploy benchmark --help`."""

    batches: tuple[int, ...] = (1, 2, 4, 8)
    seconds: float = 5.0
    samples: int | None = None
    device: str = "auto"
    threads: int | None = None
    images: int = 32
    block: int = 1
    sustained: float = 60.0


def run_benchmark(
    targets: Sequence[Path],
    data: Path,
    out: Path,
    options: Options | None = None,
    *,
    names: Mapping[Path, str] | None = None,
    rounds: int = 0,
    fresh: bool = False,
    gate: Gate | None = None,
    pictures: bool = True,
) -> BenchmarkResult:
    """Measure every row of `targets` and write `benchmark.json`, `benchmark.md` and `index.html` into `out`.

    `benchmark.json` is rewritten after each row. A row that fails is listed in the result's `failures`; the others
    are measured all the same. Rows that an earlier call finished with the same `out` are kept, see `row_identity`.

    Args:
        targets: run directories and artifacts.
        data: the data spec; its validation images are predicted and timed.
        out: the report's folder, made when missing.
        options: how to measure.
        names: what to call the rows of some targets.
        rounds: how often rows and baselines are timed in turn, see `in_turn`; 0 leaves it out.
        fresh: measure the rows that are done again.
        gate: checked before anything is measured; its `violations` are the caller's to ask for.
        pictures: whether the report shows validation images.

    Raises:
        UserError: a target, the data or the gate cannot be used; found before anything is measured.
    """
    options = options or Options()
    planned, notes = plan(targets, names)
    sets = load_data_spec(data).resolve()
    if not sets.val:
        raise DataError(f"{data}: no validation images, and a benchmark is made of them (section `val:`)")
    result = _new_result(data, sets, options, notes)
    if gate is not None:
        gate.check(result, planned, [sample.id for sample in sets.val])
    conditions = shared_conditions(sets, result.options, result.machine, result.versions)
    identities = {row.name: row_identity(row, conditions) for row in planned}
    finished = FinishedRows(out)
    if fresh:
        finished.forget_all_but(())
        FinishedTurns(out).forget()
        FinishedPeaks(out).forget()
    _measure_rows(result, planned, data, options, identities, finished, out)
    peaks = _peaks(result.rows, conditions, options, FinishedPeaks(out))
    result.peaks, result.notes = peaks.peaks, [*result.notes, *peaks.notes]
    for row in result.rows:
        set_floor(row, peaks.peaks)
    if rounds:
        result.in_turn = _in_turn(result.rows, identities, data, options, rounds, FinishedTurns(out))
    if pictures:
        save_pictures(result, sets, {name: finished.masks(identity) for name, identity in identities.items()}, out)
    finished.forget_all_but(identities.values())
    result.write(out / "benchmark.json")
    write_report(result, out, with_pictures=pictures)
    return result


def _measure_rows(
    result: BenchmarkResult,
    planned: Sequence[PlannedRow],
    data: Path,
    options: Options,
    identities: Mapping[str, str],
    finished: FinishedRows,
    out: Path,
) -> None:
    """Fill `result` with the rows that are done and measure the others, each written to disk before the next."""
    order = [row.name for row in planned]
    masks = {name: finished.masks(identity) for name, identity in identities.items()}
    for name, identity in identities.items():
        if (done := finished.find(identity)) is not None:
            console.print(f"Keeping {name}, measured {done.measured}; --fresh measures it again", soft_wrap=True)
            result.rows.append(done.model_copy(update={"name": name}))
    kept = {row.name: row for row in result.rows}
    # The junior first: the others are compared with its masks.
    for row in sorted(planned, key=lambda row: row.role != "junior"):
        measured, error = kept.get(row.name), None
        if measured is None:
            console.print(f"Measuring {row.name}", soft_wrap=True)
            measured, error = _measure(row, data, finished.begin(identities[row.name]), options)
            if measured is not None:
                measured.measured = time.strftime(_TIME)
                result.rows.append(measured)
                result.rows.sort(key=lambda done: order.index(done.name))
            if measured is not None and error is None:
                finished.keep(identities[row.name], measured)
        if measured is not None:
            _compare_with_junior(measured, result.rows, masks)
        if error is not None:
            console.print(f"{row.name}: {error}", style="red", soft_wrap=True, markup=False)
            result.failures.append(Failure(name=row.name, role=row.role, target=str(row.target), error=error))
        result.write(out / "benchmark.json")


def _peaks(
    rows: Sequence[Row], conditions: Mapping[str, Any], options: Options, finished: FinishedPeaks
) -> MeasuredPeaks:
    """Return the machine's peaks for the floors of `rows`."""
    wanted = wanted_peaks(rows)
    if not wanted:
        return MeasuredPeaks()
    identity = peaks_identity(conditions, wanted)
    if (done := finished.find(identity)) is not None:
        return done
    # A product's best is found in a tenth of the time that a distribution of latencies takes.
    measured = measure_peaks(wanted, options.threads, min(_PEAK_SECONDS, options.seconds / 10))
    if not measured.failed:
        finished.keep(identity, measured)
    return measured


def _in_turn(
    rows: Sequence[Row],
    identities: Mapping[str, str],
    data: Path,
    options: Options,
    rounds: int,
    finished: FinishedTurns,
) -> InTurn | None:
    """Return the times in turn of `rows` and their baselines, or None where there is nothing to compare."""
    ways = plan_ways(rows)
    if not ways:
        return None
    identity = turns_identity([identities[row.name] for row in rows], rounds)
    if (done := finished.find(identity, ways)) is not None:
        console.print("Keeping the times in turn; --fresh measures them again", soft_wrap=True)
        return done
    in_turn = measure_in_turn(
        ways, data, rounds, device=options.device, threads=options.threads, warm_up_s=2 * options.seconds
    )
    if all(way.error is None for way in in_turn.ways):
        finished.keep(identity, in_turn)
    return in_turn


def _new_result(data: Path, sets: ImageSets, options: Options, notes: list[str]) -> BenchmarkResult:
    machine = describe_machine()
    versions = {"python": machine.pop("python"), **machine.pop("packages")}
    for package in _MORE_PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return BenchmarkResult(
        created=time.strftime(_TIME),
        command=command_line(),
        options=asdict(options),
        machine=machine,
        versions=versions,
        data=str(data),
        labels=sets.labels,
        notes=notes,
    )


def _measure(row: PlannedRow, data: Path, folder: Path, options: Options) -> tuple[Row | None, str | None]:
    """Return what a fresh process measured, and why it ended early if it did; both may be there.

    Its masks are in `folder/masks` then.
    """
    order = Order(name=row.name, role=row.role, target=row.target, data=data, masks=folder / "masks", **asdict(options))
    order_file, row_file = folder / "order.json", folder / "measured.json"
    order_file.write_text(order.model_dump_json())
    command = [sys.executable, "-m", "segkc_deploy.benchmarks.measure.worker", str(order_file), str(row_file)]
    # The worker ends when its input does, so it does not outlive this process, however this one ends.
    with subprocess.Popen(command, env=worker_environment(options.threads), stdin=subprocess.PIPE) as worker:
        worker.wait()
    measured = Row.model_validate_json(row_file.read_bytes()) if row_file.exists() else None
    if worker.returncode == 0:
        return measured, None
    told = row_file.with_suffix(".error")
    if told.exists():
        return measured, told.read_text()
    return measured, how_it_ended(worker.returncode)


def _compare_with_junior(row: Row, rows: Sequence[Row], masks: dict[str, Path]) -> None:
    """Set how `row` compares with the PyTorch junior that it belongs to, of the same weights or of the same run."""
    if row.accuracy is None or row.role == "junior":
        return
    for junior in rows:
        same_weights = row.about.get("weights_sha256") == junior.about.get("weights_sha256", "unknown")
        if junior.role != "junior" or junior.accuracy is None or not (same_weights or row.target == junior.target):
            continue
        row.accuracy.agreement = mask_agreement(masks[row.name], masks[junior.name], row.accuracy.images)
        row.accuracy.agreement_with = junior.name
        _set_difference(row.accuracy, masks[row.name], masks[junior.name])
        return


def _set_difference(accuracy: Accuracy, folder: Path, other: Path) -> None:
    """Set how far the mIoU is from that of the row whose counts are in `other`."""
    counts, junior_counts = read_counts(folder), read_counts(other)
    if counts is None or junior_counts is None:
        return
    difference = miou_difference(counts, junior_counts, accuracy.resampling_block or 1)
    accuracy.miou_difference, accuracy.miou_difference_interval = difference.miou, difference.interval
