"""The table of engines, which the export, the runtime, `doctor`, the help and the documentation read.

Classes are named by their import path, so that reading the table imports none of them.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from segkc_deploy.errors import ConfigError


@dataclass(frozen=True)
class EngineEntry:
    """One engine.

    Attributes:
        name: as in `--engine` and in a manifest.
        suffix: the ending of the artifact's file.
        precisions: what `--precision` may be.
        extra: the extra of this package that exporting needs besides `export`, or nothing.
        packages: the Python packages that run the artifact, of which one is installed; the usual one first.
        builder: import path of the `export.engines.base.Engine`.
        runner: import path of the `runners.base.Runner`.
        files: the files of an artifact, for the documentation.
        built_on: the machines that can build it.
        runs_on: what runs it.
        page: the page in `docs/` about it, or nothing.
        aliases: other names for `--engine`.
        cuda_graphs: whether the runner records CUDA graphs.
        streams: whether the runner runs several batches at once on a CPU.
    """

    name: str
    suffix: str
    precisions: tuple[str, ...]
    extra: str
    packages: tuple[str, ...]
    builder: str
    runner: str
    files: str
    built_on: str
    runs_on: str
    page: str = ""
    aliases: tuple[str, ...] = ()
    cuda_graphs: bool = False
    streams: bool = False


_ENTRIES = (
    EngineEntry(
        name="onnx",
        suffix=".onnx",
        # Not fp8: ONNX Runtime's fusions make invalid graphs of it or lose a Relu (1.31).
        # Not bf16: its CPU provider has no kernels for it, and its CUDA provider none for Resize.
        precisions=("fp32", "fp16", "int8"),
        extra="",
        packages=("onnxruntime-gpu", "onnxruntime"),
        builder="segkc_deploy.export.engines.onnx_engine.OnnxEngine",
        runner="segkc_deploy.runners.onnx_runner.OnnxRuntimeRunner",
        files="`.onnx`",
        built_on="any machine",
        runs_on="ONNX Runtime on a CPU or with CUDA, and whatever else reads ONNX",
        aliases=("onnxruntime",),
        streams=True,
    ),
    EngineEntry(
        name="trt",
        suffix=".engine",
        precisions=("fp32", "fp16", "bf16", "int8", "fp8", "int8-fp16", "fp8-fp16"),
        extra="trt",
        # The plain name also on Jetson boards.
        packages=("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu13-bindings", "tensorrt-cu12-bindings"),
        builder="segkc_deploy.export.engines.trt_engine.TensorRTEngine",
        runner="segkc_deploy.runners.trt_runner.TensorRTRunner",
        files="`.engine`, a plain plan",
        built_on="the GPU it is for",
        runs_on="TensorRT 10.13 to 11.x, trtexec, Triton",
        page="tensorrt.md",
        aliases=("tensorrt", "engine"),
        cuda_graphs=True,
    ),
    EngineEntry(
        name="trt-rtx",
        suffix=".rtx",
        precisions=("fp32", "fp16", "bf16", "int8", "fp8", "int8-fp16", "fp8-fp16"),
        extra="trt-rtx",
        packages=("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu12-bindings"),
        builder="segkc_deploy.export.engines.trt_rtx_engine.TensorRTRTXEngine",
        runner="segkc_deploy.runners.trt_runner.TensorRTRunner",
        files="`.rtx`",
        built_on="any x86-64 Linux machine",
        runs_on="TensorRT for RTX",
        page="tensorrt.md",
        aliases=("tensorrt-rtx",),
    ),
    EngineEntry(
        name="openvino",
        suffix=".xml",
        precisions=("fp32", "fp16", "bf16", "int8", "int8-bf16"),
        extra="openvino",
        packages=("openvino",),
        builder="segkc_deploy.export.engines.openvino_engine.OpenVINOEngine",
        runner="segkc_deploy.runners.openvino_runner.OpenVINORunner",
        files="`.xml` and `.bin`",
        built_on="any machine",
        runs_on="CPUs",
        page="openvino.md",
        streams=True,
    ),
    EngineEntry(
        name="aoti",
        suffix=".pt2",
        precisions=("fp32",),
        extra="train",
        packages=("torch",),
        builder="segkc_deploy.export.engines.aoti_engine.AOTIEngine",
        runner="segkc_deploy.runners.aoti_runner.AOTIRunner",
        files="`.pt2`",
        built_on="the kind of machine it is for",
        runs_on="PyTorch",
        page="aoti.md",
    ),
)

#: The engines by name.
ENGINES: Mapping[str, EngineEntry] = {entry.name: entry for entry in _ENTRIES}


def find_entry(name: str) -> EngineEntry:
    """Return the engine that `--engine name` means.

    Raises:
        ConfigError: there is none; the message lists those that there are.
    """
    aliases = {alias: entry.name for entry in _ENTRIES for alias in entry.aliases}
    found = ENGINES.get(aliases.get(name, name))
    if found is None:
        close = difflib.get_close_matches(name, [*ENGINES, *aliases], n=1)
        hint = f"did you mean {close[0]}?" if close else f"use one of {', '.join(ENGINES)}"
        raise ConfigError(f"--engine {name}: there is no such engine; {hint}")
    return found


def number_formats(precision: str) -> tuple[str, ...]:
    """Return the formats of a precision, that of the products first: of `int8-fp16` `int8` and `fp16`."""
    return tuple(precision.split("-"))


def import_class(path: str) -> Any:
    """Return the class at an import path, such as `package.module.Class`."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)
