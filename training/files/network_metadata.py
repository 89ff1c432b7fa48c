"""Read a network file: the metadata in its header and the weights. `training.files.network_file` builds the network."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from torch import Tensor

from segkc_deploy.errors import RunDirectoryError
from segkc_deploy.labels import Labels
from segkc_deploy.training.files.tensor_file import read_tensors
from segkc_deploy.training.models.spec import NetworkSpec

#: Where the metadata is in the file's header.
HEADER_KEY = "segkc_deploy"


class NetworkMetadata(BaseModel):
    """The description of a network, stored in the header of its file.

    `input_size` is the (height, width) at which the network was validated and is exported by default; `scores` are
    mIoU in percent on the validation set at `step`, by network (`junior`, `junior_ema`, …). `ema` says
    whether the weights are the EMA. An imported network has the `method` `imported` and `step` 0.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: str = "segkc-deploy-network/2"
    role: str
    network: NetworkSpec
    labels: Labels
    input_size: tuple[int, int]
    recipe: str
    method: str
    step: int
    ema: bool
    scores: dict[str, float]

    @model_validator(mode="before")
    @classmethod
    def _read_format_1(cls, data: Any) -> Any:
        """Read a header of format 1, where `ema` was called `averaged`."""
        if isinstance(data, dict) and "averaged" in data:
            data = {"ema" if key == "averaged" else key: value for key, value in data.items()}
        return data


def read_metadata(path: Path) -> NetworkMetadata:
    """Read the metadata without the weights.

    Raises:
        RunDirectoryError: there is no such file, or it is not a network of this package.
    """
    return _read(path, with_tensors=False)[0]


def read_network(path: Path) -> tuple[NetworkMetadata, dict[str, Tensor]]:
    """Read the metadata and the weights by name.

    Raises:
        RunDirectoryError: there is no such file, it is damaged, or it is not a network of this package.
    """
    return _read(path, with_tensors=True)


def has_metadata(path: Path) -> bool:
    """Whether `path` is a readable network file of this package, rather than weights from elsewhere."""
    try:
        with safe_open(path, framework="pt") as file:
            return HEADER_KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def _read(path: Path, with_tensors: bool) -> tuple[NetworkMetadata, dict[str, Tensor]]:
    if not path.is_file() and (path.parent / "config.yaml").is_file():
        raise RunDirectoryError(
            f"{path}: the run has no {path.stem} (yet): networks are written at each validation, and only methods"
            " with two networks have a senior"
        )
    if not path.is_file():
        raise RunDirectoryError(f"{path}: no such file; is its folder a run made by `segkc-deploy train`?")
    tensors: dict[str, Tensor] = {}
    try:
        if with_tensors:
            tensors, header = read_tensors(path)
        else:
            with safe_open(path, framework="pt") as file:
                header = dict(file.metadata() or {})
    except (RunDirectoryError, SafetensorError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise RunDirectoryError(f"{path}: {reason}; copy it again, or resume the run to write it anew") from None
    if HEADER_KEY not in header:
        raise RunDirectoryError(f"{path}: weights without a description of their network; not made by this package")
    try:
        return NetworkMetadata.model_validate(json.loads(header[HEADER_KEY])), tensors
    except (ValidationError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise RunDirectoryError(f"{path}: its description cannot be read by this version ({reason})") from None
