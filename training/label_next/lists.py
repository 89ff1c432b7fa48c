"""Lists of images in the form that a data spec's `labeled: {ids: FILE}` takes."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
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
    images (`annotations`, where there is one) does not hold. `own_masks` has the mask of each image that has none yet,
    by the image's path below `root`; `among` finds them, so that no two images have one.
    """

    root: Path
    images: Path | None
    masks: Path
    image_ending: str
    mask_ending: str
    annotations: Path | None = None
    own_masks: Mapping[str, Path] = field(default_factory=dict)

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

    def among(self, samples: Iterable[Sample]) -> "ListForm":
        """Return the form in which no two of `samples` have one mask, whichever of them a list names.

        Where images would share a mask, such as `a.jpg` and `a.png`, or `x/a.jpg` and `../x/a.jpg`, it keeps the
        image's suffix, and `..` becomes `_parent`. Masks that are there already keep their names.
        """
        taken: dict[str, Path] = {}
        free: dict[str, Sample] = {}
        for sample in samples:
            image = self._below_root(sample.image)  # one image may be named in two ways
            if sample.mask is not None or self._has_mask_by_id(sample):
                taken[image] = self.mask(sample)
            else:
                free[image] = sample
        # What has a mask does not need another, even where it is listed without one too.
        whole = {image: self._mask_of_path(sample, whole=True) for image, sample in free.items() if image not in taken}
        chosen = {image: self._mask_of_path(free[image]) for image in whole}
        while True:
            uses = Counter(_folded(mask) for mask in (*set(taken.values()), *chosen.values()))
            distinct = {image: whole[image] if uses[_folded(mask)] > 1 else mask for image, mask in chosen.items()}
            if distinct == chosen:
                return replace(self, own_masks=chosen)
            chosen = distinct

    def mask(self, sample: Sample) -> Path:
        """Return the file of the sample's mask: the one it has, or else the one that the list makes the spec look for.

        Masks of images from other folders get the image's path below `root`, since ids are unique in one folder only.
        """
        if sample.mask is not None:
            return sample.mask
        if self._has_mask_by_id(sample):
            return self.masks / f"{sample.id}{self.mask_ending}.png"
        return self.own_masks.get(self._below_root(sample.image)) or self._mask_of_path(sample)

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

    def _mask_of_path(self, sample: Sample, whole: bool = False) -> Path:
        """Return the mask by the image's path below `root`: without `..` and the suffix, or by the `whole` path."""
        parts = PurePosixPath(self._below_root(sample.image)).parts
        if not whole:
            return self.masks.joinpath(*(part for part in parts if part != "..")).with_suffix(".png")
        mask = self.masks.joinpath(*("_parent" if part == ".." else part for part in parts))
        return mask.with_name(f"{mask.name}.png")

    def _has_mask_by_id(self, sample: Sample) -> bool:
        return self._is_in_images(sample) and self.annotations is None

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
        real = _resolved(path.parent.absolute()) / path.name
        return Path(os.path.relpath(real, _resolved(self.root.absolute()))).as_posix()


@lru_cache(maxsize=1024)
def _resolved(folder: Path) -> Path:
    """Resolve an absolute path; every image of a folder asks for the same one."""
    return folder.resolve()


def _folded(path: Path) -> str:
    """Some file systems make one file of names that differ in upper and lower case alone."""
    return os.path.normpath(path.absolute()).casefold()
