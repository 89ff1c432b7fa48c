"""A pretended GPU: memory that checks its bounds, and streams whose work is done only when someone waits for it."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

#: What a copy and an inference take on the pretended GPU's own clock.
COPY_MS, INFERENCE_MS = 100.0, 7.0

Work = Callable[[], None]


@dataclass
class FakeDevice:
    """What a test's stand-ins for CUDA and TensorRT share.

    Addresses and stream handles are plain integers, as with CUDA. Reading or writing outside an allocation, or on a
    stream that does not exist, is an AssertionError. Work that was enqueued runs in `synchronize`, so that code that
    forgets to wait reads old values. `clock_ms` goes on by what the work takes.
    """

    memory: dict[int, bytearray] = field(default_factory=dict)
    streams: dict[int, list[Work]] = field(default_factory=dict)
    capturing: set[int] = field(default_factory=set)
    clock_ms: float = 0.0
    _handles: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def allocate(self, count: int) -> int:
        """Return the address of `count` bytes, filled with 0xCD."""
        assert count > 0, "an allocation of no bytes"
        address = next(self._handles) << 32
        self.memory[address] = bytearray(b"\xcd" * count)
        return address

    def free(self, address: int) -> None:
        del self.memory[address]

    def read(self, address: int, count: int) -> bytes:
        block, offset = self._find(address, count)
        return bytes(block[offset : offset + count])

    def write(self, address: int, data: bytes) -> None:
        block, offset = self._find(address, len(data))
        block[offset : offset + len(data)] = data

    def create_stream(self) -> int:
        """Return a stream's handle; 0, the default stream, is never one."""
        handle = next(self._handles)
        self.streams[handle] = []
        return handle

    def enqueue(self, stream: int, work: Work) -> None:
        """Do `work` when the stream is next waited for, after what is enqueued there already."""
        assert stream in self.streams, f"no such stream: {stream}"
        self.streams[stream].append(work)

    def synchronize(self, stream: int) -> None:
        """Do everything that waits on the stream."""
        assert stream not in self.capturing, "a stream that is being captured cannot be waited for"
        waiting, self.streams[stream] = self.streams[stream], []
        for work in waiting:
            work()

    def begin_capture(self, stream: int) -> None:
        assert not self.streams[stream], "wait for the stream before capturing it"
        self.capturing.add(stream)

    def end_capture(self, stream: int) -> list[Work]:
        """Return what was enqueued since `begin_capture`, none of it done; enqueue each to launch it again."""
        self.capturing.remove(stream)
        captured, self.streams[stream] = self.streams[stream], []
        return captured

    def _find(self, address: int, count: int) -> tuple[bytearray, int]:
        for start, block in self.memory.items():
            if start <= address and address + count <= start + len(block):
                return block, address - start
        raise AssertionError(f"{count} bytes at {address:#x} are outside every allocation")
