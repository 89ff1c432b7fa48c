"""What a data spec resolves to: lists of image paths, with the masks of those that have one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from segkc_deploy.labels import Labels


@dataclass(frozen=True)
class Sample:
    """An image and, where it is labeled, its mask.

    `id` is the image's path below its folder without the suffix, with forward slashes (`aachen/aachen_000000_000019`).
    """

    id: str
    image: Path
    mask: Path | None = None


@dataclass(frozen=True)
class ImageSets:
    """The three lists that training and evaluation work on, and what the mask values mean.

    `labeled` and `val` samples have masks, `unlabeled` ones need none; no image of `labeled` is in `unlabeled`.
    `label_mapping` maps values in the mask files to class ids (or to `labels.ignore_index`).
    """

    labels: Labels
    labeled: tuple[Sample, ...] = ()
    unlabeled: tuple[Sample, ...] = ()
    val: tuple[Sample, ...] = ()
    label_mapping: Mapping[int, int] = field(default_factory=dict)
