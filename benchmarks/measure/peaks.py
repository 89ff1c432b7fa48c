"""The machine's own peaks, against which every row's floor is set: measured once for a benchmark, and kept."""

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from segkc_deploy import atomic
from segkc_deploy.benchmarks.measure.best_rate import Rate
from segkc_deploy.benchmarks.measure.floor import peaks_of
from segkc_deploy.benchmarks.measure.peak_worker import PRODUCTS, Device, FoundRates, PeakOrder
from segkc_deploy.benchmarks.measure.worker_process import how_it_ended, worker_environment
from segkc_deploy.benchmarks.schema import Peak, Row
from segkc_deploy.progress import console

#: The longest that one library may take; one that hangs must not keep the report.
_AT_MOST_S = 300
_NAME_LENGTH = 16

#: Devices and the precisions that are needed of them.
Wanted = Mapping[Device, Sequence[str]]


class MeasuredPeaks(BaseModel):
    """The peaks, a sentence for each that could not be measured, and whether a library broke down over it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    peaks: list[Peak] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    failed: bool = False


def wanted_peaks(rows: Sequence[Row]) -> dict[Device, list[str]]:
    """Return what the floors of `rows` need, in an order that depends on nothing else."""
    pairs = {pair for row in rows for pair in peaks_of(row)}
    devices: tuple[Device, ...] = ("cpu", "gpu")
    # A library that breaks down over a precision has no figures of those that come after it.
    found = {
        device: sorted((precision for other, precision in pairs if other == device), key=_order) for device in devices
    }
    return {device: precisions for device, precisions in found.items() if precisions}


def _order(precision: str) -> tuple[bool, str]:
    return precision not in ("fp32", "tf32"), precision


def measure_peaks(wanted: Wanted, threads: int | None, seconds: float) -> MeasuredPeaks:
    """Measure by every library that is installed, each in a fresh process, and keep the best of each figure.

    Args:
        wanted: what to measure.
        threads: of the CPU, as the rows have them; the libraries' own choice if None.
        seconds: for each size of a product.
    """
    peaks: list[Peak] = []
    notes: list[str] = []
    failed = False
    for device, precisions in wanted.items():
        found: list[FoundRates] = []
        for library in PRODUCTS[device]:
            if find_spec(library) is None:
                continue
            console.print(f"Measuring the {device}'s peak with {library}", soft_wrap=True)
            order = PeakOrder(
                library=library, device=device, precisions=tuple(precisions), threads=threads, seconds=seconds
            )
            rates, error = _by_one_library(order)
            found.append(rates)
            if error is not None:
                failed = True
                notes.append(f"the peaks of the {device.upper()} lack figures of {library}: {error}")
        copied = _best([rates.copied for rates in found])
        for precision in precisions:
            product = _best([rates.products.get(precision) for rates in found])
            if product is None or copied is None:
                notes.append(_missing(device, precision))
                continue
            peaks.append(
                Peak(
                    device=device,
                    precision=precision,
                    threads=threads if device == "cpu" else None,
                    gflops=product.giga_per_s,
                    copy_gb_per_s=copied.giga_per_s,
                    how=f"{product.how}; {copied.how}",
                )
            )
    return MeasuredPeaks(peaks=peaks, notes=notes, failed=failed)


class FinishedPeaks:
    """The peaks that are measured, on disk: `OUT/rows/peaks-<identity>.json`; only the last ones are kept."""

    def __init__(self, out: Path) -> None:
        self._folder = out / "rows"

    def find(self, identity: str) -> MeasuredPeaks | None:
        """Return the peaks that were measured under the same conditions, if they are there."""
        file = self._file(identity)
        return MeasuredPeaks.model_validate_json(file.read_bytes()) if file.is_file() else None

    def keep(self, identity: str, measured: MeasuredPeaks) -> None:
        """Keep these, in place of earlier ones."""
        self.forget()
        atomic.write_text(self._file(identity), measured.model_dump_json())

    def forget(self) -> None:
        """Delete what is there."""
        for file in self._folder.glob("peaks-*.json"):
            file.unlink()

    def _file(self, identity: str) -> Path:
        return self._folder / f"peaks-{identity[:_NAME_LENGTH]}.json"


def _by_one_library(order: PeakOrder) -> tuple[FoundRates, str | None]:
    """Return what a fresh process found, and why it ended early if it did."""
    environment = worker_environment(order.threads)
    if order.threads is not None:
        environment["OPENBLAS_NUM_THREADS"] = str(order.threads)  # NumPy's, which minds it before OpenMP's
    with tempfile.TemporaryDirectory() as folder:
        order_file, found_file = Path(folder, "order.json"), Path(folder, "found.json")
        order_file.write_text(order.model_dump_json())
        command = [
            sys.executable,
            "-m",
            "segkc_deploy.benchmarks.measure.peak_worker",
            str(order_file),
            str(found_file),
        ]
        error = None
        # The worker ends when its input does, so it does not outlive this process, however this one ends.
        with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE) as worker:
            try:
                returncode = worker.wait(_AT_MOST_S)
            except subprocess.TimeoutExpired:
                worker.kill()
                error = f"it was not done after {_AT_MOST_S} s"
            else:
                told = found_file.with_suffix(".error")
                if returncode:
                    error = told.read_text() if told.exists() else how_it_ended(returncode)
        found = FoundRates.model_validate_json(found_file.read_bytes()) if found_file.exists() else FoundRates()
    return found, error


def _best(rates: Sequence[Rate | None]) -> Rate | None:
    return max((rate for rate in rates if rate is not None), key=lambda rate: rate.giga_per_s, default=None)


def _missing(device: Device, precision: str) -> str:
    if device == "cpu" and precision != "fp32":
        return f"no installed library computes in {precision} on this CPU: floors of its rows are those of fp32"
    return f"no installed library measures the peak of the {device.upper()} in {precision}"
