"""The machine's peaks: what is timed, how the best is found, and what a library that fails costs."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from made_up_results import full_row

from segkc_deploy.benchmarks import suite
from segkc_deploy.benchmarks.measure import cpu_peaks, peaks
from segkc_deploy.benchmarks.measure.best_rate import Rate, best_product, fastest_of, timed
from segkc_deploy.benchmarks.measure.gpu_peaks import bound
from segkc_deploy.benchmarks.measure.peak_worker import FoundRates, PeakOrder
from segkc_deploy.benchmarks.measure.peaks import FinishedPeaks, MeasuredPeaks, measure_peaks, wanted_peaks
from segkc_deploy.benchmarks.measure.product_model import copy_model, product_model
from segkc_deploy.benchmarks.schema import Peak
from segkc_deploy.export.torch_products import multiply


@pytest.mark.parametrize(("left", "right"), [("fp32", "fp32"), ("fp16", "fp16"), ("uint8", "int8"), ("int8", "int8")])
def test_the_model_written_by_hand_is_a_product(left: Any, right: Any) -> None:
    written = product_model(left, right)
    onnx.checker.check_model(onnx.load_from_string(written), full_check=True)
    types = {"fp32": np.float32, "fp16": np.float16, "uint8": np.uint8, "int8": np.int8}
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, (3, 5)).astype(types[left]), rng.integers(0, 9, (5, 4)).astype(types[right])
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    (c,) = session.run(None, {"a": a, "b": b})
    np.testing.assert_array_equal(c, a.astype(np.int64) @ b.astype(np.int64))
    assert c.dtype == (np.int32 if left in ("uint8", "int8") else types[left])


def test_the_model_written_by_hand_is_a_copy() -> None:
    onnx.checker.check_model(onnx.load_from_string(copy_model()), full_check=True)
    a = np.random.default_rng(0).random((3, 200), dtype=np.float32)
    (c,) = onnxruntime.InferenceSession(copy_model(), providers=["CPUExecutionProvider"]).run(None, {"a": a})
    np.testing.assert_array_equal(c, a)


def test_the_best_size_counts_and_the_search_ends() -> None:
    """A machine of 100 GFLOP/s at side 512, 300 at 1024 and 200 at 2048, where a product is long enough to end."""
    rates = {512: 100e9, 1024: 300e9, 2048: 200e9}
    asked: list[int] = []

    def make(side: int) -> Any:
        asked.append(side)
        return lambda: 2 * side**3 / rates[side]

    found = best_product(make, "made up", 0.0, largest=8192)
    assert found == Rate(pytest.approx(300.0), "made up, 1024×1024")  # type: ignore[arg-type]
    assert asked == [512, 1024, 2048]
    asked.clear()
    assert best_product(make, "made up", 0.0, largest=1024).giga_per_s == pytest.approx(300.0)
    assert asked == [512, 1024]


def test_the_first_run_is_left_out_and_the_fastest_counts() -> None:
    times = iter([0.001, 0.5, 0.25, 0.75, 0.125])
    assert fastest_of(lambda: next(times), 0.0) == 0.25
    assert next(times) == 0.125


def test_what_is_timed_is_the_call() -> None:
    ran: list[int] = []
    assert 0 <= timed(lambda: ran.append(1))() < 1
    assert ran == [1]


def test_a_copy_counts_what_is_read_and_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[tuple[np.ndarray, np.ndarray]] = []
    copy = np.copyto

    def watched(target: np.ndarray, source: np.ndarray) -> None:
        source[:] = 7
        copy(target, source)
        copied.append((target, source))

    def half_a_second(run: Any, seconds: float) -> float:
        run()
        return 0.5

    monkeypatch.setattr(cpu_peaks, "_LEAST_COPY", 3 << 20)
    monkeypatch.setattr(cpu_peaks, "_last_caches", lambda: 1 << 20)
    monkeypatch.setattr(cpu_peaks.np, "copyto", watched)
    monkeypatch.setattr(cpu_peaks, "fastest_of", half_a_second)
    rate = cpu_peaks.copy_peak(threads=3, seconds=0.0)
    assert rate == Rate(2 * (4 << 20) / 0.5 / 1e9, "copy of 4 MiB by NumPy")
    assert len(copied) == 3
    assert sum(target.nbytes for target, _ in copied) == 4 << 20
    assert all((target == 7).all() for target, _ in copied)


def test_every_library_measures_in_a_process_of_its_own() -> None:
    """For real: the figures are this busy machine's, and only that they are there and of a sane size is checked."""
    measured = measure_peaks({"cpu": ["fp32", "int8"]}, threads=1, seconds=0.001)
    assert [(peak.device, peak.precision, peak.threads) for peak in measured.peaks] == [
        ("cpu", "fp32", 1),
        ("cpu", "int8", 1),
    ]
    for peak in measured.peaks:
        assert 0.05 < peak.gflops < 1e5
        assert 0.05 < peak.copy_gb_per_s < 1e4
        assert "×" in peak.how and "MiB by NumPy" in peak.how
    assert measured.notes == []


def rates(**products: float) -> FoundRates:
    return FoundRates(products={name: Rate(rate, name) for name, rate in products.items()})


def test_the_best_library_counts_and_one_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        "numpy": (rates(fp32=50).model_copy(update={"copied": Rate(9.0, "copy")}), None),
        "onnxruntime": (rates(fp32=80, int8=90), "its process ended with signal 11"),
        "torch": (rates(fp32=70), None),
    }
    orders: list[PeakOrder] = []

    def one(order: PeakOrder) -> tuple[FoundRates, str | None]:
        orders.append(order)
        return found[order.library]

    monkeypatch.setattr(peaks, "_by_one_library", one)
    monkeypatch.setattr(peaks, "find_spec", lambda name: None if name == "openvino" else name)
    measured = measure_peaks({"cpu": ["bf16", "fp32", "int8"]}, threads=2, seconds=0.1)
    assert [(peak.precision, peak.gflops, peak.copy_gb_per_s) for peak in measured.peaks] == [
        ("fp32", 80, 9.0),
        ("int8", 90, 9.0),
    ]
    assert [order.library for order in orders] == ["numpy", "onnxruntime", "torch"]
    assert {(order.precisions, order.threads) for order in orders} == {(("bf16", "fp32", "int8"), 2)}
    assert measured.notes == [
        "the peaks of the CPU lack figures of onnxruntime: its process ended with signal 11",
        "no installed library computes in bf16 on this CPU: floors of its rows are those of fp32",
    ]


def test_what_was_found_before_a_crash_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The product in fp32 is written before the library is brought down by the next one."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "from segkc_deploy.benchmarks.measure import cpu_peaks\n"
        "real = cpu_peaks.numpy_peak\n"
        "cpu_peaks.numpy_peak = lambda kind, *more: real(kind, *more) if kind == 'fp32' else os.abort()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(peaks, "PRODUCTS", {"cpu": {"numpy": None}})
    measured = measure_peaks({"cpu": ["fp32", "int8"]}, threads=1, seconds=0.001)
    assert [peak.precision for peak in measured.peaks] == ["fp32"]
    assert "lack figures of numpy: its process ended with signal 6" in measured.notes[0]
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
    rows, done = [full_row("a", "artifact", 50.0, 20.0)], FinishedPeaks(tmp_path)
    conditions: dict[str, Any] = {
        "machine": {},
        "versions": {},
        "environment": {},
        "code": "",
        "options": vars(suite.Options()),
    }
    for _ in range(2):
        suite._peaks(rows, conditions, suite.Options(), done)
    failed = False
    for _ in range(2):
        suite._peaks(rows, conditions, suite.Options(), done)
    assert len(calls) == 3
    # Where nothing is wanted, what is there stays.
    assert suite._peaks([], conditions, suite.Options(), done).peaks == []
    suite._peaks(rows, conditions, suite.Options(), done)
    assert len(calls) == 3


def test_an_error_is_told_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "PRODUCTS", {"cpu": {"torch": None}})
    measured = measure_peaks({"cpu": ["fp32"]}, threads=-1, seconds=0.001)
    assert any("of torch: RuntimeError: " in note and "positive" in note for note in measured.notes)


@pytest.mark.parametrize(
    ("precision", "kind"), [("fp32", "float32"), ("tf32", "float32"), ("bf16", "bfloat16"), ("int8", "int32")]
)
def test_pytorch_multiplies_in_the_precision(precision: str, kind: str) -> None:
    product = multiply(precision, 32, "cpu")()
    assert (tuple(product.shape), str(product.dtype)) == ((32, 32), f"torch.{kind}")
    assert product.float().abs().sum() > 0


def test_onnx_runtime_multiplies_what_stays_on_the_device() -> None:
    session = onnxruntime.InferenceSession(product_model("int8", "int8"), providers=["CPUExecutionProvider"])
    found = bound(onnxruntime, session, 16, "int8", "int32", device="cpu")().numpy()
    a, b = (np.random.default_rng(seed).integers(0, 100, (16, 16), dtype=np.int8) for seed in range(2))
    np.testing.assert_array_equal(found, a.astype(np.int64) @ b.astype(np.int64))


def test_a_worker_ends_with_its_benchmark(tmp_path: Path) -> None:
    order = PeakOrder(library="numpy", device="cpu", precisions=("fp32",) * 999, threads=1, seconds=9.0)
    (tmp_path / "order.json").write_text(order.model_dump_json())
    command = [
        sys.executable,
        "-m",
        "segkc_deploy.benchmarks.measure.peak_worker",
        tmp_path / "order.json",
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


def test_peaks_are_kept_for_the_same_conditions(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    finished = FinishedPeaks(tmp_path)
    peak = Peak(device="cpu", precision="fp32", gflops=1.0, copy_gb_per_s=2.0, how="made up")
    first = MeasuredPeaks(peaks=[peak], notes=["one"])
    finished.keep("a" * 64, first)
    assert finished.find("a" * 64) == first
    assert finished.find("b" * 64) is None
    finished.keep("b" * 64, first)
    assert finished.find("a" * 64) is None
    finished.forget()
    assert list((tmp_path / "rows").iterdir()) == []


@pytest.mark.gpu
def test_the_gpus_peaks_are_measured() -> None:
    from segkc_deploy.cuda_probe import cuda_obstacle

    if obstacle := cuda_obstacle():
        pytest.skip(obstacle)
    measured = measure_peaks({"gpu": ["fp16", "fp32"]}, threads=None, seconds=0.05)
    half, single = measured.peaks
    assert (half.precision, single.precision) == ("fp16", "fp32")
    assert half.gflops > single.gflops > 100
    assert single.copy_gb_per_s > 20
