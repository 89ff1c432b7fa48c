"""Measures a machine's peaks by one library: `python -m segkc_deploy.benchmarks.measure.peak_worker ORDER FOUND`.

In a process of its own, with threads as its environment says: no other library's threads are there, and what a library
brings down is the figures of that library alone. What is found is written at once.
"""

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from segkc_deploy import atomic
from segkc_deploy.benchmarks.measure import cpu_peaks, gpu_peaks
from segkc_deploy.benchmarks.measure.best_rate import Rate
from segkc_deploy.benchmarks.measure.worker_process import end_with_parent, tell_errors

Device = Literal["cpu", "gpu"]

_Product = Callable[[str, int | None, float], Rate | None]
_Copy = Callable[[int | None, float], Rate | None]

PRODUCTS: dict[Device, dict[str, _Product]] = {
    "cpu": {
        "numpy": cpu_peaks.numpy_peak,
        "onnxruntime": cpu_peaks.onnxruntime_peak,
        "openvino": cpu_peaks.openvino_peak,
        "torch": cpu_peaks.torch_peak,
    },
    "gpu": {"torch": gpu_peaks.torch_peak, "onnxruntime": gpu_peaks.onnxruntime_peak},
}
_COPIES: dict[Device, dict[str, _Copy]] = {
    "cpu": {"numpy": cpu_peaks.copy_peak},
    "gpu": {"torch": gpu_peaks.torch_copy, "onnxruntime": gpu_peaks.onnxruntime_copy},
}


class PeakOrder(BaseModel):
    """What to measure by which library; `seconds` for each size of a product and for the copy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    library: str
    device: Device
    precisions: tuple[str, ...]
    threads: int | None
    seconds: float


class FoundRates(BaseModel):
    """Products in 1e9 operations/s by their precision, and the copy in 1e9 bytes/s, where the library does them."""

    model_config = ConfigDict(extra="forbid")

    products: dict[str, Rate] = Field(default_factory=dict)
    copied: Rate | None = None


def main(order_file: Path, found_file: Path) -> None:
    """Measure what `order_file` asks for unless the input ends; why it failed is in `<found_file>.error`."""
    tell_errors(found_file.with_suffix(".error"))
    threading.Thread(target=end_with_parent, daemon=True).start()
    order = PeakOrder.model_validate_json(order_file.read_bytes())
    found = FoundRates()
    copy = _COPIES[order.device].get(order.library)
    if copy is not None:
        found.copied = copy(order.threads, order.seconds)
        atomic.write_text(found_file, found.model_dump_json())
    for precision in order.precisions:
        rate = PRODUCTS[order.device][order.library](precision, order.threads, order.seconds)
        if rate is not None:
            found.products[precision] = rate
            atomic.write_text(found_file, found.model_dump_json())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
