"""Artifact → Triton model repository: a folder that NVIDIA's Triton Inference Server serves as it is."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from segkc_deploy import atomic
from segkc_deploy.errors import ConfigError
from segkc_deploy.manifest import Contract, Manifest, TensorContract, write_manifest
from segkc_deploy.model_config import client_parameters


@dataclass(frozen=True)
class _Backend:
    """How Triton calls an engine's files, and what it runs them on."""

    platform: str
    filename: str
    kind: str


_BACKENDS = {
    # On a GPU where there is one.
    "onnx": _Backend("onnxruntime_onnx", "model.onnx", "KIND_AUTO"),
    "trt": _Backend("tensorrt_plan", "model.plan", "KIND_GPU"),
}

_USUAL_BATCH = 8
_TYPES = {"uint8": "TYPE_UINT8", "uint16": "TYPE_UINT16", "float32": "TYPE_FP32"}


def check_model_repository(engine: str, model: str, folder: Path, overwrite: bool = False) -> None:
    """Refuse what `write_model_repository` would refuse, before there is an artifact.

    Raises:
        ConfigError: Triton has no backend for the engine, or the folder already holds the model.
    """
    if engine not in _BACKENDS:
        raise ConfigError(
            f"engine {engine}: no Triton model repository for it; use --engine {' or '.join(_BACKENDS)} with --triton"
        )
    if (folder / model).exists() and not overwrite:
        raise ConfigError(f"{folder / model}: already exists; remove it or choose another folder for --triton")


def write_model_repository(
    artifact: Path,
    manifest: Manifest,
    folder: Path,
    instances: int = 1,
    max_batch: int | None = None,
    queue_delay_us: int = 1000,
    preferred_batches: Sequence[int] = (),
    overwrite: bool = False,
) -> Path:
    """Write an artifact as version 1 of a Triton model that has the artifact's name, whole or not at all.

    The model's folder holds `config.pbtxt` and `1/` with the artifact and its manifest. The class names, their colors
    and the artifact's sha256 are in the configuration's `parameters`, where clients can read them. They are not a
    `label_filename`: Triton would look a pixel's place up in it, not its value.

    Args:
        artifact: an ONNX file or a TensorRT plan.
        manifest: its manifest.
        folder: the model repository; other models in it are left alone.
        instances: copies of the model that run at the same time, on every GPU or on the CPU.
        max_batch: images that Triton joins into one batch, at most; never more than the artifact takes. By default as
            many as that, or 8 where it takes any number. An artifact with a fixed batch is served without batching.
        queue_delay_us: how long (microseconds) a request may wait for others to share its batch.
        preferred_batches: batch sizes that are sent at once when they are reached. Triton advises to leave them out
            unless they are measured to be faster than others.
        overwrite: replace a model of the same name.

    Returns:
        the model's folder, `<folder>/<artifact's name without suffix>`.

    Raises:
        ConfigError: Triton has no backend for the engine, the model exists, or a number cannot be used.
    """
    check_model_repository(manifest.engine, artifact.stem, folder, overwrite)
    if instances < 1 or (max_batch is not None and max_batch < 1) or queue_delay_us < 0:
        raise ConfigError(f"instances {instances}, batch {max_batch}, delay {queue_delay_us} us: use 1, 1, 0 or more")
    backend, target = _BACKENDS[manifest.engine], folder / artifact.stem
    batch = _batch(manifest.contract, max_batch)
    if any(not 0 < size <= batch for size in preferred_batches):
        raise ConfigError(f"preferred batches {list(preferred_batches)}: use sizes from 1 to {batch}")
    config = [
        f"name: {_quoted(artifact.stem)}",
        f"platform: {_quoted(backend.platform)}",
        f"max_batch_size: {batch}",
        *_tensors(artifact, manifest),
        f"instance_group [ {{ count: {instances} kind: {backend.kind} }} ]",
        *_batching(batch, queue_delay_us, preferred_batches),
        *_warm_up(manifest.contract, batch),
        *(
            f"parameters {{ key: {_quoted(key)} value: {{ string_value: {_quoted(value)} }} }}"
            for key, value in client_parameters(manifest).items()
        ),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as temporary:
        model = Path(temporary) / target.name
        atomic.write_text(model / "config.pbtxt", "\n".join(config) + "\n")
        with atomic.atomic_path(model / "1" / backend.filename) as copy:
            shutil.copyfile(artifact, copy)
        write_manifest(model / "1" / backend.filename, manifest)
        if target.exists():
            target.rename(Path(temporary) / "replaced")
        model.rename(target)
    return target


def _batch(contract: Contract, max_batch: int | None) -> int:
    """Return Triton's `max_batch_size`: 0 where the model has no free batch dimension."""
    if contract.batch > 0:
        return 0
    usual = contract.max_batch or _USUAL_BATCH
    return usual if max_batch is None else min(max_batch, contract.max_batch or max_batch)


def _tensors(artifact: Path, manifest: Manifest) -> list[str]:
    contract = manifest.contract
    height, width = _free_or_fixed(contract)
    batch = [contract.batch] if contract.batch > 0 else []
    shapes = {"NHWC": [*batch, height, width, contract.bands], "NHW": [*batch, height, width]}
    lines = ["input [", f"  {_tensor(contract.input, shapes[contract.input.layout])}", "]", "output ["]
    outputs = [
        _tensor(output, _logits_shape(artifact, manifest) if output.name == "logits" else shapes[output.layout])
        for output in contract.outputs
    ]
    return [*lines, *(f"  {output}{',' if output is not outputs[-1] else ''}" for output in outputs), "]"]


def _tensor(tensor: TensorContract, shape: Sequence[int]) -> str:
    return f"{{ name: {_quoted(tensor.name)} data_type: {_TYPES[tensor.dtype]} dims: {list(shape)} }}"


def _free_or_fixed(contract: Contract) -> tuple[int, int]:
    return contract.size if contract.size_multiple is None else (-1, -1)


def _logits_shape(artifact: Path, manifest: Manifest) -> list[int]:
    """Return the shape of `logits`: ONNX Runtime's backend wants the graph's own, TensorRT's takes -1 for any."""
    contract = manifest.contract
    if manifest.engine == "onnx":
        (logits,) = (value for value in onnx.load(artifact).graph.output if value.name == "logits")
        low = [dim.dim_value or -1 for dim in logits.type.tensor_type.shape.dim[1:3]]
    else:
        low = [-1, -1]
    batch = [contract.batch] if contract.batch > 0 else []
    return [*batch, *low, manifest.labels.num_classes]


def _batching(batch: int, queue_delay_us: int, preferred: Sequence[int]) -> list[str]:
    if batch == 0:
        return []
    sizes = f"  preferred_batch_size: {list(preferred)}\n" if preferred else ""
    return [f"dynamic_batching {{\n{sizes}  max_queue_delay_microseconds: {queue_delay_us}\n}}"]


def _warm_up(contract: Contract, batch: int) -> list[str]:
    """Black images of the usual size, alone and as a full batch, before the model is called ready."""
    fixed = [contract.batch] if contract.batch > 0 else []
    shape = [*fixed, *contract.size, contract.bands]
    kind = _TYPES[contract.input.dtype]
    image = f"key: {_quoted(contract.input.name)} value: {{ data_type: {kind} dims: {shape} zero_data: true }}"
    return [
        f'model_warmup {{ name: "batch {size}" batch_size: {size} inputs {{ {image} }} }}'
        for size in sorted({1, batch or 1})
    ]


def _quoted(text: str) -> str:
    """Return `text` as a string of protobuf's text format, whose escapes are JSON's."""
    return json.dumps(text, ensure_ascii=False)
