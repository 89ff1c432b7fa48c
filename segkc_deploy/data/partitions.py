"""The published lists of images: which ones train, which ones validate, and which ones count as labeled.

They are kept in `lists/LAYOUT/`: `train.txt.gz`, `val.txt.gz`, and `labeled/PARTITION.txt.gz` with `/` written as `_`.
"""

import gzip
from collections.abc import Mapping
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Literal

_SUFFIX = ".txt.gz"


@cache
def partitions(layout: str) -> Mapping[str, tuple[str, ...]]:
    """Return the ids of the labeled images in the published order, by partition (`366`, `blended-1/8`).

    The original protocol comes first, few labels first. Empty where no partition ships for the layout.
    """
    folder = _lists(layout) / "labeled"
    if not folder.is_dir():
        return {}
    found = {file.name.removesuffix(_SUFFIX).replace("_", "/"): _ids(file) for file in folder.iterdir()}
    return {name: found[name] for name in sorted(found, key=lambda name: ("-" in name, len(found[name])))}


@cache
def split_ids(layout: str, split: Literal["train", "val"]) -> tuple[str, ...] | None:
    """Return the ids of all training or validation images of the published protocol; None where no list ships."""
    file = _lists(layout) / f"{split}{_SUFFIX}"
    return _ids(file) if file.is_file() else None


def _lists(layout: str) -> Traversable:
    return resources.files("segkc_deploy.data") / "lists" / layout


def _ids(file: Traversable) -> tuple[str, ...]:
    return tuple(gzip.decompress(file.read_bytes()).decode("ascii").split())
