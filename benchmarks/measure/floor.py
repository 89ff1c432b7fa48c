"""The floor of a row: the least time that the machine's peaks allow an inference (Williams et al. 2009, roofline)."""

from collections.abc import Sequence
from typing import Literal

from segkc_deploy.benchmarks.measure.gpu_latency import runs_on_gpu
from segkc_deploy.benchmarks.schema import Floor, Peak, Row

_WEIGHT_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1}


def moved_bytes(parameters: int, precision: str, image_and_outputs: int) -> int:
    """Return the least bytes that an inference moves: all weights, the image and the outputs, each once.

    Weights count by the row's precision, not by the file: an engine's file holds code and sometimes more than one form
    of a weight. Layers that keep a higher precision move more, so this is a lower bound.
    """
    return parameters * _WEIGHT_BYTES[precision] + image_and_outputs


def peaks_of(row: Row) -> set[tuple[Literal["cpu", "gpu"], str]]:
    """Return the device and precisions in which `row` may compute: its own and FP32, in which layers may be kept.

    On NVIDIA GPUs, ONNX Runtime and PyTorch's convolutions take TF32 for FP32; this package's TensorRT engines do not.
    """
    if not runs_on_gpu(row.engine):
        return {("cpu", precision) for precision in (row.precision, "fp32")}
    exact = row.engine.startswith("TensorRT")
    return {("gpu", precision) for precision in (row.precision, "fp32" if exact else "tf32", "fp32")}


def set_floor(row: Row, peaks: Sequence[Peak]) -> None:
    """Set `row.floor` from the fastest arithmetic that the row may use, or say in `row.not_measured` why there is none.

    It is compared with the GPU's own time of the inference where there is one, else with the host's.
    """
    row.floor = None
    row.not_measured.pop("floor", None)
    usable = [peak for peak in peaks if (peak.device, peak.precision) in peaks_of(row)]
    if row.latency is None or row.flops is None or row.moved_bytes is None:
        missing = "latency" if row.latency is None else "flops" if row.flops is None else "moved_bytes"
        row.not_measured["floor"] = row.not_measured.get(missing, f"there is no {missing} of this row")
        return
    if not usable:
        row.not_measured["floor"] = "the peaks of the device that it runs on were not measured; see the notes"
        return
    peak = max(usable, key=lambda peak: peak.gflops)
    compute_ms = row.flops / peak.gflops / 1e6
    memory_ms = row.moved_bytes / peak.copy_gb_per_s / 1e6
    inference = row.latency.device or row.latency.infer
    row.floor = Floor(
        peak=peak.precision,
        compute_ms=compute_ms,
        memory_ms=memory_ms,
        bound="compute" if compute_ms >= memory_ms else "memory",
        share=100 * max(compute_ms, memory_ms) / inference.p50,
    )
