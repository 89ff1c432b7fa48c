"""Run an OpenVINO artifact, `.xml` with its `.bin`, on the CPU."""

import queue
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np

from segkc_deploy.errors import ArtifactError, ConfigError, MissingDependencyError
from segkc_deploy.manifest import Manifest, companion_path
from segkc_deploy.runners.base import Runner, RunnerOptions
from segkc_deploy.runners.openvino_int8 import has_8_bit_constants, multiplies_8_bits_exactly

#: The ending of the file that holds the weights.
WEIGHTS = ".bin"

_DEVICE = "CPU"

#: OpenVINO's precision hint that keeps the types written in the graph.
GRAPH_PRECISION = "dynamic"
#: Where the manifest's `build.options` holds the hint; manifests of older versions have none.
HINT_OPTION = "inference_precision"

#: Layers that move or describe numbers and compute none.
_MOVES = frozenset(
    {"Broadcast", "Concatenation", "Const", "Gather", "Input", "Output", "Reorder", "Reshape", "ShapeOf", "Split"}
    | {"StridedSlice", "Tile", "Transpose"}
)
#: Layers whose operands are 8-bit numbers where the network is quantized; elsewhere these are pixels or classes.
_PRODUCTS = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul"})
_BYTES = frozenset({"i8", "u8"})
_FLOATS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "f64": "fp64"}


class OpenVINORunner(Runner):
    """Runs an OpenVINO model on the CPU, in a precision that does not depend on the CPU's features.

    Without a precision hint, OpenVINO runs an FP32 model in BF16 or FP16 on a CPU that is faster with it. The runner
    always sets the hint. Where the CPU lacks the precision, or its 8-bit products are not exact, OpenVINO computes in
    FP32.

    Args:
        path: the `.xml` file; the weights stand beside it.
        device: `auto` or `cpu`.
        threads: how many CPU threads one inference uses; OpenVINO's own choice if None.
        inference_precision: OpenVINO's hint, such as `f32`; `dynamic` keeps the types in the graph.
        outputs: names of the outputs to compute; all of them if None.
        streams, measured_streams: how many threads may be in `infer` at once; see `RunnerOptions.on_cpu`.

    Raises:
        ConfigError: there is no such device for OpenVINO artifacts, or `threads` is less than 1.
    """

    @classmethod
    def for_artifact(cls, path: Path, manifest: Manifest, options: RunnerOptions) -> Self:
        return cls(
            path,
            options.device,
            options.threads,
            precision_hint(manifest),
            options.outputs,
            options.streams,
            options.measured_streams,
        )

    def __init__(
        self,
        path: str | Path,
        device: str = "auto",
        threads: int | None = None,
        inference_precision: str = GRAPH_PRECISION,
        outputs: tuple[str, ...] | None = None,
        streams: int | None = 1,
        measured_streams: int | None = None,
    ) -> None:
        if device not in ("auto", "cpu"):
            raise ConfigError(
                f"device {device}: an OpenVINO artifact runs on the CPU; use auto or cpu, or export for another engine"
            )
        if threads is not None and threads < 1:
            raise ConfigError(f"threads is {threads}; use 1 or more")
        self._path = Path(path)
        options = RunnerOptions(threads=threads, streams=streams, measured_streams=measured_streams)
        self._threads, self.streams = options.on_cpu()
        self._inference_precision = inference_precision
        self._outputs = outputs
        self._requests: queue.SimpleQueue[Any] | None = None
        self.description = "openvino, not yet activated"

    def activate(self) -> None:
        """Load the files and compile the network for this CPU.

        Raises:
            ArtifactError: the files are damaged, or hold no network with this package's inputs and outputs.
            MissingDependencyError: openvino is not installed.
        """
        openvino = import_openvino()
        try:
            model = openvino.Core().read_model(self._path, companion_path(self._path, WEIGHTS))
            _check_interface(model, self._path)
            if self._outputs is not None:
                model = openvino.Model([model.output(name) for name in self._outputs], model.get_parameters())
            # Not by OpenVINO's own streams: with two of them, 2026.4.1 never ends an inference of a vision transformer.
            with ThreadPoolExecutor(self.streams) as pool:
                compiled = list(pool.map(lambda _: self._compiled(openvino, model), range(self.streams)))
        except RuntimeError as error:
            raise ArtifactError(
                f"{self._path}: openvino cannot load it: {one_line(error)}; copy it again or export again"
            ) from None
        self._requests = queue.SimpleQueue()
        for one in compiled:
            self._requests.put(one.create_infer_request())
        version = openvino.__version__.partition("-")[0]
        self.description = f"openvino {version} CPU {' + '.join(layer_precisions(compiled[0]))}"

    def _compiled(self, openvino: ModuleType, model: Any) -> Any:
        # Pinned, the threads of all of them would share the first cores.
        return compile_for_cpu(openvino, model, self._threads, self._inference_precision, pinned=self.streams == 1)

    def infer(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Run on `images`, uint8 (N, H, W, 3) RGB, and return the outputs by name.

        Raises:
            ArtifactError: OpenVINO could not run the network on this batch.
        """
        assert self._requests is not None, "activate the runner first"
        assert images.dtype == np.uint8, "openvino would convert it silently"
        request = self._requests.get()
        try:
            values = request.infer({0: images}, share_inputs=True)
        except RuntimeError as error:
            raise ArtifactError(
                f"{self._path}: openvino could not run it on a batch of shape {images.shape}: {one_line(error)}"
            ) from None
        finally:
            self._requests.put(request)
        return {output.any_name: value for output, value in values.items()}

    def deactivate(self) -> None:
        """Free the network."""
        self._requests = None


def import_openvino() -> ModuleType:
    """Return the openvino package.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import openvino
    except ModuleNotFoundError as error:
        if error.name != "openvino":
            raise
        raise MissingDependencyError('openvino is not installed; run: pip install "segkc-deploy[openvino]"') from None
    return openvino


def compile_for_cpu(
    openvino: ModuleType,
    model: Any,
    threads: int | None,
    inference_precision: str = GRAPH_PRECISION,
    pinned: bool = True,
) -> Any:
    """Compile `model` for low latency on this CPU; what is quantized computes in FP32 where 8 bits are not exact.

    Args:
        openvino: the package, from `import_openvino`.
        model: the model.
        threads: how many CPU threads one inference uses; OpenVINO's own choice if None.
        inference_precision: OpenVINO's hint, such as `f32`; `dynamic` keeps the types in the graph.
        pinned: whether OpenVINO may keep each thread on a core of its own.
    """
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        # The default mode, PERFORMANCE, lets OpenVINO choose BF16 on CPUs that have it.
        "EXECUTION_MODE_HINT": "ACCURACY",
        "INFERENCE_PRECISION_HINT": inference_precision,
    }
    if has_8_bit_constants(model) and not multiplies_8_bits_exactly(openvino):
        settings["LP_TRANSFORMS_MODE"] = False
    if not pinned:
        settings["ENABLE_CPU_PINNING"] = False
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    return openvino.Core().compile_model(model, _DEVICE, settings)


def precision_hint(manifest: Manifest) -> str:
    """Return the precision hint with which an artifact was built and verified."""
    build = manifest.build
    return str(build.options.get(HINT_OPTION, GRAPH_PRECISION)) if build else GRAPH_PRECISION


def layer_precisions(compiled: Any) -> dict[str, dict[str, int]]:
    """Count the layers that compute, as this CPU really runs them: precision to kind of layer to number.

    A layer has the precision of the numbers that it reads; kinds are OpenVINO's own names.
    """
    layers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for operation in compiled.get_runtime_model().get_ops():
        kind = operation.rt_info["layerType"].astype(str)
        type_name = operation.rt_info["runtimePrecision"].astype(str)
        if kind in _PRODUCTS and (read := operation.input(0).get_element_type().get_type_name()) in _FLOATS:
            type_name = read  # else it would be 8 bits where only the weights are stored in them
        if kind in _PRODUCTS and type_name in _BYTES:
            layers["int8"][kind] += 1
        elif kind not in _MOVES and type_name in _FLOATS:
            layers[_FLOATS[type_name]][kind] += 1
    return {precision: dict(sorted(counts.items())) for precision, counts in sorted(layers.items())}


def one_line(error: Exception) -> str:
    """Return what an error of OpenVINO's says, without the lines that say where in its source it arose."""
    lines = [" ".join(line.split()) for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(("Exception from ", "Check '"))]
    return "; ".join(told) or " ".join(lines)


def _check_interface(model: Any, path: Path) -> None:
    types = [value.element_type.get_type_name() for value in model.inputs]
    if types != ["u8"] or not model.outputs:
        taken = ", ".join(f"{value.any_name} {kind}" for value, kind in zip(model.inputs, types, strict=True))
        raise ArtifactError(
            f"{path}: takes {taken or 'nothing'}, not uint8 images; export it with"
            " `segkc-deploy export RUN --engine openvino`"
        )
