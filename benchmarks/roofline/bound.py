"""The roofline bound of a row: the least time that the machine's peaks allow an inference (Williams et al. 2009)."""

from collections.abc import Sequence
from typing import Literal

from segkc_deploy.benchmarks.measure.gpu_latency import runs_on_gpu
from segkc_deploy.benchmarks.schema import Peak, Roofline, Row
from segkc_deploy.engines import number_formats


def peaks_of(row: Row) -> set[tuple[Literal["cpu", "gpu"], str]]:
    """Return the device and the precisions in which `row` may compute: its own, and FP32 for layers kept in FP32.

    On NVIDIA GPUs, ONNX Runtime and PyTorch's convolutions use TF32 for FP32; this package's TensorRT engines do not.
    """
    if not runs_on_gpu(row.engine):
        return {("cpu", precision) for precision in (*number_formats(row.precision), "fp32")}
    exact = row.engine.startswith("TensorRT")
    return {("gpu", precision) for precision in (*number_formats(row.precision), "fp32" if exact else "tf32", "fp32")}


def set_roofline(row: Row, peaks: Sequence[Peak]) -> None:
    """Set `row.roofline` from the fastest arithmetic that the row may use, or its reason in `row.not_measured`.

    The bound is compared with the GPU's own time of the inference if known, else with the host's.
    """
    row.roofline = None
    row.not_measured.pop("roofline", None)
    usable = [peak for peak in peaks if (peak.device, peak.precision) in peaks_of(row)]
    if row.latency is None or row.flops is None or row.moved_bytes is None:
        missing = "latency" if row.latency is None else "flops" if row.flops is None else "moved_bytes"
        row.not_measured["roofline"] = row.not_measured.get(missing, f"the row has no {missing}")
        return
    if not usable:
        row.not_measured["roofline"] = "the peaks of its device were not measured; see the notes"
        return
    peak = max(usable, key=lambda peak: peak.gflops)
    compute_ms = row.flops / peak.gflops / 1e6
    memory_ms = row.moved_bytes / peak.copy_gb_per_s / 1e6
    inference = row.latency.device or row.latency.infer
    row.roofline = Roofline(
        peak=peak.precision,
        compute_ms=compute_ms,
        memory_ms=memory_ms,
        bound="compute" if compute_ms >= memory_ms else "memory",
        efficiency=100 * max(compute_ms, memory_ms) / inference.p50,
    )
