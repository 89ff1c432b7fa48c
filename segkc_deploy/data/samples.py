"""What a data spec resolves to: lists of image paths, with the masks of those that have one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from segkc_deploy.labels import Color, Labels
from segkc_deploy.pixel_format import RGB, PixelFormat


@dataclass(frozen=True)
class Sample:
    """An image and, where it is labeled, its mask.

    `id` is the image's path below its folder without the suffix, with forward slashes (`aachen/aachen_000000_000019`).
    """

    id: str
    image: Path
    mask: Path | None = None


@dataclass(frozen=True)
class MaskCoding:
    """What the values and colors in mask files mean.

    `label_mapping` maps values in the files to class ids (or to `labels.ignore_index`). `colors` maps RGB colors to
    class ids; RGB masks cannot be read without it. Palette masks are read by their colors where `by_color` is set, and
    by their indices otherwise. `name_mapping` maps labels of annotation files that are no class names to class ids;
    `object_names` are the labels of YOLO's class numbers.
    """

    labels: Labels
    label_mapping: Mapping[int, int] = field(default_factory=dict)
    colors: Mapping[Color, int] = field(default_factory=dict)
    by_color: bool = False
    name_mapping: Mapping[str, int] = field(default_factory=dict)
    object_names: tuple[str, ...] = ()

    @property
    def class_ids(self) -> dict[str, int]:
        """The class id of each label that annotation files may hold, labelme's own names among them."""
        ids = {name: class_id for class_id, name in enumerate(self.labels.names)}
        labelme = {"__ignore__": self.labels.ignore_index, "_background_": self.background}
        return labelme | ids | dict(self.name_mapping)

    @property
    def background(self) -> int:
        """The value of pixels that no shape covers: the class `background`, or `ignore_index` without one."""
        names = [name.lower().strip("_") for name in self.labels.names]
        return names.index("background") if "background" in names else self.labels.ignore_index


@dataclass(frozen=True)
class ImageSets:
    """The three lists that training and evaluation work on, what the masks mean, and what the images' pixels are.

    `labeled` and `val` samples have masks, `unlabeled` ones need none; no image of `labeled` is in `unlabeled`.
    """

    coding: MaskCoding
    labeled: tuple[Sample, ...] = ()
    unlabeled: tuple[Sample, ...] = ()
    val: tuple[Sample, ...] = ()
    pixels: PixelFormat = RGB

    @property
    def labels(self) -> Labels:
        """The classes and the ignored value."""
        return self.coding.labels
