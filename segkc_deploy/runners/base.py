"""The interface behind which every backend runs a network."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from segkc_deploy.machine import available_cores
from segkc_deploy.manifest import Manifest

#: Most streams that are chosen here: each needs memory of its own.
_MOST_STREAMS = 16


@dataclass(frozen=True)
class RunnerOptions:
    """How an artifact is run: see `segkc_deploy.load`.

    `outputs` names the outputs that are used, all of them if None; a backend may leave the others uncomputed.
    `measured_streams` is how many were best on this machine's CPU, for where `streams` leaves it open.
    """

    device: str = "auto"
    threads: int | None = None
    cuda_graph: bool = False
    outputs: tuple[str, ...] | None = None
    streams: int | None = 1
    measured_streams: int | None = None

    def on_cpu(self) -> tuple[int | None, int]:
        """Return the CPU threads of one inference, None for the engine's own choice, and how many run at once."""
        if self.streams == 1:
            return self.threads, 1
        cores = available_cores()
        streams = self.streams or self.measured_streams or min(max(cores // (self.threads or 1), 1), _MOST_STREAMS)
        return self.threads or max(cores // streams, 1), streams


class Runner(ABC):
    """Runs one network on one backend. A context manager: entering activates it, leaving frees what it holds."""

    #: what runs the network, for reports: `onnxruntime 1.31 CPUExecutionProvider`
    description: str
    #: how long the network took on the GPU in the last `infer`, in milliseconds, without the copies to and from the
    #: host; None unless `time_device` asked for it and the backend tells it
    last_device_ms: float | None = None
    #: how many threads may be in `infer` at once
    streams: int = 1

    @classmethod
    def for_artifact(cls, path: Path, manifest: Manifest, options: RunnerOptions) -> Self:
        """Return the runner of the artifact at `path`, not yet activated.

        Raises:
            ConfigError: the engine has no such device or option.
        """
        raise NotImplementedError(f"{cls.__name__} runs no artifacts")

    @abstractmethod
    def activate(self) -> None:
        """Load the network and take what it needs of the device."""

    @abstractmethod
    def infer(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Run on `images`, uint8 (N, H, W, 3) RGB at the network's input size, and return its outputs by name.

        `masks` is uint8 (N, H, W), class indices. The call returns when the result is in host memory.
        """

    @abstractmethod
    def deactivate(self) -> None:
        """Free the network and what it holds of the device."""

    def time_device(self, on: bool) -> None:  # noqa: B027 (a backend without events has nothing to do)
        """Have each `infer` set `last_device_ms` from now on, or no longer. Events cost a little time on the host."""

    def __enter__(self) -> Self:
        self.activate()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.deactivate()
