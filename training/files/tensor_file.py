"""Writing safetensors files whole or not at all."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from segkc_deploy.atomic import atomic_path
from segkc_deploy.errors import RunDirectoryError


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write contiguous CPU tensors and the file's own metadata to `path`, atomically.

    Raises:
        RunDirectoryError: the disk is full, or the folder cannot be written to; an older file is left as it was.
    """
    try:
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)
    except SafetensorError as error:
        raise RunDirectoryError(f"{path}: cannot be written ({error}); is the disk full?") from None
