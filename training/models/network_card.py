"""Reading a network's weights file, and what it says of itself; `training.network_file` makes networks of it."""

import json
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from segkc_deploy.errors import RunDirectoryError
from segkc_deploy.labels import Labels
from segkc_deploy.training.models.spec import NetworkSpec

#: Where the card is in the header of the file.
HEADER_KEY = "segkc_deploy"


class NetworkCard(BaseModel):
    """What a weights file says of itself.

    `input_size` is the (height, width) at which the network was validated and is exported by default; `scores` are
    mIoU in percent on the validation set at `step`, by network (`junior`, `junior_ema`, …). Of a network that came
    from elsewhere, `method` is `imported` and `step` 0.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: str = "segkc-deploy-network/1"
    role: str
    network: NetworkSpec
    labels: Labels
    input_size: tuple[int, int]
    recipe: str
    method: str
    step: int
    averaged: bool
    scores: dict[str, float]


def read_card(path: Path) -> NetworkCard:
    """Read the card alone.

    Raises:
        RunDirectoryError: there is no such file, or it is not a network of this package.
    """
    return _read(path, with_tensors=False)[0]


def read_network(path: Path) -> tuple[NetworkCard, dict[str, Tensor]]:
    """Read the card and the weights by name.

    Raises:
        RunDirectoryError: there is no such file, it is damaged, or it is not a network of this package.
    """
    return _read(path, with_tensors=True)


def has_card(path: Path) -> bool:
    """Whether `path` is a readable network file of this package, rather than weights from elsewhere."""
    try:
        with safe_open(path, framework="pt") as file:
            return HEADER_KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def _read(path: Path, with_tensors: bool) -> tuple[NetworkCard, dict[str, Tensor]]:
    if not path.is_file() and (path.parent / "config.yaml").is_file():
        raise RunDirectoryError(
            f"{path}: the run has no {path.stem} (yet): networks are written at each validation, and only methods"
            " with two networks have a senior"
        )
    if not path.is_file():
        raise RunDirectoryError(f"{path}: no such file; is its folder a run made by `segkc-deploy train`?")
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(HEADER_KEY)
            if with_tensors:
                tensors = {name: torch.as_tensor(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise RunDirectoryError(f"{path}: damaged or not a safetensors file ({error}); copy it again") from None
    if header is None:
        raise RunDirectoryError(f"{path}: weights without a description of their network; not made by this package")
    try:
        return NetworkCard.model_validate(json.loads(header)), tensors
    except (ValidationError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise RunDirectoryError(f"{path}: its description cannot be read by this version ({reason})") from None
