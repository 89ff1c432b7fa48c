"""The whole state of a training in one safetensors file: read it back and every later step is the same bit by bit.

The samplers need no state: a draw number follows from the step (`training.data.datasets`).
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.optim import Optimizer

from segkc_deploy.errors import RunDirectoryError
from segkc_deploy.training.files.tensor_file import write_tensors

_HEADER_KEY = "segkc_deploy_checkpoint"

#: What version 0.1 called the two groups of networks.
_OLD_PREFIXES = {"module.learners.": "module.online.", "module.averaged.": "module.ema."}


def save_checkpoint(
    path: Path, step: int, module: nn.Module, optimizer: Optimizer, extra: dict[str, Any] | None = None
) -> None:
    """Write the online and EMA weights, optimizer state and random number states, atomically.

    Args:
        path: the file.
        step: optimizer steps done.
        module: the method with all its networks.
        optimizer: its optimizer.
        extra: what else has to come back; anything that JSON holds.
    """
    tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    tensors |= _random_states()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = json.dumps({"step": step, "extra": extra or {}})
    write_tensors(path, tensors, {_HEADER_KEY: header})


def load_checkpoint(path: Path, module: nn.Module, optimizer: Optimizer) -> tuple[int, dict[str, Any]]:
    """Restore everything that `save_checkpoint` wrote, and return the steps done and `extra`.

    Raises:
        RunDirectoryError: the file is damaged, or belongs to other networks.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()[_HEADER_KEY])
            tensors = {_current_name(name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        module.load_state_dict(_below(tensors, "module."))
    except (SafetensorError, RuntimeError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RunDirectoryError(
            f"{path}: not a checkpoint of this run ({reason}); start anew with --overwrite"
        ) from None
    _restore_optimizer(optimizer, _below(tensors, "optimizer."))
    _restore_random_states(tensors)
    return int(header["step"]), dict(header["extra"])


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


def _random_states() -> dict[str, Tensor]:
    states = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"random.cuda.{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def _restore_random_states(tensors: dict[str, Tensor]) -> None:
    torch.set_rng_state(tensors["random.cpu"])
    cuda = _below(tensors, "random.cuda.")
    if torch.cuda.is_available() and len(cuda) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([cuda[str(index)] for index in range(len(cuda))])
