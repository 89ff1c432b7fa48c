"""Running a loaded TensorRT engine: buffers for its largest batch, shapes, and CUDA graphs."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segkc_deploy.errors import ArtifactError, SegKCError
from segkc_deploy.manifest import Contract
from segkc_deploy.runners.device_memory import DeviceMemory, DeviceTimer, StagedBuffer, cuda_errors, nbytes
from segkc_deploy.tensorrt_library import LogLines

#: Each shape's graph holds an execution context with memory of its own; of more shapes the oldest gives way.
MOST_GRAPHS = 8

_DTYPES: dict[str, np.dtype[Any]] = {
    "FLOAT": np.dtype(np.float32),
    "HALF": np.dtype(np.float16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "UINT8": np.dtype(np.uint8),
}

Shape = tuple[int, ...]


@dataclass
class _Bound:
    """An execution context whose tensors have addresses, and the shapes that are set in it."""

    context: Any
    shape: Shape = ()
    outputs: dict[str, Shape] = field(default_factory=dict)
    graph: Any = None


class Execution:
    """Runs an engine with buffers for its largest input, which smaller inputs reuse.

    Args:
        path: the engine file, for messages.
        trt: the module `tensorrt` or `tensorrt_rtx`.
        engine: the deserialized engine.
        memory: where it runs; it is closed by its owner, after `close`.
        contract: the tensors that the engine has to have.
        cuda_graph: record each input shape's work once, then launch it as a whole.
        log: what TensorRT logs, for messages.

    Raises:
        ArtifactError: the engine has other inputs or outputs than the contract.
        SegKCError: there is not enough memory.
    """

    def __init__(
        self,
        path: object,
        trt: Any,
        engine: Any,
        memory: DeviceMemory,
        contract: Contract,
        cuda_graph: bool,
        log: LogLines,
    ) -> None:
        self._path, self._engine, self._memory, self._log = path, engine, memory, log
        self._cuda_graph = cuda_graph
        self._timer: DeviceTimer | None = None
        #: of the last `run`; None unless `time_device` asked for it
        self.last_device_ms: float | None = None
        self._input = contract.input.name
        self._dtypes = _tensor_types(path, trt, engine, contract)
        self._smallest, self._largest = self._input_range()
        #: by input shape with CUDA graphs; else one alone, under an empty shape
        self._bound: dict[Shape, _Bound] = {}
        self._buffers: dict[str, StagedBuffer] = {}
        first = _Bound(self._new_context())
        self._set_shape(first, self._largest)
        for name, shape in {self._input: self._largest, **first.outputs}.items():
            self._buffers[name] = memory.allocate(nbytes(shape, self._dtypes[name]))
        self._set_addresses(first.context)
        self._idle = [first]

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Run on a batch and return copies of the outputs by name; not for two threads at once.

        Raises:
            ArtifactError: the engine was not built for a batch of this shape.
            SegKCError: TensorRT or CUDA failed.
        """
        self._check_batch(images)
        self._memory.make_current()
        np.copyto(self._buffers[self._input].array(images.shape, images.dtype), images)
        with cuda_errors(f"running {self._path}"):
            bound = self._prepared(images.shape)
            if self._timer is not None:
                self._enqueue_timed(bound, self._timer)
            elif bound.graph is None:
                self._enqueue(bound)
            else:
                bound.graph.launch(self._memory.stream)
            self._memory.stream.sync()
            if self._timer is not None:
                self.last_device_ms = self._timer.elapsed_ms()
        return {
            name: self._buffers[name].array(shape, self._dtypes[name]).copy() for name, shape in bound.outputs.items()
        }

    def time_device(self, on: bool) -> None:
        """Set `last_device_ms` in each `run` from now on, or no longer.

        Graphs are recorded anew, without the copies: events inside of a graph tell no time.
        """
        if on == (self._timer is not None):
            return
        for bound in self._bound.values():
            self._forget_graph(bound)
        if self._timer is not None:
            self._timer.close()
        self._timer = self._memory.timer() if on else None
        self.last_device_ms = None

    def close(self) -> None:
        """Free graphs, events and contexts; the engine and the memory are their owners' to free."""
        self.time_device(False)
        for bound in self._bound.values():
            self._forget_graph(bound)
        self._bound.clear()
        self._idle.clear()
        self._engine = None

    def _forget_graph(self, bound: _Bound) -> None:
        if bound.graph is not None:
            bound.graph.close()
            bound.graph = None

    def _prepared(self, shape: Shape) -> _Bound:
        """Return a context whose shapes are set to `shape`, with its graph if there are to be graphs."""
        key = shape if self._cuda_graph else ()
        bound = self._bound.get(key)
        if bound is None:
            bound = self._bound[key] = self._take_idle()
        if bound.shape != shape:
            self._set_shape(bound, shape)
        if self._cuda_graph and bound.graph is None:
            # TensorRT finishes its own preparations in a first run, which must not be part of the graph.
            self._enqueue(bound)
            self._memory.stream.sync()
            recorded = self._enqueue if self._timer is None else self._execute
            bound.graph = self._memory.capture(lambda: recorded(bound))
        return bound

    def _take_idle(self) -> _Bound:
        if self._idle:
            return self._idle.pop()
        if len(self._bound) < MOST_GRAPHS:
            bound = _Bound(self._new_context())
            self._set_addresses(bound.context)
            return bound
        oldest = self._bound.pop(next(iter(self._bound)))
        self._forget_graph(oldest)
        return oldest

    def _enqueue(self, bound: _Bound) -> None:
        """Put a whole inference on the stream: input to the device, the network, outputs to the host."""
        self._upload(bound)
        self._execute(bound)
        self._download(bound)

    def _enqueue_timed(self, bound: _Bound, timer: DeviceTimer) -> None:
        self._upload(bound)
        timer.start()
        if bound.graph is None:
            self._execute(bound)
        else:
            bound.graph.launch(self._memory.stream)
        timer.stop()
        self._download(bound)

    def _upload(self, bound: _Bound) -> None:
        count = nbytes(bound.shape, self._dtypes[self._input])
        self._buffers[self._input].upload(count, self._memory.stream)

    def _execute(self, bound: _Bound) -> None:
        if not bound.context.execute_async_v3(self._memory.stream_handle):
            raise SegKCError(
                f"{self._path}: TensorRT could not run a batch of shape {bound.shape}: {self._log.reason()}"
            )

    def _download(self, bound: _Bound) -> None:
        for name, shape in bound.outputs.items():
            self._buffers[name].download(nbytes(shape, self._dtypes[name]), self._memory.stream)

    def _new_context(self) -> Any:
        context = self._engine.create_execution_context()
        if context is None:
            raise SegKCError(
                f"{self._path}: TensorRT could not make an execution context: {self._log.reason()};"
                " if it is for memory, free some on the GPU or export with a smaller --batch or --size"
            )
        return context

    def _set_shape(self, bound: _Bound, shape: Shape) -> None:
        bound.shape = ()
        if not bound.context.set_input_shape(self._input, shape):
            raise SegKCError(f"{self._path}: TensorRT refused the input shape {shape}: {self._log.reason()}")
        names = [name for name in self._dtypes if name != self._input]
        bound.outputs = {name: tuple(bound.context.get_tensor_shape(name)) for name in names}
        unknown = [name for name, sizes in bound.outputs.items() if min(sizes) < 0]
        if unknown:
            raise ArtifactError(f"{self._path}: the shape of {', '.join(unknown)} is not known before it runs")
        bound.shape = shape

    def _set_addresses(self, context: Any) -> None:
        for name, buffer in self._buffers.items():
            if not context.set_tensor_address(name, buffer.address):
                raise SegKCError(f"{self._path}: TensorRT refused the address of {name}: {self._log.reason()}")

    def _input_range(self) -> tuple[Shape, Shape]:
        """Return the smallest and the largest shape of the input."""
        fixed = tuple(self._engine.get_tensor_shape(self._input))
        if min(fixed) >= 0:
            return fixed, fixed
        smallest, _, largest = self._engine.get_tensor_profile_shape(self._input, 0)
        return tuple(smallest), tuple(largest)

    def _check_batch(self, images: np.ndarray) -> None:
        sizes = list(zip(self._smallest, images.shape, self._largest, strict=False))
        if images.dtype != self._dtypes[self._input] or images.ndim != len(self._largest):
            wanted = f"{self._dtypes[self._input]} of {len(self._largest)} dimensions"
        elif not all(least <= size <= most for least, size, most in sizes):
            wanted = " x ".join(f"{a}" if a == b else f"{a} to {b}" for a, _, b in sizes)
        else:
            return
        raise ArtifactError(
            f"{self._path}: takes {wanted}, not a {images.dtype} batch of shape {images.shape};"
            " export it again with another --batch or --size"
        )


def _tensor_types(path: object, trt: Any, engine: Any, contract: Contract) -> dict[str, np.dtype[Any]]:
    """Return the NumPy types of the engine's tensors by name, checked against the contract."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outputs = {name for name in names if name not in inputs}
    if inputs != [contract.input.name] or outputs != {tensor.name for tensor in contract.outputs}:
        raise ArtifactError(
            f"{path}: takes {', '.join(inputs)} and gives {', '.join(sorted(outputs))}, which is not what its manifest"
            " says; export it again"
        )
    types = {name: engine.get_tensor_dtype(name).name for name in names}
    unknown = [f"{name} ({dtype})" for name, dtype in types.items() if dtype not in _DTYPES]
    if unknown:
        raise ArtifactError(f"{path}: NumPy has no type for {', '.join(unknown)}; export it again with uint8 masks")
    return {name: _DTYPES[dtype] for name, dtype in types.items()}
