"""Lists of images in the form that a data spec's `labeled: {ids: FILE}` takes."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segkc_deploy.data.layouts import LAYOUTS
from segkc_deploy.data.resolve import Places, choose_mask_name
from segkc_deploy.data.samples import Sample
from segkc_deploy.data.sections import LabeledSection
from segkc_deploy.data.spec import DataSpec


@dataclass(frozen=True)
class ListForm:
    """How a spec's list names an image, and where it looks for the image's mask.

    An image of the spec's folder of labeled images (`images`, where there is one) is named by its id. Any other one is
    named by its path below `root`, followed by that of its mask; so is an image that the spec's annotation file of many
    images (`annotations`, where there is one) does not hold.
    """

    root: Path
    images: Path | None
    masks: Path
    image_ending: str
    mask_ending: str
    annotations: Path | None = None

    @classmethod
    def of_spec(cls, spec: DataSpec) -> "ListForm":
        """Read the form off a data spec; its folders need not be complete."""
        layout = LAYOUTS[spec.layout]
        section = spec.labeled or LabeledSection()
        places = Places.of_spec(spec.path, spec.root)
        images = section.images or layout.train.images
        masks = [places.root / name for name in layout.train.masks]
        if section.masks is not None:
            masks = [places.masks(section.masks, "labeled.masks")]
        return cls(
            root=places.root,
            images=places.folder(images, "labeled.images") if images else None,
            masks=next((folder for folder in masks if folder.is_dir()), places.root / "masks"),
            image_ending=layout.image_ending,
            mask_ending=choose_mask_name(layout, places, (spec.labeled, spec.val)).ending,
            annotations=masks[0] if section.masks is not None and masks[0].is_file() else None,
        )

    def mask(self, sample: Sample) -> Path:
        """Return the file of the sample's mask: the one it has, or else the one that the list makes the spec look for.

        Masks of images from other folders get the image's path below `root`, since ids are unique in one folder only.
        """
        if sample.mask is not None:
            return sample.mask
        if self._is_in_images(sample) and self.annotations is None:
            return self.masks / f"{sample.id}{self.mask_ending}.png"
        below_root = [part for part in PurePosixPath(self._below_root(sample.image)).parts if part != ".."]
        return self.masks.joinpath(*below_root).with_suffix(".png")

    def line(self, sample: Sample) -> str:
        """Return the line of a list that names `sample`."""
        if self._has_id(sample):
            return sample.id
        paths = (self._below_root(sample.image), self._below_root(self.mask(sample)))
        needs_tab = any(character.isspace() or character == "#" for path in paths for character in path)
        return ("\t" if needs_tab else " ").join(paths)

    def next_step(self, spec: DataSpec, chosen: Sequence[Sample], labeled: Path) -> str:
        """Say where the masks of `chosen` belong and how the spec takes the list `labeled` of all labeled images."""
        first = self.mask(chosen[0])
        section = spec.labeled
        ways = ("ids", "partition", "fraction")
        old = next((way for way in ways if section and getattr(section, way) is not None), None)
        instead = f" in place of its {old}" if old else ""
        export = f" or add it to {self.annotations}" if self.annotations is not None else ""
        return (
            f"save a mask for each ({first} for the first){export}, put `ids: {labeled.resolve()}` under `labeled` in"
            f" {spec.path}{instead}, and train again"
        )

    def _is_in_images(self, sample: Sample) -> bool:
        if self.images is None:
            return False
        return sample.image == self.images / f"{sample.id}{self.image_ending}{sample.image.suffix}"

    def _has_id(self, sample: Sample) -> bool:
        """Whether the id alone leads to the image and to its mask."""
        if not self._is_in_images(sample):
            return False
        if self.annotations is not None:
            return sample.mask == self.annotations
        return self.mask(sample).with_suffix("") == self.masks / f"{sample.id}{self.mask_ending}"

    def _below_root(self, path: Path) -> str:
        """`..` leads out of the root, which links would bend: folders are taken as they really are, files as named."""
        real = path.parent.resolve() / path.name
        return Path(os.path.relpath(real, self.root.resolve())).as_posix()
