"""Memory and a stream on the first NVIDIA GPU, through `cuda.core` of cuda-python."""

import contextlib
import ctypes
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from segkc_deploy.errors import MissingDependencyError, SegKCError


class DeviceMemory:
    """A stream and what is allocated for it. Everything is freed by `close`.

    Probe CUDA before making one (`segkc_deploy.cuda_probe`).

    Raises:
        MissingDependencyError: cuda-core is not installed.
        SegKCError: the GPU cannot be taken into use.
    """

    def __init__(self) -> None:
        self._core = import_cuda_core()
        with cuda_errors("taking the GPU into use"):
            self._device = self._core.Device(0)
            self._device.set_current()
            self.stream = self._device.create_stream()
            self._pinned = self._core.LegacyPinnedMemoryResource()
        self._staged: list[StagedBuffer] = []

    @property
    def stream_handle(self) -> int:
        """The stream as an integer, as TensorRT takes it."""
        return int(self.stream.handle)

    def make_current(self) -> None:
        """Let the calling thread use the GPU; another thread may have loaded the network."""
        self._core.Device(0).set_current()

    def allocate(self, count: int) -> "StagedBuffer":
        """Return `count` bytes on the device with as many on the host beside them.

        Raises:
            SegKCError: there is not enough memory.
        """
        with cuda_errors(f"allocating {count / 2**20:.0f} MiB on the GPU"), contextlib.ExitStack() as stack:
            device = self._device.allocate(count, stream=self.stream)
            stack.callback(device.close, self.stream)
            host = self._pinned.allocate(count, stream=self.stream)
            stack.pop_all()
        self._staged.append(StagedBuffer(self._core, device, host))
        return self._staged[-1]

    def timer(self) -> "DeviceTimer":
        """Return a timer of what is put on the stream."""
        with cuda_errors("making events"):
            self.make_current()
            return DeviceTimer(self._core, self._device, self.stream)

    def capture(self, enqueue: Callable[[], None]) -> Any:
        """Return a CUDA graph of what `enqueue` puts on the stream; `launch(stream)` runs it, `close()` frees it.

        Nothing is run. What `enqueue` uses has to live as long as the graph.
        """
        builder = self.stream.create_graph_builder()
        try:
            # A capture of this thread alone: other threads may go on allocating.
            builder.begin_building("thread_local")
            enqueue()
            return builder.end_building().complete()
        finally:
            builder.close()

    def close(self) -> None:
        """Wait for the stream and free everything."""
        with cuda_errors("freeing GPU memory"):
            self.make_current()
            self.stream.sync()
            for buffer in self._staged:
                buffer.close(self.stream)
            self._staged.clear()
            self.stream.sync()
            self.stream.close()


class DeviceTimer:
    """Measures how long the GPU takes from `start` to `stop`, both put on the stream as events; `close` frees them."""

    def __init__(self, core: Any, device: Any, stream: Any) -> None:
        options = core.EventOptions(timing_enabled=True)
        self._stream = stream
        self._started, self._stopped = device.create_event(options), device.create_event(options)

    def start(self) -> None:
        self._stream.record(self._started)

    def stop(self) -> None:
        self._stream.record(self._stopped)

    def elapsed_ms(self) -> float:
        """Return the time between both; the stream has to have been waited for."""
        return float(self._stopped - self._started)

    def close(self) -> None:
        self._started.close()
        self._stopped.close()


class StagedBuffer:
    """Bytes on the device, and page-locked bytes on the host through which they are filled and read.

    Attributes:
        address: where the bytes are on the device.
    """

    def __init__(self, core: Any, device: Any, host: Any) -> None:
        self._core, self._device, self._host = core, device, host
        self.address = int(device.handle)
        self._bytes = np.ctypeslib.as_array((ctypes.c_uint8 * host.size).from_address(int(host.handle)))

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """Return the first bytes on the host as an array; valid until `close`, changed by `download`."""
        return self._bytes[: nbytes(shape, dtype)].view(dtype).reshape(shape)

    def upload(self, count: int, stream: Any) -> None:
        """Enqueue the copy of the first `count` bytes to the device."""
        self._part(self._device, count).copy_from(self._part(self._host, count), stream=stream)

    def download(self, count: int, stream: Any) -> None:
        """Enqueue the copy of the first `count` bytes to the host."""
        self._part(self._host, count).copy_from(self._part(self._device, count), stream=stream)

    def close(self, stream: Any) -> None:
        """Free both in the order of `stream`. No array of this buffer may be used any more."""
        self._bytes = np.empty(0, np.uint8)
        self._device.close(stream)
        self._host.close(stream)

    def _part(self, buffer: Any, count: int) -> Any:
        # A copy takes whole buffers of one size; this one refers to the beginning of another.
        return self._core.Buffer.from_handle(buffer.handle, count, owner=buffer)


def nbytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Return how many bytes an array takes."""
    return int(np.prod(shape)) * dtype.itemsize


def import_cuda_core() -> Any:
    """Return the module `cuda.core`.

    Raises:
        MissingDependencyError: it is not installed, or older than its first stable version.
    """
    try:
        core = importlib.import_module("cuda.core")
    except ImportError as error:
        raise MissingDependencyError(
            f"a TensorRT engine needs cuda-core ({error}): pip install 'cuda-core[cu13]>=1,<2'"
            " (cu12 with a CUDA 12 driver)"
        ) from None
    if not hasattr(core, "Device"):  # before 0.5 all names were in cuda.core.experimental
        raise MissingDependencyError(f"cuda-core {core.__version__} is too old: pip install 'cuda-core>=1,<2'")
    return core


@contextlib.contextmanager
def cuda_errors(doing: str) -> Iterator[None]:
    """Turn an error of CUDA's inside the block into one line that says what was being done."""
    try:
        yield
    except _error_types() as error:
        text = " ".join(str(error).split())
        hint = "; free memory on the GPU, or export with a smaller --batch or --size" if "OUT_OF_MEMORY" in text else ""
        raise SegKCError(f"CUDA failed while {doing}: {text}{hint}") from None


def _error_types() -> tuple[type[Exception], ...]:
    # cuda.core raises RuntimeError for a capture that went wrong, and for the driver's errors a class of its own that
    # it does not export.
    try:
        utilities = importlib.import_module("cuda.core._utils.cuda_utils")
    except ImportError:
        return (RuntimeError,)
    return (RuntimeError, utilities.CUDAError)
