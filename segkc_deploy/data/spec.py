"""The data spec: a YAML file that says where the images and masks are and what the masks' values mean."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from segkc_deploy.data import roboflow
from segkc_deploy.data.annotations.pairing import require_own_annotations
from segkc_deploy.data.annotations.yolo_names import object_names
from segkc_deploy.data.foreign_spec import foreign_spec
from segkc_deploy.data.labelmap import NAME as LABELMAP
from segkc_deploy.data.labelmap import class_colors, read_labelmap
from segkc_deploy.data.layouts import IGNORED, LAYOUTS, MaskName
from segkc_deploy.data.partitions import partitions
from segkc_deploy.data.pools import without
from segkc_deploy.data.resolve import (
    LabeledImages,
    Places,
    Published,
    choose_mask_name,
    expanded,
    unlabeled_images,
)
from segkc_deploy.data.samples import ImageSets, MaskCoding, Sample
from segkc_deploy.data.sections import LabeledSection, UnlabeledSection, ValSection
from segkc_deploy.errors import ConfigError
from segkc_deploy.invocation import suggested_command
from segkc_deploy.labels import MAX_CLASSES, Color, Labels, default_palette
from segkc_deploy.pixel_format import MAX_BANDS, PixelFormat
from segkc_deploy.validation import load_yaml, validate, yaml_in_one_line

_Channel = Annotated[int, Field(ge=0, le=255)]
_Names = list[str]
_Color = tuple[_Channel, _Channel, _Channel]
_Colors = dict[str, _Color]
_Value = Annotated[int, Field(ge=-(2**31) + 1, le=2**31 - 1)]


class DataSpec(BaseModel):
    """What a data spec file holds. `load_data_spec` reads one, `resolve` finds its files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layout: Literal["folders", "voc", "cityscapes", "camvid", "ade20k", "ade20k-shifted", "coco", "coco-stuff"] = (
        "folders"
    )
    root: str = "."
    classes: _Names | _Colors | None = None
    ignore_index: int = Field(default=255, ge=0, le=255)
    label_mapping: dict[_Value | str, Annotated[int, Field(ge=0, le=255)]] = {}
    mask_values: Literal["ids", "colors"] = "ids"
    ignore_colors: list[_Color] = []
    bands: int = Field(default=3, ge=1, le=MAX_BANDS)
    bits: Literal[8, 16] = 8
    labeled: LabeledSection | None = None
    unlabeled: UnlabeledSection | None = None
    val: ValSection | None = None

    _path: Path = PrivateAttr(default=Path("data spec"))

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: _Names | _Colors | None) -> _Names | _Colors | None:
        if classes is None:
            return None
        if not 2 <= len(classes) <= MAX_CLASSES:
            raise ValueError(f"should name 2 to {MAX_CLASSES} classes, but names {len(classes)}")
        if twice := [name for name in dict.fromkeys(classes) if list(classes).count(name) > 1]:
            raise ValueError(f"the class {twice[0]!r} is named twice")
        return classes

    @model_validator(mode="after")
    def _known_partition(self) -> Self:
        name = self.labeled.partition if self.labeled else None
        known = partitions(self.layout)
        if name is not None and name not in known:
            hint = f"it has {', '.join(known)}" if known else "give a list as `ids`, or a `fraction`"
            raise ValueError(f"labeled.partition: layout {self.layout} has no partition {name!r}; {hint}")
        return self

    @property
    def path(self) -> Path:
        """The file that the spec was read from; its folder is what `root` is relative to."""
        return self._path

    def labels(self) -> Labels:
        """Return the classes: the spec's own, or else the layout's.

        Raises:
            ConfigError: neither names any, or `ignore_index` is the id of a class.
        """
        known = LAYOUTS[self.layout].classes
        classes = self.classes or (dict(known) if known else None)
        if classes is None:
            raise ConfigError(f"{self.path}: classes is missing; list the names in the order of their ids")
        if colors := self._class_colors(classes):
            palette = tuple(colors.values())
        else:
            same_classes = known is not None and len(known) == len(classes)
            palette = tuple(known.values()) if known and same_classes else default_palette(len(classes))
        return validate(
            Labels, {"names": tuple(classes), "palette": palette, "ignore_index": self.ignore_index}, self.path
        )

    def resolve(self, *, allow_missing_masks: bool = False) -> ImageSets:
        """Find the files.

        Labeled and validation images, and files that come twice, are left out of the unlabeled list, links followed.

        Args:
            allow_missing_masks: return labeled and validation samples without a mask instead of raising.

        Raises:
            ConfigError: a folder or a list is missing or the spec contradicts itself.
            DataError: a list names images that are not there, or masks are missing.
        """
        labels = self.labels()
        colors = self._colors(labels)
        layout = LAYOUTS[self.layout]
        places = Places.of_spec(self.path, self.root)
        mask_name = choose_mask_name(layout, places, (self.labeled, self.val))
        mapping = self._values_of_roboflow(places, labels) | self._mapping(mask_name, labels)

        published = Published(self.layout, self.labeled.partition if self.labeled else None)
        training = validation = None
        if self.labeled or layout.train.images:
            section = self.labeled or LabeledSection()
            training = LabeledImages(places, "labeled", section, layout.train, layout, mask_name.ending, published)
        if self.val or layout.val.images:
            held_out = self.val or ValSection()
            validation = LabeledImages(places, "val", held_out, layout.val, layout, mask_name.ending, published)
        if not (training or validation or self.unlabeled):
            raise ConfigError(f"{self.path}: names no images; add labeled, unlabeled or val")

        labeled = _chosen(training, allow_missing_masks)
        val = _chosen(validation, allow_missing_masks)
        require_own_annotations((*labeled, *val))
        unlabeled = unlabeled_images(places, self.unlabeled or UnlabeledSection(), layout, training)
        coding = MaskCoding(
            labels,
            label_mapping={value: class_id for value, class_id in mapping.items() if isinstance(value, int)},
            colors=colors,
            by_color=self.mask_values == "colors",
            name_mapping={name: class_id for name, class_id in mapping.items() if isinstance(name, str)},
            object_names=object_names((*labeled, *val), labels, places),
        )
        return ImageSets(coding, labeled, without(unlabeled, labeled + val), val, PixelFormat(self.bands, self.bits))

    def _class_colors(self, classes: _Names | _Colors) -> dict[str, Color]:
        """Return the color of each class: the spec's, or those of CVAT's labelmap.txt, or none."""
        if isinstance(classes, dict):
            return dict(classes)
        for folder in self._labelmap_folders():
            if (file := folder / LABELMAP).is_file():
                colors = class_colors(read_labelmap(file), classes)
                if colors is not None:
                    return colors
        return {}

    def _labelmap_folders(self) -> tuple[Path, ...]:
        """Return where CVAT's labelmap.txt is looked for: beside the spec, in its root, and with the masks."""
        root = self.path.parent / expanded(self.root, f"{self.path}: root")
        texts = [section.masks for section in (self.labeled, self.val) if section is not None and section.masks]
        masks = [root / expanded(text, f"{self.path}: masks") for text in texts]
        return tuple(dict.fromkeys((self.path.parent, root, *masks, *(folder.parent for folder in masks))))

    def _colors(self, labels: Labels) -> dict[Color, int]:
        """Return the class id of each color that masks may hold; empty where no colors are given."""
        classes = self.classes or dict(LAYOUTS[self.layout].classes or {})
        colors: dict[Color, int] = {}
        for class_id, (name, color) in enumerate(self._class_colors(classes).items()):
            if color in colors:
                if self.mask_values == "colors":
                    raise ConfigError(
                        f"{self.path}: classes: {name!r} has the color of {labels.names[colors[color]]!r},"
                        " so masks cannot be read by color; give each class its own"
                    )
                return {}
            colors[color] = class_id
        if self.mask_values == "colors" and not colors:
            raise ConfigError(
                f"{self.path}: mask_values: colors needs the classes' colors: `classes: {{road: [128, 64, 128], …}}`,"
                f" or CVAT's {LABELMAP} beside the spec"
            )
        if colors:
            colors |= {color: labels.ignore_index for color in self.ignore_colors if color not in colors}
        return colors

    def _values_of_roboflow(self, places: Places, labels: Labels) -> dict[int | str, int]:
        """Return the class id of each pixel value that a `_classes.csv` among the masks names."""
        ids = dict(zip(labels.names, range(labels.num_classes), strict=True)) | self.label_mapping
        values: dict[int | str, int] = {}
        plain: dict[str, Path] = {}
        for key, section in (("labeled", self.labeled), ("val", self.val)):
            if section is None or section.masks is None:
                continue
            folder = places.masks(section.masks, f"{key}.masks")
            if not roboflow.is_export(folder):
                plain[key] = folder
                continue
            for value, name in roboflow.read_classes(folder).items():
                if name not in ids:
                    mapping = yaml_in_one_line({name: labels.ignore_index})
                    raise ConfigError(
                        f"{self.path}: the label {name!r} of {folder / roboflow.NAME} is not a class; add it to"
                        f" `classes`, or map it: `label_mapping: {mapping}`"
                    )
                if values.setdefault(value, ids[name]) != ids[name]:
                    raise ConfigError(
                        f"{self.path}: the value {value} is {name!r} in {folder / roboflow.NAME}, but another class in"
                        " labeled.masks; export both from one version of the data set"
                    )
        if any(value != class_id for value, class_id in values.items()):
            for key, folder in plain.items():
                if roboflow.holds_mask_images(folder):
                    raise ConfigError(
                        f"{self.path}: {key}.masks: {folder} has no {roboflow.NAME}, while that of the other masks maps"
                        " their values to other class ids; run `segkc-deploy convert` on each set and use the results"
                    )
        return values

    def _mapping(self, mask_name: MaskName, labels: Labels) -> dict[int | str, int]:
        for value, class_id in self.label_mapping.items():
            if class_id >= labels.num_classes and class_id != labels.ignore_index:
                raise ConfigError(
                    f"{self.path}: label_mapping: {value} is mapped to {class_id}, which is neither a class"
                    f" (0-{labels.num_classes - 1}) nor ignore_index {labels.ignore_index}"
                )
        known: dict[int | str, int] = {
            value: labels.ignore_index if class_id == IGNORED else class_id
            for value, class_id in mask_name.mapping.items()
        }
        return known | self.label_mapping


def load_data_spec(path: str | Path) -> DataSpec:
    """Read and check a data spec; no image is looked for before `resolve`.

    Raises:
        ConfigError: one line that names the file, the key and the fix.
    """
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"{path}: a folder, no data spec; {_fix_of_folder(path)}")
    data = load_yaml(path)
    if reason := foreign_spec(data):
        raise ConfigError(f"{path}: {reason}")
    return data_spec(data, path)


def data_spec(data: Any, path: Path) -> DataSpec:
    """Return the data spec that a mapping holds, as if it had been read from `path`.

    Raises:
        ConfigError: one line that names the file, the key and the fix.
    """
    spec = validate(DataSpec, data, path)
    spec._path = path
    return spec


def _fix_of_folder(folder: Path) -> str:
    if (file := folder / "data.yaml").is_file():
        return f"give {file}"
    return f"`{suggested_command('init', folder)}` writes one"


def _chosen(images: LabeledImages | None, allow_missing_masks: bool) -> tuple[Sample, ...]:
    if images is None:
        return ()
    chosen = images.chosen()
    if not allow_missing_masks:
        images.require_masks(chosen)
    return chosen
