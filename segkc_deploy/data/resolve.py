"""From the sections of a data spec to lists of samples."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from segkc_deploy.data.files import existing_folder
from segkc_deploy.data.layouts import Layout, MaskName, Split
from segkc_deploy.data.partitions import partitions, split_ids
from segkc_deploy.data.pools import Pool, draw_fraction, require_masks
from segkc_deploy.data.samples import Sample
from segkc_deploy.data.sections import LabeledSection, UnlabeledSection, ValSection
from segkc_deploy.errors import ConfigError


@dataclass(frozen=True)
class Places:
    """What paths in a spec are relative to: folders to `root`, lists to the spec's own folder or to `root`."""

    spec: Path
    root: Path

    @classmethod
    def of_spec(cls, spec: Path, root: str) -> "Places":
        return cls(spec, existing_folder(spec.parent / expanded(root, f"{spec}: root"), f"{spec}: root"))

    def folder(self, text: str, key: str) -> Path:
        where = f"{self.spec}: {key}"
        return existing_folder(self.root / expanded(text, where), where)

    def masks(self, text: str, key: str) -> Path:
        """Return a folder, or an annotation file of many images."""
        file = self.root / expanded(text, f"{self.spec}: {key}")
        return file if file.is_file() else self.folder(text, key)

    def list_file(self, text: str, key: str) -> Path:
        where = f"{self.spec}: {key}"
        candidates = [parent / expanded(text, where) for parent in (self.spec.parent, self.root)]
        for candidate in candidates:
            if candidate.is_file():
                return candidate
        raise ConfigError(f"{where}: no file {' nor '.join(dict.fromkeys(map(str, candidates)))}")


def expanded(text: str, where: str) -> Path:
    """Return the path with `~` and environment variables replaced; raise a ConfigError for one that is not known."""
    for name in re.findall(r"\$\{?(\w+)", text):
        if name not in os.environ:
            raise ConfigError(f"{where}: the environment variable {name} is not set")
    try:
        return Path(os.path.expandvars(text)).expanduser()
    except RuntimeError:
        raise ConfigError(
            f"{where}: there is no user {text.partition('/')[0]}; for your own folder write ~/…"
        ) from None


@dataclass(frozen=True)
class Published:
    """The lists that ship for a layout. With a partition they hold, whatever other lists and images are on disk."""

    layout: str
    partition: str | None


@dataclass(frozen=True)
class LabeledImages:
    """The images with masks that a section (`key`, as in the spec) chooses from."""

    places: Places
    key: Literal["labeled", "val"]
    section: ValSection
    split: Split
    layout: Layout
    mask_ending: str
    published: Published

    @cached_property
    def masks(self) -> tuple[Path, ...]:
        if self.section.masks is not None:
            return (self.places.masks(self.section.masks, f"{self.key}.masks"),)
        there = tuple(path for path in (self.places.root / text for text in self.split.masks) if path.exists())
        if not there and self.split.masks:
            self.places.folder(self.split.masks[0], f"{self.key}.masks")
        return there

    @cached_property
    def pool(self) -> Pool:
        """Every image of the section's folder."""
        images = self.section.images or self.split.images
        if self.section.ids is None:
            for name, given in (("images", images), ("masks", self.section.masks or self.split.masks)):
                if not given:
                    raise ConfigError(f"{self.places.spec}: {self.key}.{name} is missing; name the folder")
        if not images:  # the list then holds paths
            return Pool({}, self.places.root)
        folder = self.places.folder(images, f"{self.key}.images")
        pool = Pool.of_folders(self.places.root, folder, self.masks, self.layout.image_ending, self.mask_ending)
        if not pool.samples:
            raise ConfigError(f"{self.places.spec}: {self.key}.images: no images in {folder}")
        return pool

    @cached_property
    def available(self) -> tuple[Sample, ...]:
        """The images that a list in the data set's folder names, or the published list, or all of them."""
        every = tuple(self.pool.samples.values())
        if self.section.images is not None:
            return every
        if self.published.partition is None:
            if not self.split.lists:
                return every
            for name in self.split.lists:
                if (self.places.root / name).is_file():
                    return self.pool.listed(self.places.root / name)
        ids = split_ids(self.published.layout, "val" if self.key == "val" else "train")
        if ids is None or (self._is_another_data_set(ids) and self.published.partition is None):
            return every
        return self.pool.named(ids, f"{self.places.spec}: {self.key}: the published list for {self.places.root}")

    def _is_another_data_set(self, ids: Sequence[str]) -> bool:
        """Whether images that the spec's own list chooses from lie in a known layout, as CVAT exports them."""
        return self.key == "labeled" and self.section.ids is not None and not any(map(self.pool.samples.get, ids))

    def chosen(self) -> tuple[Sample, ...]:
        if self.section.ids is not None:
            return self.pool.listed(self.places.list_file(self.section.ids, f"{self.key}.ids"))
        if not isinstance(self.section, LabeledSection):
            return self.available
        if (partition := self.section.partition) is not None:
            where = f"{self.places.spec}: labeled.partition {partition} for {self.places.root}"
            return self.pool.named(partitions(self.published.layout)[partition], where)
        masked = tuple(sample for sample in self.available if sample.mask is not None)
        if not masked:
            self.require_masks(self.available)
        if self.section.fraction is not None:
            return draw_fraction(masked, self.section.fraction, self.section.seed)
        return masked

    def require_masks(self, samples: Iterable[Sample]) -> None:
        """Raise a DataError that names the samples without a mask."""
        require_masks(samples, f"{self.places.spec}: {self.key}", self.masks, self.mask_ending)


def choose_mask_name(layout: Layout, places: Places, sections: Iterable[ValSection | None]) -> MaskName:
    """Return the first of the layout's mask names that a file has; the first of all when none has."""
    folders = [places.root / text for split in (layout.train, layout.val) for text in split.masks]
    given = [section.masks for section in sections if section and section.masks]
    folders += [places.root / expanded(text, f"{places.spec}: masks") for text in given]
    for name in layout.mask_names:
        if any(next(folder.rglob(f"*{name.ending}.*"), None) for folder in folders):
            return name
    return layout.mask_names[0]


def unlabeled_images(
    places: Places, section: UnlabeledSection, layout: Layout, training: LabeledImages | None
) -> tuple[Sample, ...]:
    """Return the images that are used without masks, before labeled and validation images are left out."""
    if isinstance(section.images, str):
        folders = [places.folder(section.images, "unlabeled.images")]
    elif section.images is not None:
        folders = [places.folder(text, "unlabeled.images") for text in section.images]
    elif section.ids is not None or (training is not None and training.published.partition is not None):
        folders = []
    else:
        folders = [places.root / text for text in layout.unlabeled if (places.root / text).is_dir()]
    pools = [Pool.of_folders(places.root, folder, image_ending=layout.image_ending) for folder in folders]
    for folder, pool in zip(folders, pools, strict=True):
        if not pool.samples:
            raise ConfigError(f"{places.spec}: unlabeled.images: no images in {folder}")
    samples = [sample for pool in pools for sample in pool.samples.values()]
    if section.ids is not None:
        if section.images is None and training is not None:
            pool = training.pool
        else:
            pool = Pool({sample.id: sample for sample in samples}, places.root, layout.image_ending)
        samples = list(pool.listed(places.list_file(section.ids, "unlabeled.ids")))
    elif section.images is None and training is not None:
        samples = [*training.available, *samples]
    return tuple(replace(sample, mask=None) for sample in samples)
