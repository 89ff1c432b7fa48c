"""Run an ONNX artifact with ONNX Runtime, on the CPU or on an NVIDIA GPU."""

import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Self, cast, get_args

import numpy as np

from segkc_deploy.cuda_probe import cuda_obstacle
from segkc_deploy.errors import ArtifactError, ConfigError
from segkc_deploy.manifest import Manifest, sha256_of
from segkc_deploy.runners.base import Runner, RunnerOptions
from segkc_deploy.user_cache import cache_folder

Device = Literal["auto", "cpu", "cuda", "tensorrt"]

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"

_INSTALL = {
    _CUDA: 'pip install "onnxruntime-gpu[cuda,cudnn]" brings the CUDA libraries',
    # Whatever TensorRT is installed beside it, the provider is linked to version 10.
    _TENSORRT: 'pip install --extra-index-url https://pypi.nvidia.com "tensorrt>=10,<11" brings TensorRT',
}

#: Errors reach the user as exceptions; without this level the same text would be logged to stderr as well.
_LOG_FATAL_ONLY = 4


class OnnxRuntimeRunner(Runner):
    """Runs an ONNX file on ONNX Runtime.

    Args:
        path: the ONNX file.
        device: `cpu`, `cuda`, `tensorrt` (ONNX Runtime's TensorRT provider, which builds engines at loading and keeps
            them in the user's cache folder), or `auto`: CUDA where it can really be loaded, else the CPU.
        threads: how many CPU threads one inference uses; ONNX Runtime's own choice if None.
        outputs: names of the outputs to compute; all of them if None.
        streams, measured_streams: how many threads may be in `infer` at once, on the CPU; see `RunnerOptions.on_cpu`.
    """

    @classmethod
    def for_artifact(cls, path: Path, manifest: Manifest, options: RunnerOptions) -> Self:
        return cls(path, options.device, options.threads, options.outputs, options.streams, options.measured_streams)

    def __init__(
        self,
        path: str | Path,
        device: str = "auto",
        threads: int | None = None,
        outputs: tuple[str, ...] | None = None,
        streams: int | None = 1,
        measured_streams: int | None = None,
    ) -> None:
        if device not in get_args(Device):
            raise ConfigError(f"device {device!r} is not known; use {', '.join(get_args(Device))}")
        if threads is not None and threads < 1:
            raise ConfigError(f"threads is {threads}; use 1 or more")
        self._path = Path(path)
        self._device = cast(Device, device)
        self._options = RunnerOptions(threads=threads, streams=streams, measured_streams=measured_streams)
        self._outputs = outputs
        self._session: Any = None
        self._run_options: Any = None
        self.description = "onnxruntime, not yet activated"

    def activate(self) -> None:
        """Load the file and choose the provider.

        Raises:
            ArtifactError: the file is damaged, or is not a network with this package's inputs and outputs.
            ConfigError: a GPU was asked for and cannot be had; the message says what is missing.
        """
        onnxruntime = _import_onnxruntime()
        session = None
        if self._device != "cpu":
            session, obstacle = self._open_on_gpu(onnxruntime, _TENSORRT if self._device == "tensorrt" else _CUDA)
            if session is None and self._device != "auto":
                raise ConfigError(f"device {self._device} cannot be used: {obstacle}; or use the device cpu")
            if session is not None and (self._options.streams or 1) > 1:
                raise ConfigError(f"{self._path}: streams are for the CPU; use the device cpu, or run it without")
        if session is None:
            session = self._open_on_cpu(onnxruntime)
        _check_interface(session, self._path)
        self._session = session
        self._run_options = onnxruntime.RunOptions()
        self._run_options.only_execute_path_to_fetches = self._outputs is not None
        self.description = f"onnxruntime {onnxruntime.__version__} {session.get_providers()[0]}"

    def infer(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Run on `images`, uint8 (N, H, W, 3) RGB, and return the outputs by name.

        Raises:
            ArtifactError: ONNX Runtime could not run the network on this batch.
        """
        assert self._session is not None, "activate the runner first"
        names = self._outputs or [output.name for output in self._session.get_outputs()]
        try:
            values = self._session.run(names, {self._session.get_inputs()[0].name: images}, self._run_options)
        except _onnxruntime_errors() as error:
            raise ArtifactError(
                f"{self._path}: onnxruntime could not run it on a batch of shape {images.shape}: {_one_line(error)}"
            ) from None
        return dict(zip(names, values, strict=True))

    def deactivate(self) -> None:
        """Free the session."""
        self._session = None

    def _open(self, onnxruntime: ModuleType, providers: list[Any], threads: int | None, streams: int = 1) -> Any:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _LOG_FATAL_ONLY
        if threads is not None:
            options.intra_op_num_threads = threads
        if streams > 1:  # a thread that waits for work would take the core from another inference
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return onnxruntime.InferenceSession(str(self._path), options, providers=providers, enable_fallback=0)

    def _open_on_cpu(self, onnxruntime: ModuleType) -> Any:
        threads, self.streams = self._options.on_cpu()
        try:
            return self._open(onnxruntime, [_CPU], threads, self.streams)
        except _onnxruntime_errors() as error:
            raise ArtifactError(
                f"{self._path}: onnxruntime cannot load it: {_one_line(error)}; copy it again or export again"
            ) from None

    def _open_on_gpu(self, onnxruntime: ModuleType, provider: str) -> tuple[Any, str]:
        """Return a session on a provider for GPUs and "", or None and the reason."""
        if obstacle := _cuda_obstacle(onnxruntime, provider):
            return None, obstacle
        remarks = preload_cuda_libraries(onnxruntime)
        try:
            with _captured_stderr() as log:
                session = self._open(onnxruntime, _providers(provider, self._path), self._options.threads)
        except _onnxruntime_errors() as error:
            # The TensorRT provider raises where its libraries are missing; the CUDA one leaves the work to the CPU.
            if "install TensorRT" in str(error):
                return None, f"onnxruntime could not load its {provider}; {_INSTALL[provider]}"
            return None, _one_line(error)
        if session.get_providers()[0] == provider:
            return session, ""
        missing = re.search(r"(\S+): cannot open shared object file", remarks + "".join(log))
        reason = f"{missing[1]} was not found" if missing else f"onnxruntime could not load its {provider}"
        return None, f"{reason}; {_INSTALL[provider]}"


def preload_cuda_libraries(onnxruntime: ModuleType) -> str:
    """Load the CUDA libraries of pip's nvidia-* packages, which no library path holds; return what it says of them."""
    with contextlib.redirect_stdout(io.StringIO()) as remarks:
        onnxruntime.preload_dlls(directory="")
    return remarks.getvalue()


def _providers(provider: str, path: Path) -> list[Any]:
    """Return the providers to ask for, each taking what the one before it leaves."""
    if provider == _CUDA:
        return [_CUDA, _CPU]
    shared = cache_folder("onnxruntime-tensorrt")
    # A folder for each file: ONNX Runtime looks an engine up by the names in a graph, and never at its weights.
    own = shared / sha256_of(path)
    own.mkdir(parents=True, exist_ok=True)
    kept = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(own)}
    kept |= {"trt_timing_cache_enable": True, "trt_timing_cache_path": str(shared)}
    return [(_TENSORRT, kept), _CUDA, _CPU]


def _import_onnxruntime() -> ModuleType:
    # Its search for GPUs warns at import about virtual display cards (WSL, cloud machines, Raspberry Pi).
    with contextlib.nullcontext() if "onnxruntime" in sys.modules else _captured_stderr():
        import onnxruntime
    return cast(ModuleType, onnxruntime)


def _onnxruntime_errors() -> tuple[type[Exception], ...]:
    """Return what ONNX Runtime raises for a file or a batch it cannot use; its exceptions share no base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = (
        "EPFail",
        "EngineError",
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "ModelLoadCanceled",
        "NoModel",
        "NoSuchFile",
        "NotImplemented",
        "RuntimeException",
    )
    return (RuntimeError, *(getattr(state, name) for name in names if hasattr(state, name)))


def _cuda_obstacle(onnxruntime: ModuleType, provider: str) -> str:
    """Return why a provider for GPUs is out of the question here, or "" if it has to be tried."""
    if provider not in onnxruntime.get_available_providers():
        return f"the installed onnxruntime has no {provider}; pip install onnxruntime-gpu"
    return cuda_obstacle()


def _check_interface(session: Any, path: Path) -> None:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    gives_classes = any(value.name in ("masks", "logits") for value in outputs)
    if [value.type for value in inputs] not in (["tensor(uint8)"], ["tensor(uint16)"]) or not gives_classes:
        taken = ", ".join(f"{value.name} {value.type}" for value in inputs) or "nothing"
        given = ", ".join(f"{value.name} {value.type}" for value in outputs) or "nothing"
        raise ArtifactError(
            f"{path}: takes {taken} and gives {given}, not uint8 or uint16 images and masks;"
            " export it with `segkc-deploy export RUN --engine onnx`"
        )


@contextlib.contextmanager
def _captured_stderr() -> Iterator[list[str]]:
    """Keep what native code writes to stderr from the terminal; the list holds it after the block."""
    text: list[str] = []
    try:
        saved = os.dup(2)
    except OSError:  # a service without stderr: there is nothing to keep quiet
        yield text
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield text
        finally:
            os.dup2(saved, 2)
            os.close(saved)
        file.seek(0)
        text.append(file.read().decode(errors="replace"))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
