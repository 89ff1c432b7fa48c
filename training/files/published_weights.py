"""Published checkpoints as networks of ours: one function for each format, `FORMATS` by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from segkc_deploy.errors import DataError
from segkc_deploy.training.files.foreign_weights import Copy, read_weights
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.models.spec import NetworkSpec

_MOST_NAMES_SHOWN = 3

#: UniMatch V2's networks by the width of their tokens.
_DINOV2_OF_WIDTH = {384: "vit_small_patch14_dinov2", 768: "vit_base_patch14_dinov2", 1024: "vit_large_patch14_dinov2"}


@dataclass(frozen=True)
class PublishedNetwork:
    """What a checkpoint holds: how to build the network, its weights under our names, and which copy they are."""

    spec: NetworkSpec
    num_classes: int
    weights: dict[str, Tensor]
    copy: Copy | None


def unimatch_v2(path: Path, copy: Copy | None) -> PublishedNetwork:
    """Read a checkpoint of UniMatch V2 (arXiv 2410.10777): DINOv2-S, -B or -L with a DPT decoder.

    Raises:
        DataError: it is no such checkpoint, or weights are missing, too many, of another shape or not finite.
    """
    found = read_weights(path, copy)
    tensors = {name: tensor for name, tensor in found.tensors.items() if name != "backbone.mask_token"}
    token, last = tensors.get("backbone.cls_token"), tensors.get("head.scratch.output_conv.2.weight")
    if token is None or last is None:
        lacks = "backbone.cls_token" if token is None else "head.scratch.output_conv.2.weight"
        hint = " (a backbone alone goes under `pretrained` in a recipe)" if "cls_token" in tensors else ""
        raise DataError(
            f"{path}: not a checkpoint of UniMatch V2: it has no {lacks}; its names are such as"
            f" {', '.join(list(tensors)[:_MOST_NAMES_SHOWN])}{hint}"
        )
    width, num_classes = token.shape[-1], len(last)
    if width not in _DINOV2_OF_WIDTH:
        known = ", ".join(map(str, _DINOV2_OF_WIDTH))
        raise DataError(f"{path}: tokens of width {width}; DINOv2-S, -B and -L have {known}")
    spec = NetworkSpec(backbone=_DINOV2_OF_WIDTH[width], decoder="dpt", positions="dinov2")
    with torch.device("meta"):
        own = Segmenter(spec, num_classes).state_dict()
    own_names = {_unimatch_v2_name(name): name for name in own}
    _check_all_fit(path, tensors, {theirs: own[ours].shape for theirs, ours in own_names.items()})
    return PublishedNetwork(
        spec, num_classes, {own_names[name]: tensor for name, tensor in tensors.items()}, found.copy
    )


FORMATS: Mapping[str, Callable[[Path, Copy | None], PublishedNetwork]] = {"unimatch-v2": unimatch_v2}


def _unimatch_v2_name(name: str) -> str:
    """The name in UniMatch V2 of one of our weights."""
    if name.startswith("backbone.network."):
        return name.replace("backbone.network.", "backbone.", 1)
    return name.replace("decoder.", "head.", 1)


def _check_all_fit(path: Path, tensors: Mapping[str, Tensor], wanted: Mapping[str, torch.Size]) -> None:
    """Raise DataError, in one line that names the first ones, unless `tensors` are exactly those wanted and finite."""
    both = tensors.keys() & wanted.keys()
    misshapen = [
        f"{name} is {_sides(tensors[name].shape)} instead of {_sides(wanted[name])}"
        for name in sorted(both)
        if tensors[name].shape != wanted[name]
    ]
    mistakes = {
        "missing": sorted(wanted.keys() - both),
        "surplus": sorted(tensors.keys() - both),
        "of another shape": misshapen,
        "not finite": [name for name in sorted(both) if not bool(torch.isfinite(tensors[name]).all())],
    }
    told = [
        f"{len(names)} {kind} ({', '.join(names[:_MOST_NAMES_SHOWN])}{', …' if len(names) > _MOST_NAMES_SHOWN else ''})"
        for kind, names in mistakes.items()
        if names
    ]
    if told:
        raise DataError(f"{path}: its weights do not fit the network: {'; '.join(told)}")


def _sides(shape: torch.Size) -> str:
    return "x".join(map(str, shape)) or "one number"
