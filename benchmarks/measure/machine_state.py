"""What the machine does while a row is measured: read before, once a second during each part, and after."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from segkc_deploy.benchmarks.measure.at_intervals import at_intervals
from segkc_deploy.benchmarks.measure.background_load import BackgroundLoad, celsius, mean_mhz
from segkc_deploy.benchmarks.measure.nvidia_gpu import NvidiaGpu
from segkc_deploy.benchmarks.measure.state_flags import BEFORE, state_flags
from segkc_deploy.benchmarks.schema import MachineState, Reading

INTERVAL_S = 1.0
#: Readings are rarer where one lasts so long that it would take more than this share of a thread's time.
MOST_SHARE = 0.005


class MachineWatch:
    """Keeps readings of the machine; `state` is what they say.

    A thread takes them while a part is under way, so that they fall on timed runs at random, not on each of them.

    Args:
        gpu: the GPU that the row will run on, if any.
        interval_s: how often to read during a part.
    """

    def __init__(self, gpu: NvidiaGpu | None = None, interval_s: float = INTERVAL_S) -> None:
        self._gpu = gpu
        self._interval_s = interval_s
        self._background_load = BackgroundLoad()
        self._readings: list[Reading] = []
        self._began = time.perf_counter()
        self._pause_s = interval_s
        # This process has nothing of CUDA's yet, so all that are there are others.
        self._other_gpu_processes = (gpu.compute_processes() or 0) if gpu else 0
        self.read(BEFORE)

    @property
    def gpu(self) -> NvidiaGpu | None:
        """The GPU that is read."""
        return self._gpu

    def read(self, moment: str) -> None:
        """Take a reading."""
        first = not self._readings
        background_load = self._background_load.percent()
        self._readings.append(
            Reading(
                moment=moment,
                at_s=time.perf_counter() - self._began,
                cpu_mhz=mean_mhz(),
                cpu_celsius=celsius(),
                background_load=None if first else background_load,
                **(self._gpu.reading() if self._gpu else {}),
            )
        )

    @contextmanager
    def during(self, part: str) -> Iterator[None]:
        """Read at the beginning of a part of the measuring, at its end, and at intervals between."""
        self.read(part)
        self._pause_s = self._interval_s
        try:
            with at_intervals(lambda: self._read_at_leisure(part), lambda: self._pause_s):
                yield
        finally:
            self.read(part)
            self._count_gpu_processes()

    def leave_gpu_out(self) -> None:
        """Forget the GPU: the row does not run on it."""
        self._gpu, self._other_gpu_processes = None, 0
        no_gpu = Reading(moment="", at_s=0).model_dump(include=_GPU_FIELDS)
        self._readings = [reading.model_copy(update=no_gpu) for reading in self._readings]

    def state(self) -> MachineState:
        """Return the readings so far and what of them makes timings unreliable."""
        default_watts = self._gpu.default_limit_watts() if self._gpu else None
        return MachineState(
            readings=list(self._readings), flags=state_flags(self._readings, default_watts, self._other_gpu_processes)
        )

    def missing(self) -> dict[str, str]:
        """Return why figures of the readings are null, by their names in a row."""
        missing = dict(self._gpu.missing) if self._gpu else {}
        if all(reading.cpu_mhz is None for reading in self._readings):
            missing["cpu_mhz"] = "the system does not tell the processors' clock"
        if all(reading.cpu_celsius is None for reading in self._readings):
            missing["cpu_celsius"] = "the system shows no sensor of the processors"
        return {f"state.{figure}": reason for figure, reason in missing.items() if figure in Reading.model_fields}

    def _count_gpu_processes(self) -> None:
        # The row's own is one of those that are there now. Their ids are not compared: a container has ids of its own.
        now = (self._gpu.compute_processes() or 0) if self._gpu else 0
        self._other_gpu_processes = max(self._other_gpu_processes, now - 1)

    def _read_at_leisure(self, part: str) -> None:
        began = time.perf_counter()
        self.read(part)
        self._pause_s = max(self._interval_s, (time.perf_counter() - began) / MOST_SHARE)


_GPU_FIELDS = {name for name in Reading.model_fields if name.startswith("gpu_")}
