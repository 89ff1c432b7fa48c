"""Safetensors files that are written whole or not at all, and whose checksum is verified when they are read."""

import hashlib
import json
import os
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from segkc_deploy.atomic import atomic_path
from segkc_deploy.errors import RunDirectoryError
from segkc_deploy.validation import require_text

#: Where the checksum is in the file's header. Files of version 0.1 have none.
_CHECKSUM_KEY = "sha256"


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write contiguous CPU tensors, metadata and the checksum of both to `path`, atomically.

    Raises:
        OSError: the disk is full, or the folder cannot be written to; an older file is left as it was. The error names
            the file.
    """
    checksum = _checksum(tensors, metadata)
    try:
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata=metadata | {_CHECKSUM_KEY: checksum})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise RunDirectoryError(f"{path}: cannot be written ({error})") from None
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors by name and the metadata of a file.

    Raises:
        RunDirectoryError: the file is no safetensors file, or it is damaged.
        ConfigError: its path is not UTF-8.
    """
    require_text(path, "network")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: torch.as_tensor(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise RunDirectoryError(f"{path}: damaged or not a safetensors file ({error})") from None
    checksum = metadata.pop(_CHECKSUM_KEY, None)
    if checksum is not None and checksum != _checksum(tensors, metadata):
        raise RunDirectoryError(f"{path}: damaged: its content does not match its checksum")
    return tensors, metadata


def _checksum(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
