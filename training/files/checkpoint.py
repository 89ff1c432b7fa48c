"""The whole state of a training in one safetensors file: a training that is resumed from it continues bit for bit.

The samplers need no state: a draw number follows from the step (`training.data.datasets`).
"""

import json
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from segkc_deploy.errors import RunDirectoryError
from segkc_deploy.training.files.run_directory import RunDirectory
from segkc_deploy.training.files.tensor_file import read_tensors, write_tensors

_HEADER_KEY = "segkc_deploy_checkpoint"
_RANDOM_CUDA = "random.cuda.0"

#: What version 0.1 called the two groups of networks.
_OLD_PREFIXES = {"module.learners.": "module.online.", "module.averaged.": "module.ema."}


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` optimizer steps.

    Attributes:
        step: optimizer steps taken.
        tensors: weights (online and EMA), optimizer state, random number states and what is constant, on the CPU.
        extra: whatever else has to come back; anything that JSON holds. It goes into the file's header, which
            safetensors limits to 100 MB, so what grows with the data set has to be a tensor.
    """

    step: int
    tensors: dict[str, Tensor]
    extra: dict[str, Any]


def take_checkpoint(
    step: int,
    module: nn.Module,
    optimizer: Optimizer,
    extra: dict[str, Any],
    constant: Mapping[str, Tensor] | None = None,
) -> Checkpoint:
    """Copy the state of a training to the CPU.

    Args:
        step: optimizer steps taken.
        module: the networks.
        optimizer: what trains them.
        extra: see `Checkpoint`.
        constant: tensors on the CPU that never change, which are stored as they are, without a copy.
    """
    tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    copies = {name: _copy_to_cpu(tensor) for name, tensor in (tensors | _random_states()).items()}
    return Checkpoint(step, copies | dict(constant or {}), extra)


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to `path`, atomically.

    Raises:
        OSError: the disk is full, or the folder cannot be written to; the error names the file.
    """
    header = json.dumps({"step": checkpoint.step, "extra": checkpoint.extra})
    write_tensors(path, checkpoint.tensors, {_HEADER_KEY: header})


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and verify its checksum.

    Raises:
        RunDirectoryError: the file is damaged or no checkpoint.
    """
    tensors, metadata = read_tensors(path)
    if _HEADER_KEY not in metadata:
        raise RunDirectoryError(f"{path}: not a checkpoint")
    header = json.loads(metadata[_HEADER_KEY])
    renamed = {_current_name(name): tensor for name, tensor in tensors.items()}
    return Checkpoint(int(header["step"]), renamed, dict(header["extra"]))


def read_newest_checkpoint(run: RunDirectory) -> tuple[Checkpoint, str]:
    """Return the newest undamaged checkpoint of a run, and a remark about damaged ones (empty if there is none).

    Raises:
        RunDirectoryError: the run has no checkpoint, or every one is damaged.
    """
    reasons: list[str] = []
    for path in run.existing_checkpoints():
        try:
            checkpoint = read_checkpoint(path)
        except RunDirectoryError as error:
            reasons.append(str(error))
            continue
        remark = f"{'; '.join(reasons)}; resuming from {path} (step {checkpoint.step}) instead" if reasons else ""
        return checkpoint, remark
    reasons = reasons or [f"{run.path}: no checkpoint to resume from"]
    raise RunDirectoryError(f"{'; '.join(reasons)}; start anew with --overwrite")


def restore_checkpoint(checkpoint: Checkpoint, module: nn.Module, optimizer: Optimizer) -> None:
    """Restore weights, optimizer and random number states.

    Raises:
        RunDirectoryError: the checkpoint belongs to other networks.
    """
    try:
        module.load_state_dict(_below(checkpoint.tensors, "module."))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise RunDirectoryError(f"the checkpoint is not of this run ({reason}); start anew with --overwrite") from None
    _restore_optimizer(optimizer, _below(checkpoint.tensors, "optimizer."))
    _restore_random_states(checkpoint.tensors)


class CheckpointWriter:
    """Writes the checkpoints of a run in the background and keeps the last two.

    Attributes:
        step: the step of the newest checkpoint in the run directory, 0 if there is none.
    """

    def __init__(self, run: RunDirectory, step: int = 0) -> None:
        self.run, self.step = run, step
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint in the background, once the one before it is written.

        Raises:
            OSError: the one before it could not be written.
        """
        self.wait()
        self._pending = self._executor.submit(self._write, checkpoint)

    def wait(self) -> None:
        """Wait until everything is written.

        Raises:
            OSError: the checkpoint could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Wait until everything is written, and end the thread."""
        try:
            self.wait()
        finally:
            self._executor.shutdown()

    def _write(self, checkpoint: Checkpoint) -> None:
        last = self.run.checkpoint
        if last.is_file() and self.step != checkpoint.step:
            # Between the two renames there is no `last`: a run that is killed here resumes from `previous`.
            last.replace(self.run.previous_checkpoint)
        write_checkpoint(last, checkpoint)
        self.step = checkpoint.step


def _current_name(name: str) -> str:
    for old, new in _OLD_PREFIXES.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _restore_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        parameter = parameters[int(index)]
        if tensor.shape == parameter.shape and tensor.ndim:
            # The same memory layout as in the interrupted run, so that the same kernels run.
            tensor = torch.empty_like(parameter, requires_grad=False).copy_(tensor)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _copy_to_cpu(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return torch.empty_like(tensor, device="cpu", memory_format=torch.contiguous_format).copy_(tensor)


def _random_states() -> dict[str, Tensor]:
    states = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        # Of the device that trains; how many others the machine shows may differ when the run is resumed.
        states[_RANDOM_CUDA] = torch.cuda.get_rng_state()
    return states


def _restore_random_states(tensors: dict[str, Tensor]) -> None:
    torch.set_rng_state(tensors["random.cpu"])
    if torch.cuda.is_available() and _RANDOM_CUDA in tensors:
        torch.cuda.set_rng_state(tensors[_RANDOM_CUDA])
