"""The machine's peaks: what is timed, how the best is found, and what a library that fails costs."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_results import full_row
from tiny_artifact import make_artifact, write_val_images

from segkc_deploy.benchmarks import suite
from segkc_deploy.benchmarks.roofline import libraries, peaks
from segkc_deploy.benchmarks.roofline import worker as roofline_worker
from segkc_deploy.benchmarks.roofline.libraries import _bound, _session
from segkc_deploy.benchmarks.roofline.peaks import MeasuredPeaks, measure_peaks, wanted_peaks
from segkc_deploy.benchmarks.roofline.worker import PeakJob, Rate, Rates, best_product, fastest_of, measure_rates
from segkc_deploy.export.torch_matmul import multiply


class Clock:
    """Stands in for the module `time`; only what runs on it takes time."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(roofline_worker, "time", made)
    return made


def test_the_best_size_counts_and_the_search_ends(clock: Clock) -> None:
    """A machine of 100 GFLOP/s at side 512, 300 at 1024 and 200 at 2048, where a product is long enough to end."""
    rates = {512: 100e9, 1024: 300e9, 2048: 200e9}
    asked: list[int] = []

    def make(side: int) -> Callable[[], None]:
        asked.append(side)

        def multiply() -> None:
            clock.now += 2 * side**3 / rates[side]

        return multiply

    found = best_product(make, "made up", 0.0, largest=8192)
    assert (found.giga_per_s, found.how) == (pytest.approx(300.0), "made up, 1024×1024")
    assert asked == [512, 1024, 2048]
    asked.clear()
    assert best_product(make, "made up", 0.0, largest=1024).giga_per_s == pytest.approx(300.0)
    assert asked == [512, 1024]


def test_the_first_run_is_left_out_and_the_fastest_counts(clock: Clock) -> None:
    times = iter([0.125, 0.5, 0.25, 0.75, 0.0625])

    def run() -> None:
        clock.now += next(times)

    assert fastest_of(run, 0.0) == 0.25
    assert next(times) == 0.0625


def test_a_copy_is_split_among_the_threads_and_counts_reading_and_writing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copied: list[tuple[np.ndarray, np.ndarray]] = []
    copy = np.copyto

    def watched(target: np.ndarray, source: np.ndarray) -> None:
        source[:] = 7
        copy(target, source)
        copied.append((target, source))

    def half_a_second(run: Callable[[], object], seconds: float) -> float:
        run()
        return 0.5

    monkeypatch.setattr(libraries, "_COPIED", 4 << 20)
    monkeypatch.setattr(libraries.np, "copyto", watched)
    monkeypatch.setattr(roofline_worker, "fastest_of", half_a_second)
    job = PeakJob(library="numpy", device="cpu", precisions=(), threads=3, seconds=0.0)
    measure_rates(job, tmp_path / "rates.json")
    rates = Rates.model_validate_json((tmp_path / "rates.json").read_bytes())
    assert rates.copied == Rate(giga_per_s=2 * (4 << 20) / 0.5 / 1e9, how="copy of 4 MiB by numpy")
    assert len(copied) == 3
    assert sum(target.nbytes for target, _ in copied) == 4 << 20
    assert all((target == 7).all() for target, _ in copied)


def test_every_library_measures_in_a_process_of_its_own() -> None:
    """For real: whatever this machine's peaks are, there are some."""
    measured = measure_peaks({"cpu": ["fp32", "int8"]}, threads=1, seconds=0.001)
    assert [(peak.device, peak.precision, peak.threads) for peak in measured.peaks] == [
        ("cpu", "fp32", 1),
        ("cpu", "int8", 1),
    ]
    for peak in measured.peaks:
        assert peak.gflops > 0 and peak.copy_gb_per_s > 0
        assert "×" in peak.how and "MiB by numpy" in peak.how
    assert measured.notes == []


def rates_of(**products: float) -> Rates:
    return Rates(products={name: Rate(giga_per_s=rate, how=name) for name, rate in products.items()})


def test_the_best_library_counts_and_one_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        "numpy": (rates_of(fp32=50).model_copy(update={"copied": Rate(giga_per_s=9.0, how="copy")}), None),
        "onnxruntime": (rates_of(fp32=80, int8=90), "its process ended with signal 11"),
        "torch": (rates_of(fp32=70), None),
    }
    jobs: list[PeakJob] = []

    def one(job: PeakJob) -> tuple[Rates, str | None]:
        jobs.append(job)
        return found[job.library]

    monkeypatch.setattr(peaks, "_with_one_library", one)
    monkeypatch.setattr(peaks, "find_spec", lambda name: None if name == "openvino" else name)
    measured = measure_peaks({"cpu": ["bf16", "fp32", "int8"]}, threads=2, seconds=0.1)
    assert [(peak.precision, peak.gflops, peak.copy_gb_per_s) for peak in measured.peaks] == [
        ("fp32", 80, 9.0),
        ("int8", 90, 9.0),
    ]
    assert [job.library for job in jobs] == ["numpy", "onnxruntime", "torch"]
    assert {(job.precisions, job.threads) for job in jobs} == {(("bf16", "fp32", "int8"), 2)}
    assert measured.notes == [
        "the peaks of the CPU lack those of onnxruntime: its process ended with signal 11",
        "no installed library computes in bf16 on this CPU; its rows are compared with the peak in fp32",
    ]


def test_what_was_found_before_a_crash_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The product in fp32 is written before the library is brought down by the next one."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "from segkc_deploy.benchmarks.roofline import libraries\n"
        "real = libraries.numpy_product\n"
        "libraries.numpy_product = lambda device, kind, *more: (\n"
        "    real(device, kind, *more) if kind == 'fp32' else os.abort())\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(peaks, "LIBRARIES", {"cpu": ("numpy",)})
    measured = measure_peaks({"cpu": ["fp32", "int8"]}, threads=1, seconds=0.001)
    assert [peak.precision for peak in measured.peaks] == ["fp32"]
    assert "lack those of numpy: its process ended with signal 6" in measured.notes[0]
    assert measured.failed


def test_fp32_and_tf32_come_before_what_a_library_may_break_down_over() -> None:
    rows = [
        full_row(name, "artifact", 50.0, 20.0, engine="onnxruntime CUDAExecutionProvider", precision=name)
        for name in ("fp8", "bf16")
    ]
    assert wanted_peaks(rows) == {"gpu": ["fp32", "tf32", "bf16", "fp8"]}


def test_peaks_over_which_a_library_broke_down_are_measured_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[Any] = []
    failed = True

    def measured(*arguments: Any) -> MeasuredPeaks:
        calls.append(arguments)
        return MeasuredPeaks(failed=failed)

    monkeypatch.setattr(suite, "measure_peaks", measured)
    benchmark = suite.Benchmark([make_artifact(tmp_path)], write_val_images(tmp_path), tmp_path / "out")
    rows = [full_row("a", "artifact", 50.0, 20.0)]
    benchmark.result.rows = rows
    for _ in range(2):
        benchmark.measure_roofline()
    failed = False
    for _ in range(2):
        benchmark.measure_roofline()
    assert len(calls) == 3
    # Where no peak is needed, the stored ones stay.
    benchmark.result.rows = []
    benchmark.measure_roofline()
    assert benchmark.result.peaks == []
    benchmark.result.rows = rows
    benchmark.measure_roofline()
    assert len(calls) == 3


def test_an_error_is_told_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "LIBRARIES", {"cpu": ("torch",)})
    measured = measure_peaks({"cpu": ["fp32"]}, threads=-1, seconds=0.001)
    assert any("of torch: RuntimeError: " in note and "positive" in note for note in measured.notes)


@pytest.mark.parametrize(
    ("precision", "kind"), [("fp32", "float32"), ("tf32", "float32"), ("bf16", "bfloat16"), ("int8", "int32")]
)
def test_pytorch_multiplies_in_the_precision(precision: str, kind: str) -> None:
    product = multiply(precision, 32, "cpu")()
    assert (tuple(product.shape), str(product.dtype)) == ((32, 32), f"torch.{kind}")
    assert product.float().abs().sum() > 0


@pytest.mark.parametrize(
    ("operator", "given", "made"),
    [
        ("MatMul", ("float", "float"), "float"),
        ("MatMulInteger", ("uint8", "int8"), "int32"),
        ("MatMulInteger", ("int8", "int8"), "int32"),
        ("Identity", ("float",), "float"),
    ],
)
def test_onnx_runtime_multiplies_or_copies_what_stays_on_the_device(
    operator: str, given: tuple[str, ...], made: str
) -> None:
    session = _session(operator, given, made, "cpu", threads=1)
    found = _bound(session, 16, "cpu")().numpy()
    types = [np.float32 if kind == "float" else np.dtype(kind).type for kind in given]
    matrices = [libraries._matrix(16, kind, seed).astype(np.float64) for seed, kind in enumerate(types)]
    np.testing.assert_allclose(found, np.linalg.multi_dot(matrices) if len(matrices) > 1 else matrices[0], rtol=1e-6)
    assert found.dtype == (np.float32 if made == "float" else np.int32)


def test_a_worker_ends_with_its_benchmark(tmp_path: Path) -> None:
    job = PeakJob(library="numpy", device="cpu", precisions=("fp32",) * 999, threads=1, seconds=9.0)
    (tmp_path / "job.json").write_text(job.model_dump_json())
    command = [
        sys.executable,
        "-m",
        "segkc_deploy.benchmarks.roofline.worker",
        tmp_path / "job.json",
        tmp_path / "found",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as worker:
        assert worker.stdin is not None
        worker.stdin.close()
        assert worker.wait(60) == 1


def test_rows_say_which_peaks_are_needed() -> None:
    rows = [
        full_row("a", "artifact", 1.0, 1.0, engine="onnxruntime CPUExecutionProvider", precision="int8"),
        full_row("b", "junior", 1.0, 1.0, engine="PyTorch eager, cuda"),
    ]
    assert wanted_peaks(rows) == {"cpu": ["fp32", "int8"], "gpu": ["fp32", "tf32"]}
    assert wanted_peaks(rows[:1]) == {"cpu": ["fp32", "int8"]}
    assert wanted_peaks([]) == {}


@pytest.mark.gpu
def test_the_gpus_peaks_are_measured() -> None:
    from segkc_deploy.cuda_probe import cuda_obstacle

    if obstacle := cuda_obstacle():
        pytest.skip(obstacle)
    measured = measure_peaks({"gpu": ["fp16", "fp32"]}, threads=None, seconds=0.05)
    half, single = measured.peaks
    assert (half.precision, single.precision) == ("fp16", "fp32")
    assert half.gflops > single.gflops > 0
    assert single.copy_gb_per_s > 0
