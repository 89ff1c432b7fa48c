"""A strict stand-in for `cuda.core` 1.x: the names and signatures that are used of it, on a `FakeDevice`.

A parameter that is missing here cannot be used; `test_trt_run.py` looks every other one up in the real package where
that is installed. Host memory is real,
since the code under test reads it as arrays; device memory is the `FakeDevice`'s.
"""

import ctypes
import itertools
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
from fake_device import COPY_MS, FakeDevice, Work


class CUDAError(Exception):
    """`cuda.core._utils.cuda_utils.CUDAError`."""


@dataclass
class Gpu:
    """What the stand-in does and what was done with it.

    Attributes:
        device: memory and streams, shared with the stand-in for TensorRT.
        host: page-locked host memory by address.
        current: how often the device was made current.
        free_bytes: device memory that can still be allocated.
        pinned_fails: there is no page-locked host memory left.
        launches: graphs that were launched.
        recorded_events: how often an event was put on a stream.
        sync_error: raised by the next synchronization.
    """

    device: FakeDevice
    host: dict[int, Any] = field(default_factory=dict)
    current: int = 0
    free_bytes: int = 1 << 30
    pinned_fails: bool = False
    launches: int = 0
    open_graphs: int = 0
    open_events: int = 0
    recorded_events: int = 0
    sync_error: str = ""

    @property
    def leaks(self) -> list[Any]:
        """Everything that was not freed."""
        return [
            *self.device.memory,
            *self.device.streams,
            *self.host,
            *range(self.open_graphs),
            *range(self.open_events),
        ]


def install(monkeypatch: pytest.MonkeyPatch, device: FakeDevice) -> Gpu:
    """Put the stand-in where `import cuda.core` finds it."""
    import sys

    gpu = Gpu(device)
    core, utilities = ModuleType("cuda.core"), ModuleType("cuda.core._utils.cuda_utils")
    core.__dict__.update(_classes(gpu), __version__="1.2.2")
    utilities.__dict__["CUDAError"] = CUDAError
    monkeypatch.setitem(sys.modules, "cuda.core", core)
    monkeypatch.setitem(sys.modules, "cuda.core._utils.cuda_utils", utilities)
    return gpu


def _classes(gpu: Gpu) -> dict[str, type]:
    class Device(FakeCoreDevice):
        _gpu = gpu

    class LegacyPinnedMemoryResource(FakePinned):
        _gpu = gpu

    class Buffer(FakeBuffer):
        _gpu = gpu

    return {
        "Device": Device,
        "LegacyPinnedMemoryResource": LegacyPinnedMemoryResource,
        "Buffer": Buffer,
        "EventOptions": FakeEventOptions,
    }


class FakeStream:
    handle: int

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self.handle = gpu.device.create_stream()

    def sync(self) -> None:
        if self._gpu.sync_error:
            text, self._gpu.sync_error = self._gpu.sync_error, ""
            raise CUDAError(text)
        self._gpu.device.synchronize(self.handle)

    def close(self) -> None:
        assert not self._gpu.device.streams.pop(self.handle), "work was still waiting on a closed stream"

    def record(self, event: "FakeEvent") -> "FakeEvent":
        assert self.handle not in self._gpu.device.capturing, "an event inside of a graph tells no time"
        self._gpu.recorded_events += 1
        event._record(self)
        return event

    def create_graph_builder(self) -> "FakeGraphBuilder":
        return FakeGraphBuilder(self)


class FakeEventOptions:
    timing_enabled: bool | None

    def __init__(self, timing_enabled: bool | None = False) -> None:
        self.timing_enabled = timing_enabled


class FakeEvent:
    def __init__(self, gpu: Gpu, options: FakeEventOptions | None) -> None:
        self._gpu, self._timed = gpu, options is not None and bool(options.timing_enabled)
        self._at_ms: float | None = None
        self._closed = False
        gpu.open_events += 1

    def _record(self, stream: FakeStream) -> None:
        assert not self._closed, "a closed event was recorded"
        self._at_ms = None
        self._gpu.device.enqueue(stream.handle, self._happen)

    def _happen(self) -> None:
        self._at_ms = self._gpu.device.clock_ms

    def __sub__(self, other: "FakeEvent") -> float:
        if not (self._timed and other._timed):
            raise RuntimeError("Both Events must be created with timing enabled in order to subtract them")
        if self._at_ms is None or other._at_ms is None:
            raise RuntimeError("One or both events have not completed")
        return self._at_ms - other._at_ms

    def close(self) -> None:
        assert not self._closed, "closed twice"
        self._closed = True
        self._gpu.open_events -= 1


class FakeGraphBuilder:
    def __init__(self, stream: FakeStream) -> None:
        self._stream, self._device = stream, stream._gpu.device
        self._work: list[Work] | None = None

    def begin_building(self, mode: str) -> "FakeGraphBuilder":
        assert mode in ("global", "thread_local", "relaxed")
        self._device.begin_capture(self._stream.handle)
        return self

    def end_building(self) -> "FakeGraphBuilder":
        self._work = self._device.end_capture(self._stream.handle)
        return self

    def complete(self) -> "FakeGraph":
        assert self._work is not None, "complete before end_building"
        return FakeGraph(self._stream._gpu, self._work)

    def close(self) -> None:
        if self._stream.handle in self._device.capturing:
            self._device.end_capture(self._stream.handle)


class FakeGraph:
    def __init__(self, gpu: Gpu, work: list[Work]) -> None:
        self._gpu, self._work, self._closed = gpu, work, False
        gpu.open_graphs += 1

    def launch(self, stream: FakeStream) -> None:
        assert not self._closed, "a closed graph was launched"
        self._gpu.launches += 1
        for work in self._work:
            self._gpu.device.enqueue(stream.handle, work)

    def close(self) -> None:
        assert not self._closed, "closed twice"
        self._closed = True
        self._gpu.open_graphs -= 1


class FakeCoreDevice:
    _gpu: Gpu

    def __init__(self, device_id: Any = None) -> None:
        assert device_id == 0

    def set_current(self) -> None:
        self._gpu.current += 1

    def create_stream(self) -> FakeStream:
        assert self._gpu.current, "no device is current"
        return FakeStream(self._gpu)

    def create_event(self, options: FakeEventOptions | None = None) -> FakeEvent:
        assert self._gpu.current, "no device is current"
        return FakeEvent(self._gpu, options)

    def allocate(self, size: int, *, stream: FakeStream) -> "FakeBuffer":
        assert isinstance(size, int)
        assert isinstance(stream, FakeStream)
        self._gpu.free_bytes -= size
        if self._gpu.free_bytes < 0:
            raise CUDAError("CUDA_ERROR_OUT_OF_MEMORY: The API call failed.")
        return FakeBuffer._make(self._gpu, self._gpu.device.allocate(size), size, "device")


class FakePinned:
    _gpu: Gpu

    def allocate(self, size: int, *, stream: FakeStream) -> "FakeBuffer":
        if self._gpu.pinned_fails:
            raise CUDAError("CUDA_ERROR_OUT_OF_MEMORY: The API call failed.")
        block = (ctypes.c_uint8 * size)(*itertools.repeat(0xCD, size))
        self._gpu.host[ctypes.addressof(block)] = block
        return FakeBuffer._make(self._gpu, ctypes.addressof(block), size, "host")


class FakeBuffer:
    _gpu: Gpu
    handle: int
    size: int
    owns: str

    @staticmethod
    def _make(gpu: Gpu, handle: int, size: int, owns: str) -> "FakeBuffer":
        made = object.__new__(FakeBuffer)
        made._gpu, made.handle, made.size, made.owns = gpu, handle, size, owns
        return made

    @classmethod
    def from_handle(cls, ptr: int, size: int, *, owner: Any) -> "FakeBuffer":
        assert isinstance(owner, FakeBuffer)
        assert 0 < size <= owner.size
        return FakeBuffer._make(cls._gpu, ptr, size, "")

    def copy_from(self, src: "FakeBuffer", *, stream: FakeStream) -> None:
        if src.size != self.size:
            raise ValueError(f"buffer sizes mismatch between src and dst (sizes are: src={src.size}, dst={self.size})")
        source, target, count = src.handle, self.handle, self.size

        def copy() -> None:
            self._write(target, self._read(source, count))
            self._gpu.device.clock_ms += COPY_MS

        self._gpu.device.enqueue(stream.handle, copy)

    def close(self, stream: FakeStream) -> None:
        if self.owns == "device":
            self._gpu.device.free(self.handle)
        elif self.owns == "host":
            del self._gpu.host[self.handle]

    def _read(self, address: int, count: int) -> bytes:
        if address in self._gpu.host:
            assert count <= len(self._gpu.host[address])
            return ctypes.string_at(address, count)
        return self._gpu.device.read(address, count)

    def _write(self, address: int, data: bytes) -> None:
        if address in self._gpu.host:
            assert len(data) <= len(self._gpu.host[address])
            ctypes.memmove(address, data, len(data))
        else:
            self._gpu.device.write(address, data)


#: (the stand-in's class, where the real one is) for every class whose methods are used
REAL = (
    (FakeCoreDevice, "cuda.core", "Device"),
    (FakePinned, "cuda.core", "LegacyPinnedMemoryResource"),
    (FakeBuffer, "cuda.core", "Buffer"),
    (FakeStream, "cuda.core", "Stream"),
    (FakeEvent, "cuda.core", "Event"),
    (FakeEventOptions, "cuda.core", "EventOptions"),
    (FakeGraphBuilder, "cuda.core.graph", "GraphBuilder"),
    (FakeGraph, "cuda.core.graph", "Graph"),
)
