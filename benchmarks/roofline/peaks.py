"""The machine's peaks, from which every row's roofline bound is computed: measured once for a benchmark."""

import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from segkc_deploy.benchmarks.measure.worker_process import run_worker, worker_environment
from segkc_deploy.benchmarks.roofline.bound import peaks_of
from segkc_deploy.benchmarks.roofline.libraries import Device
from segkc_deploy.benchmarks.roofline.worker import LIBRARIES, PeakJob, Rate, Rates
from segkc_deploy.benchmarks.schema import Peak, Row
from segkc_deploy.progress import console

#: Seconds that one library may take.
_LIMIT_S = 300
#: Packages that a library needs besides itself.
_NEEDS = {"onnxruntime": "onnx"}


class MeasuredPeaks(BaseModel):
    """The peaks, a sentence for each that could not be measured, and whether a library failed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    peaks: list[Peak] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    failed: bool = False


def wanted_peaks(rows: Sequence[Row]) -> dict[Device, list[str]]:
    """Return the devices and precisions of which `rows` need peaks, in a fixed order."""
    pairs = {pair for row in rows for pair in peaks_of(row)}
    devices: tuple[Device, ...] = ("cpu", "gpu")
    # FP32 and TF32 first: a library that crashes over a precision loses those that come after it.
    found = {
        device: sorted(
            (precision for other, precision in pairs if other == device),
            key=lambda precision: (precision not in ("fp32", "tf32"), precision),
        )
        for device in devices
    }
    return {device: precisions for device, precisions in found.items() if precisions}


def measure_peaks(wanted: Mapping[Device, Sequence[str]], threads: int | None, seconds: float) -> MeasuredPeaks:
    """Measure with every installed library, each in a fresh process, and take the best of each.

    Args:
        wanted: precisions by device.
        threads: of the CPU, as for the rows; the libraries' own default if None.
        seconds: for each size of a product.
    """
    peaks: list[Peak] = []
    notes: list[str] = []
    failed = False
    for device, precisions in wanted.items():
        found: list[Rates] = []
        for library in LIBRARIES[device]:
            if find_spec(library) is None or find_spec(_NEEDS.get(library, library)) is None:
                continue
            console.print(f"Measuring the {device}'s peak with {library}", soft_wrap=True)
            job = PeakJob(
                library=library, device=device, precisions=tuple(precisions), threads=threads, seconds=seconds
            )
            rates, error = _with_one_library(job)
            found.append(rates)
            if error is not None:
                failed = True
                notes.append(f"the peaks of the {device.upper()} lack those of {library}: {error}")
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


def _with_one_library(job: PeakJob) -> tuple[Rates, str | None]:
    """Return what a fresh process measured, and the error if it failed."""
    environment = worker_environment(job.threads)
    if job.threads is not None:
        environment["OPENBLAS_NUM_THREADS"] = str(job.threads)  # NumPy's, which takes precedence over OpenMP's
    with tempfile.TemporaryDirectory() as folder:
        rates_file, error = run_worker(
            "segkc_deploy.benchmarks.roofline.worker", job, Path(folder), environment, _LIMIT_S
        )
        return Rates.model_validate_json(rates_file.read_bytes()) if rates_file.exists() else Rates(), error


def _best(rates: Sequence[Rate | None]) -> Rate | None:
    return max((rate for rate in rates if rate is not None), key=lambda rate: rate.giga_per_s, default=None)


def _missing(device: Device, precision: str) -> str:
    if device == "cpu" and precision != "fp32":
        return f"no installed library computes in {precision} on this CPU; its rows are compared with the peak in fp32"
    return f"no installed library measures the peak of the {device.upper()} in {precision}"
