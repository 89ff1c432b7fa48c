"""The facts of `training.data_facts` as a checkpoint stores them.

The image lists are tensors: all else is in the file's header, which safetensors limits to 100 MB.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: Facts that grow with the data set, and where a checkpoint has each of them.
_LISTS = {"labeled": "data.labeled", "unlabeled": "data.unlabeled"}

#: No path holds it, so it ends every id, and an empty list differs from a list of one empty id.
_END = "\0"
#: A file name that is not UTF-8 has lone surrogates, which stay as they are.
_SURROGATES = "surrogatepass"


@dataclass(frozen=True)
class DataRecord:
    """Data facts in two parts.

    Attributes:
        header: the facts besides the image lists, as JSON values.
        tensors: the image lists by their names in the checkpoint, uint8 (bytes,).
    """

    header: dict[str, Any]
    tensors: dict[str, Tensor]


def record_of(facts: Mapping[str, Any]) -> DataRecord:
    """Return `data_facts` as they are stored."""
    header = {key: value for key, value in facts.items() if key not in _LISTS}
    return DataRecord(header, {name: _encode(facts[key]) for key, name in _LISTS.items()})


def facts_of(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the facts again.

    Args:
        header: that of the record; earlier versions had the image lists in it too.
        tensors: those of the whole checkpoint.
    """
    return dict(header) | {key: _decode(tensors[name]) for key, name in _LISTS.items() if name in tensors}


def _encode(ids: Sequence[str]) -> Tensor:
    text = "".join(image_id + _END for image_id in ids)
    # A bytearray, since torch warns of memory that cannot be written to.
    return torch.from_numpy(np.frombuffer(bytearray(text, "utf-8", _SURROGATES), np.uint8))


def _decode(encoded: Tensor) -> list[str]:
    return encoded.numpy().tobytes().decode("utf-8", _SURROGATES).split(_END)[:-1]
