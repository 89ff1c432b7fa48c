"""Weights files made elsewhere: tensors are read, and nothing in the file is ever executed."""

import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from segkc_deploy.errors import DataError

#: The EMA weights of a checkpoint, or those that the optimizer updates.
Copy = Literal["ema", "raw"]

#: Where training codes put them; a file of weights alone has them at its top.
_ENTRIES: tuple[tuple[Copy, str], ...] = (
    ("ema", "state_dict_ema"),
    ("ema", "model_ema"),
    ("raw", "state_dict"),
    ("raw", "model"),
)

#: What torch.compile and DistributedDataParallel put before every name, in either order.
_WRAPPERS = ("_orig_mod.", "module.", "_orig_mod.")

#: What PyTorch raises for damaged files: its restricted unpickler trusts the structure of what it reads.
_DAMAGED = (
    UnpicklingError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    EOFError,
    OSError,
    struct.error,
    zipfile.BadZipFile,
)

_NUMPY_SCALAR: Callable[..., Any] = np.float64(0).__reduce__()[0]  # type: ignore[assignment]

#: Numbers of NumPy's, such as the best score, stand beside the weights in many checkpoints; they are data as well.
_NUMPY_NUMBERS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    *((_NUMPY_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.dtype,
    *(type(np.dtype(name)) for name in ("bool", "int64", "float32", "float64")),
]


@dataclass(frozen=True)
class ForeignWeights:
    """The tensors of a file by name, without wrappers' prefixes.

    `copy` is the one they are of, out of a training checkpoint; None where the file is weights alone.
    """

    tensors: dict[str, Tensor]
    copy: Copy | None


def read_weights(path: Path, copy: Copy | None = None) -> ForeignWeights:
    """Read a safetensors file or a PyTorch checkpoint, in either of PyTorch's formats.

    Args:
        path: the file.
        copy: the copy to take out of a training checkpoint; by default the EMA where there is one.

    Raises:
        DataError: the file is missing, damaged, no weights file, needs code to be run, or has no such copy.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such weights file")
    content = _safetensors(path) if _is_safetensors(path) else _unpickled(path)
    copies = {kind: content[entry] for kind, entry in reversed(_ENTRIES) if isinstance(content.get(entry), Mapping)}
    if copy is not None and copy not in copies:
        has = f"its {next(iter(copies))} copy alone" if copies else "weights alone, not a training checkpoint"
        raise DataError(f"{path}: no {copy} copy of the weights in it; it holds {has}")
    chosen = copy or next((kind for kind, _ in _ENTRIES if kind in copies), None)
    weights = copies[chosen] if chosen else content
    tensors = {_unwrapped(str(name)): value for name, value in weights.items() if isinstance(value, Tensor)}
    if not tensors:
        names = ", ".join(map(str, list(weights)[:4])) or "nothing"
        raise DataError(f"{path}: no weights in it; it holds {names}")
    return ForeignWeights(tensors, chosen)


def _is_safetensors(path: Path) -> bool:
    """Whether it is named so, or begins with the length of a JSON header."""
    with path.open("rb") as file:
        start = file.read(9)
    return path.suffix == ".safetensors" or (start[8:] == b"{" and int.from_bytes(start[:8], "little") < 2**32)


def _safetensors(path: Path) -> dict[str, Any]:
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        reason = f"damaged, or not a safetensors file ({error}); copy it again"
        raise DataError(f"{path}: {_not_weights(path, reason)}") from None


def _unpickled(path: Path) -> dict[str, Any]:
    try:
        # The unpickler warns of what it then fails at.
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(_NUMPY_NUMBERS):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except _DAMAGED as error:
        raise DataError(f"{path}: {_not_weights(path, _reason(error))}") from None
    if not isinstance(content, Mapping):
        raise DataError(f"{path}: no weights in it; it holds a {type(content).__name__}")
    return dict(content)


def _reason(error: Exception) -> str:
    code = re.search(r"(?i)unsupported (?:global: )?(?:global|class) ([\w.]+)", str(error))
    if code:
        return (
            f"refused: it holds more than tensors ({code[1]}), and reading that could run code;"
            " save the tensors alone, as safetensors"
        )
    return "damaged, or not weights that torch.save or safetensors wrote; copy it again"


def _not_weights(path: Path, otherwise: str) -> str:
    """Say what a file is that is not weights: what downloads often give instead."""
    with path.open("rb") as file:
        start = file.read(256).lstrip().lower()
    if not start:
        return "the file is empty"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, not weights; download the file itself"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not weights; fetch the file itself (git lfs pull)"
    return otherwise


def _unwrapped(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.removeprefix(wrapper)
    return name
