"""A whole benchmark: rows, roofline bounds, interleaved timing and the report."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from segkc_deploy.benchmarks.interleaved.timing import measure_interleaved, plan_contenders, renamed
from segkc_deploy.benchmarks.measure.junior_comparison import compare_with_junior
from segkc_deploy.benchmarks.measure.worker import RowJob
from segkc_deploy.benchmarks.measure.worker_process import run_worker, worker_environment
from segkc_deploy.benchmarks.options import MeasureOptions
from segkc_deploy.benchmarks.regression.regression_gate import Gate
from segkc_deploy.benchmarks.report.pictures import remove_pictures, save_pictures
from segkc_deploy.benchmarks.report.report_files import require_no_trainings, write_report
from segkc_deploy.benchmarks.roofline.bound import set_roofline
from segkc_deploy.benchmarks.roofline.peaks import MeasuredPeaks, measure_peaks, wanted_peaks
from segkc_deploy.benchmarks.schema import BenchmarkResult, Failure, InterleavedTiming, Row
from segkc_deploy.benchmarks.store.identity import peaks_identity, row_identity, shared_conditions, timing_identity
from segkc_deploy.benchmarks.store.image_ids import printable, require_unicode
from segkc_deploy.benchmarks.store.result_store import ResultStore
from segkc_deploy.benchmarks.targets import PlannedRow, plan, require_fitting
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.data.screening import screen
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import DataError
from segkc_deploy.invocation import command_line
from segkc_deploy.machine import describe_machine
from segkc_deploy.progress import console

_MORE_PACKAGES = ("segkc-deploy", "timm", "openvino", "tensorrt-rtx-cu13-bindings")

#: Longest time for one size of one library's matrix product.
_PEAK_SECONDS = 0.5

_TIME = "%Y-%m-%dT%H:%M:%S%z"


class Benchmark:
    """Measures run directories and artifacts and writes `benchmark.json`, `benchmark.md` and `index.html`.

    `run` calls the four steps in order; each fills `result`, which is on disk after each row. A row that fails is
    listed in `result.failures` and does not affect the others. Results that an earlier run with the same `out` finished
    are kept, see `store.identity`.

    Args:
        targets: run directories and artifacts.
        data: the data spec; its validation images are predicted and timed.
        out: the report's folder, created when missing.
        options: how to measure.
        names: names of the rows of some targets.
        rounds: rounds of the interleaved timing of rows and baselines; 0 skips it.
        fresh: measure finished rows again.
        gate: checked before anything is measured; call its `violations` afterwards.
        pictures: whether the report shows validation images.

    Raises:
        UserError: a target, the data or the gate cannot be used; raised before anything is measured.
    """

    def __init__(
        self,
        targets: Sequence[Path],
        data: Path,
        out: Path,
        options: MeasureOptions | None = None,
        *,
        names: Mapping[Path, str] | None = None,
        rounds: int = 0,
        fresh: bool = False,
        gate: Gate | None = None,
        pictures: bool = True,
    ) -> None:
        self.data, self.out, self.rounds, self.pictures = data, out, rounds, pictures
        self.options = options or MeasureOptions()
        require_unicode(*targets, data, out)
        self.planned, notes = plan(targets, names)
        self.sets = load_data_spec(data).resolve()
        if not self.sets.val:
            raise DataError(f"{data}: no validation images, which a benchmark needs (section `val:`)")
        require_fitting(self.planned, data, self.sets)
        require_no_trainings(out)
        screen(replace(self.sets, labeled=()))
        self.result = _new_result(data, self.sets, self.options, notes)
        if gate is not None:
            gate.check(self.result, self.planned, [printable(sample.id) for sample in self.sets.val])
        options_used, machine, versions = self.result.options, self.result.machine, self.result.versions
        self._conditions = shared_conditions(self.sets, options_used, machine, versions)
        self._identities = {row.name: row_identity(row, self._conditions) for row in self.planned}
        self._store = ResultStore(out)
        self._masks = {name: self._store.masks(identity) for name, identity in self._identities.items()}
        self._fresh = fresh

    def run(self) -> BenchmarkResult:
        """Measure everything, write the report and return the result.

        Raises:
            RunDirectoryError: another benchmark writes to `out`.
        """
        with self._store.lock():
            if self._fresh:
                for kind in ("row", "interleaved", "peaks"):
                    self._store.forget(kind)
            self.measure_rows()
            self.measure_roofline()
            self.measure_interleaved()
            self.write_report()
        return self.result

    def measure_rows(self) -> None:
        """Take the finished rows and measure the others, each in a fresh process; the result is written after each."""
        rows = self.result.rows
        for name, identity in self._identities.items():
            if (finished := self._store.find("row", identity, Row)) is not None:
                console.print(
                    f"Keeping {name}, measured {finished.measured}; --fresh measures it again", soft_wrap=True
                )
                rows.append(finished.model_copy(update={"name": name}))
        kept = {row.name: row for row in rows}
        # Juniors first: the others are compared with their masks.
        for planned in sorted(self.planned, key=lambda row: row.role != "junior"):
            row, error = kept.get(planned.name), None
            if row is None:
                row, error = self._measure(planned)
            if row is not None:
                compare_with_junior(row, rows, self._masks)
            if error is not None:
                console.print(f"{planned.name}: {error}", style="red", soft_wrap=True, markup=False)
                target = str(planned.target)
                self.result.failures.append(Failure(name=planned.name, role=planned.role, target=target, error=error))
            self.result.write(self.out / "benchmark.json")

    def measure_roofline(self) -> None:
        """Measure the peaks of the machine that the rows need, and set the roofline bound of each row."""
        peaks = self._peaks()
        self.result.peaks, self.result.notes = peaks.peaks, [*self.result.notes, *peaks.notes]
        for row in self.result.rows:
            set_roofline(row, peaks.peaks)

    def measure_interleaved(self) -> None:
        """Time the rows and the juniors' baselines in alternation, unless there is nothing to compare."""
        contenders = plan_contenders(self.result.rows) if self.rounds else []
        if not contenders:
            return
        identity = timing_identity([self._identities[row.name] for row in self.result.rows], self.rounds)
        if (finished := self._store.find("interleaved", identity, InterleavedTiming)) is not None:
            console.print("Keeping the interleaved timing; --fresh measures it again", soft_wrap=True)
            self.result.interleaved = renamed(finished, contenders)
            return
        timing = measure_interleaved(contenders, self.data, self.rounds, self.options)
        if all(contender.error is None for contender in timing.contenders):
            self._store.forget("interleaved")
            self._store.keep("interleaved", identity, timing)
        self.result.interleaved = timing

    def write_report(self) -> None:
        """Write the report; if every row was measured, delete stored ones that no target stands for any more.

        Of a row that failed, what was stored under other conditions is all that there is.
        """
        remove_pictures(self.out)  # of an earlier report: those of other images, or of data not to be passed on
        if self.pictures:
            save_pictures(self.result, self.sets, self._masks, self.out)
        if not self.result.failures:
            self._store.forget("row", but=self._identities.values())
        write_report(self.result, self.out, with_pictures=self.pictures)

    def _measure(self, planned: PlannedRow) -> tuple[Row | None, str | None]:
        """Measure a row in a fresh process and add it to the result; return it, and the error if it failed.

        Both may be there: what was measured before the failure counts.
        """
        console.print(f"Measuring {planned.name}", soft_wrap=True)
        identity, options = self._identities[planned.name], self.options
        folder = self._store.begin(identity)
        job = RowJob(
            name=planned.name,
            role=planned.role,
            target=planned.target,
            data=self.data,
            masks=self._masks[planned.name],
            options=options,
        )
        environment = worker_environment(options.threads)
        row_file, error = run_worker("segkc_deploy.benchmarks.measure.worker", job, folder, environment)
        if not row_file.exists():
            return None, error
        row = Row.model_validate_json(row_file.read_bytes())
        row.measured = time.strftime(_TIME)
        if error is None:
            self._store.keep("row", identity, row)
        order = [planned.name for planned in self.planned]
        self.result.rows.append(row)
        self.result.rows.sort(key=lambda row: order.index(row.name))
        return row, error

    def _peaks(self) -> MeasuredPeaks:
        wanted = wanted_peaks(self.result.rows)
        if not wanted:
            return MeasuredPeaks()
        identity = peaks_identity(self._conditions, wanted)
        if (finished := self._store.find("peaks", identity, MeasuredPeaks)) is not None:
            return finished
        # The best of a matrix product shows in a tenth of the time that a distribution of latencies takes.
        peaks = measure_peaks(wanted, self.options.threads, min(_PEAK_SECONDS, self.options.seconds / 10))
        if not peaks.failed:
            self._store.forget("peaks")
            self._store.keep("peaks", identity, peaks)
        return peaks


def _new_result(data: Path, sets: ImageSets, options: MeasureOptions, notes: list[str]) -> BenchmarkResult:
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
        options=options.model_dump(),
        machine=machine,
        versions=versions,
        data=str(data),
        labels=sets.labels,
        notes=notes,
    )
