"""The roofline bound of a row against plain formulas."""

from typing import Any

import numpy as np
import pytest
from made_up_results import full_row, latency

from segkc_deploy.benchmarks.measure.latency import summarize
from segkc_deploy.benchmarks.measure.worker import moved_bytes
from segkc_deploy.benchmarks.roofline.bound import peaks_of, set_roofline
from segkc_deploy.benchmarks.schema import Peak, Row

CPU = "onnxruntime 1.31.1 CPUExecutionProvider"


def row(**changes: Any) -> Row:
    fields = {"engine": CPU, "flops": 4_000_000_000, "moved_bytes": 30_000_000}
    return full_row("a.onnx", "artifact", 70.0, 10.0, **(fields | changes))


def peak(precision: str, gflops: float, device: Any = "cpu", copy: float = 10.0) -> Peak:
    return Peak(device=device, precision=precision, gflops=gflops, copy_gb_per_s=copy, how="made up")


def test_weights_count_by_the_rows_precision() -> None:
    image = np.zeros((352, 480, 3), np.uint8)
    mask = np.zeros((352, 480), np.uint8)
    assert moved_bytes(1000, "fp32", image.nbytes + mask.nbytes) == 4 * 1000 + 352 * 480 * 4
    weights = {"fp16": 2000, "bf16": 2000, "int8": 1000, "fp8": 1000, "int8-fp16": 1000, "fp8-fp16": 1000}
    assert {precision: moved_bytes(1000, precision, 0) for precision in weights} == weights


def test_the_slower_of_computing_and_moving_bounds_the_inference() -> None:
    computing = row()
    set_roofline(computing, [peak("fp32", 100.0)])
    assert computing.roofline is not None and computing.latency is not None
    assert computing.roofline.compute_ms == pytest.approx(4e9 / 100e9 * 1e3)  # 40 ms
    assert computing.roofline.memory_ms == pytest.approx(30e6 / 10e9 * 1e3)  # 3 ms
    assert (computing.roofline.bound, computing.roofline.peak) == ("compute", "fp32")
    assert computing.roofline.efficiency == pytest.approx(40 / computing.latency.infer.p50 * 100)

    moving = row()
    set_roofline(moving, [peak("fp32", 100e3, copy=1.5)])
    assert moving.roofline is not None and moving.latency is not None
    assert (moving.roofline.bound, moving.roofline.memory_ms) == ("memory", pytest.approx(20.0))
    assert moving.roofline.efficiency == pytest.approx(20 / moving.latency.infer.p50 * 100)


def test_the_gpus_own_time_comes_first() -> None:
    timed = latency(10.0).model_copy(update={"device": summarize([4.0, 5.0, 6.0])})
    measured = row(engine="TensorRT 10.13 NVIDIA L4", latency=timed)
    set_roofline(measured, [peak("fp32", 2000.0, "gpu", 1000.0), peak("fp32", 1.0)])
    assert measured.roofline is not None
    assert measured.roofline.efficiency == pytest.approx(4e9 / 2000e9 * 1e3 / 5.0 * 100)


@pytest.mark.parametrize(
    ("engine", "precision", "taken"),
    [
        (CPU, "fp32", "fp32"),
        (CPU, "int8", "int8"),
        (CPU, "fp16", "fp32"),  # no peak in fp16: this CPU computes it in fp32
        ("PyTorch 2.15.0 eager, cuda", "fp32", "tf32"),
        ("TensorRT 10.13 NVIDIA L4", "fp32", "fp32"),
        ("TensorRT for RTX 1.7 NVIDIA L4", "fp16", "fp16"),
        ("onnxruntime 1.31.1 CUDAExecutionProvider", "fp16", "fp16"),
        ("onnxruntime 1.31.1 TensorrtExecutionProvider", "fp32", "tf32"),
    ],
)
def test_the_peak_is_that_of_the_fastest_arithmetic_that_the_row_may_use(
    engine: str, precision: str, taken: str
) -> None:
    peaks = [peak("fp32", 100.0), peak("int8", 200.0)]
    peaks += [peak(name, gflops, "gpu") for name, gflops in (("fp32", 1e4), ("tf32", 3e4), ("fp16", 6e4))]
    measured = row(engine=engine, precision=precision)
    set_roofline(measured, peaks)
    assert measured.roofline is not None
    assert measured.roofline.peak == taken
    assert measured.roofline.compute_ms == pytest.approx(4.0 / next(
        p.gflops for p in peaks if p.precision == taken and p.device == ("cpu" if engine == CPU else "gpu")
    ) * 1e3)  # fmt: skip


def test_a_peak_below_that_of_fp32_does_not_raise_the_bound() -> None:
    """INT8 rows keep layers in FP32, which on a CPU without integer products is the faster of both."""
    measured = row(precision="int8")
    set_roofline(measured, [peak("fp32", 100.0), peak("int8", 60.0)])
    assert measured.roofline is not None
    assert measured.roofline.peak == "fp32"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"latency": None}, "no latency"),
        ({"flops": None}, "no flops"),
        ({"moved_bytes": None}, "no moved_bytes"),
        ({"moved_bytes": None, "not_measured": {"moved_bytes": "sizes differ"}}, "sizes differ"),
        ({"engine": "onnxruntime 1.31.1 CUDAExecutionProvider"}, "were not measured"),
    ],
)
def test_without_a_metric_there_is_a_reason(changes: dict[str, Any], told: str) -> None:
    measured = row(**changes)
    set_roofline(measured, [peak("fp32", 100.0)])
    assert measured.roofline is None
    assert told in measured.not_measured["roofline"]


def test_a_reason_goes_when_there_is_a_bound() -> None:
    measured = row()
    set_roofline(measured, [])
    assert "roofline" in measured.not_measured
    set_roofline(measured, [peak("fp32", 100.0)])
    assert "roofline" not in measured.not_measured


def test_which_peaks_a_row_needs() -> None:
    assert peaks_of(row(precision="int8")) == {("cpu", "int8"), ("cpu", "fp32")}
    assert peaks_of(row(engine="PyTorch 2.15.0 eager, cuda")) == {("gpu", "tf32"), ("gpu", "fp32")}
