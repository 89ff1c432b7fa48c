"""Run an engine of TensorRT, or of TensorRT for RTX, on an NVIDIA GPU."""

import contextlib
import threading
from pathlib import Path
from typing import Any, Self

import numpy as np

from segkc_deploy.cuda_probe import find_gpu
from segkc_deploy.engine_match import check_match, check_plan, driver_remark, rebuild_command
from segkc_deploy.errors import ArtifactError, ConfigError, SegKCError
from segkc_deploy.manifest import Build, Manifest, companion_path, sha256_of
from segkc_deploy.runners.base import Runner, RunnerOptions
from segkc_deploy.runners.device_memory import DeviceMemory
from segkc_deploy.runners.trt_execution import Execution
from segkc_deploy.tensorrt_library import LIBRARIES, WEIGHTS, LogLines, collect_log


class TensorRTRunner(Runner):
    """Runs a TensorRT engine, whose file is executable code: read its manifest with `read_manifest` first.

    Args:
        path: the engine file.
        manifest: the engine's, already compared with the file's hash.
        device: `auto` or `cuda`, the first GPU that CUDA counts.
        cuda_graph: record each input shape's work as a CUDA graph when it is first run and launch that from then on.
            It saves the launching of each kernel, a good part of a small network's latency, and takes the memory of
            one execution context for each of the last eight shapes.

    Raises:
        ConfigError: the device is not a GPU, or CUDA graphs are asked of TensorRT for RTX.
    """

    @classmethod
    def for_artifact(cls, path: Path, manifest: Manifest, options: RunnerOptions) -> Self:
        return cls(path, manifest, options.device, options.cuda_graph)

    def __init__(self, path: str | Path, manifest: Manifest, device: str = "auto", cuda_graph: bool = False) -> None:
        if device not in ("auto", "cuda"):
            raise ConfigError(
                f"{path}: an engine of {LIBRARIES[manifest.engine].title} runs on an NVIDIA GPU, not on the device"
                f" {device!r}; use cuda, or export with --engine onnx"
            )
        if cuda_graph and manifest.engine == "trt-rtx":
            raise ConfigError(f"{path}: CUDA graphs are for the engine trt; run this one without")
        self._path = Path(path)
        self._manifest = manifest
        self._cuda_graph = cuda_graph
        self._library = LIBRARIES[manifest.engine]
        self._lock = threading.Lock()
        self._loaded = contextlib.ExitStack()
        self._execution: Execution | None = None
        self.description = f"{self._library.title}, not yet activated"

    def activate(self) -> None:
        """Compare the engine with this machine, load it, and take memory for its largest batch.

        Raises:
            ArtifactError: the file is damaged, or was built for another TensorRT or GPU.
            ConfigError: there is no NVIDIA driver or GPU.
            MissingDependencyError: TensorRT or cuda-core is not installed.
            SegKCError: there is not enough memory.
        """
        assert self._execution is None, "deactivate the runner first"
        # Without a driver TensorRT can crash the process, so it is not even imported before CUDA is known to work.
        gpu = find_gpu()
        check_plan(self._path, self._manifest)
        trt = self._library.load()
        check_match(self._path, self._manifest, gpu, trt.__version__)
        with contextlib.ExitStack() as stack:
            memory = DeviceMemory()
            stack.callback(memory.close)
            log = collect_log(trt)
            # Logger and runtime have to outlive the engine, and nobody else may hold them.
            alive = [log.logger, trt.Runtime(log.logger)]
            stack.callback(alive.clear)
            engine = self._deserialize(alive[1], log, driver_remark(self._build, gpu))
            if "STRIP_PLAN" in self._build.flags:
                self._refit(trt, engine, log)
            contract = self._manifest.contract
            execution = Execution(self._path, trt, engine, memory, contract, self._cuda_graph, log)
            stack.callback(execution.close)
            self._execution = execution
            self._loaded = stack.pop_all()
        graphs = " with CUDA graphs" if self._cuda_graph else ""
        self.description = f"{self._library.title} {trt.__version__} {gpu.name}{graphs}"

    def infer(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Run on `images`, uint8 (N, H, W, 3) RGB, and return the outputs by name.

        Raises:
            ArtifactError: the engine was not built for a batch of this shape.
            SegKCError: TensorRT or CUDA failed.
        """
        with self._lock:  # the buffers are shared by all calls
            assert self._execution is not None, "activate the runner first"
            outputs = self._execution.run(images)
            self.last_device_ms = self._execution.last_device_ms
            return outputs

    def time_device(self, on: bool) -> None:
        """See `Runner.time_device`.

        Raises:
            SegKCError: CUDA failed.
        """
        with self._lock:
            assert self._execution is not None, "activate the runner first"
            self._execution.time_device(on)
            self.last_device_ms = None

    def deactivate(self) -> None:
        """Free graphs and contexts, then the engine, then the memory they used."""
        with self._lock:
            self._execution = None
            self._loaded.close()

    @property
    def _build(self) -> Build:
        assert self._manifest.build is not None, "check_match refuses a manifest without it"
        return self._manifest.build

    def _deserialize(self, runtime: Any, log: LogLines, remark: str) -> Any:
        if "VERSION_COMPATIBLE" in self._build.flags:
            # The plan brings the host code of its own version; its hash has been compared with the manifest's.
            runtime.engine_host_code_allowed = True
        engine = runtime.deserialize_cuda_engine(self._path.read_bytes())
        if engine is None:
            raise ArtifactError(
                f"{self._path}: {self._library.title} cannot load it{remark}: {log.reason()}; copy it again, or"
                f" build it here with `{rebuild_command(self._manifest)}`"
            )
        return engine

    def _refit(self, trt: Any, engine: Any, log: LogLines) -> None:
        """Give a stripped engine its weights, from the ONNX file that it was built from."""
        onnx = companion_path(self._path, WEIGHTS)
        if not onnx.is_file():
            raise ArtifactError(
                f"{self._path}: its weights are in {onnx.name}, which is missing; copy it beside the engine"
            )
        if sha256_of(onnx) != self._build.onnx_sha256:
            raise ArtifactError(
                f"{onnx}: not the file that {self._path.name} was built from: its sha256 differs from the manifest's;"
                " copy both again or export again"
            )
        refitter = trt.Refitter(engine, log.logger)
        parser = trt.OnnxParserRefitter(refitter, log.logger)
        if not parser.refit_from_file(str(onnx)):
            errors = " ".join("; ".join(parser.get_error(i).desc() for i in range(parser.num_errors)).split())
            raise ArtifactError(f"{self._path}: {self._library.title} cannot take the weights of {onnx.name}: {errors}")
        if not refitter.refit_cuda_engine():
            raise SegKCError(f"{self._path}: {self._library.title} could not refit the engine: {log.reason()}")
