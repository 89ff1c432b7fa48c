"""What the latency has on a GPU besides: the GPU's own time, and everything once more with CUDA graphs."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from segkc_deploy.benchmarks.measure.latency import Budget, DeviceTimedPredictor, measure_device, measure_latency
from segkc_deploy.benchmarks.schema import Row
from segkc_deploy.errors import SegKCError
from segkc_deploy.predictor import load
from segkc_deploy.preprocess import network_size
from segkc_deploy.runners.trt_execution import MOST_GRAPHS


def runs_on_gpu(engine: str) -> bool:
    """Say whether a row runs on an NVIDIA GPU, by its `engine`."""
    return any(word in engine.lower() for word in ("cuda", "tensorrt"))


def add_device_times(row: Row, predictor: DeviceTimedPredictor, images: Sequence[np.ndarray], budget: Budget) -> None:
    """Set `device` of the latency of a row on a GPU, or say in `not_measured` why it has none."""
    assert row.latency is not None, "measure the latency first"
    try:
        row.latency.device = measure_device(predictor, images, budget)
    except SegKCError as error:
        row.not_measured["latency.device"] = str(error)
        return
    if row.latency.device is None:
        row.not_measured["latency.device"] = "the engine does not tell how long it takes on the GPU"


def add_cuda_graph(
    row: Row, engine: Path, images: Sequence[np.ndarray], budget: Budget, timing: AbstractContextManager[object]
) -> None:
    """Set `latency_cuda_graph` of a row, or say in `not_measured` why it has none.

    Args:
        row: that of `engine`.
        engine: an artifact of the engine `trt`.
        images: decoded uint8 (H, W, 3) RGB images.
        budget: how many runs.
        timing: is entered after the warm-up and left after the last timed run.
    """
    try:
        with load(engine, cuda_graph=True) as predictor:
            sizes = {network_size(predictor.contract, (image.shape[0], image.shape[1])) for image in images}
            if len(sizes) > MOST_GRAPHS:
                row.not_measured["latency_cuda_graph"] = (
                    f"the images have {len(sizes)} sizes for the network, and a runner keeps graphs of {MOST_GRAPHS}:"
                    " capturing them would be timed"
                )
                return
            latency = measure_latency(predictor, images, budget, timing)
            latency.device = measure_device(predictor, images, budget)
    except SegKCError as error:
        row.not_measured["latency_cuda_graph"] = str(error)
        return
    row.latency_cuda_graph = latency
