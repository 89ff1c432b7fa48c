"""The images that a section of a data spec can choose from, and the ways of choosing: by a list, by a fraction."""

import glob
import hashlib
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path, PurePosixPath

from segkc_deploy.data import roboflow
from segkc_deploy.data.annotations.pairing import pair_masks
from segkc_deploy.data.files import files_by_id
from segkc_deploy.data.images import IMAGE_SUFFIXES
from segkc_deploy.data.samples import Sample
from segkc_deploy.errors import DataError

_MOST_IDS_NAMED = 5


@dataclass(frozen=True)
class Pool:
    """Samples by id. `mask` is None where no mask has the image's id."""

    samples: Mapping[str, Sample]
    root: Path
    image_ending: str = ""

    @classmethod
    def of_folders(
        cls, root: Path, images: Path, masks: Iterable[Path] = (), image_ending: str = "", mask_ending: str = ""
    ) -> "Pool":
        """Pair the images below a folder with masks; the first place that has a mask gives it.

        A place is a folder of masks or annotation files, or an annotation file of many images.
        """
        image_files = files_by_id(images, IMAGE_SUFFIXES, image_ending)
        own_masks: dict[str, Path] = {}
        if roboflow.is_export(images):
            image_files, own_masks = roboflow.split_files(image_files)
        mask_files: dict[str, Path] = {}
        for place in masks:
            beside_images = place.resolve() == images.resolve()
            found = own_masks if beside_images else {}
            mask_files = (found or pair_masks(image_files, place, mask_ending, beside_images)) | mask_files
        samples = {name: Sample(name, image, mask_files.get(name)) for name, image in image_files.items()}
        return cls(samples, root, image_ending)

    def listed(self, list_file: Path) -> tuple[Sample, ...]:
        """Return the samples that a list names, in its order, each once.

        A line is an id, or the path of an image below the root, both with or without suffix; a second path on the
        line, after a space or, where paths hold spaces, after a tab, is the image's mask. Blank lines and what follows
        a `#` are skipped.

        Raises:
            DataError: the list cannot be read, is empty, or names images that are not there.
        """
        if not (lines := _lines(list_file)):
            raise DataError(f"{list_file}: the list is empty; give one id a line")
        return self.named(lines, str(list_file))

    def named(self, lines: Iterable[str], where: str) -> tuple[Sample, ...]:
        """Return the samples that the lines of a list name; see `listed`.

        Raises:
            DataError: images are not there; the message begins with `where`.
        """
        by_path = {
            unicodedata.normalize("NFC", _without_suffix(_below(sample.image, self.root))): sample
            for sample in self.samples.values()
        }
        chosen: dict[str, Sample] = {}
        missing = []
        for line in lines:
            sample = self._find(line, by_path)
            if sample is None:
                missing.append(line)
            else:
                chosen[sample.id] = sample
        if missing:
            raise DataError(
                f"{where}: {len(missing)} of {len(missing) + len(chosen)} ids have no image: {_named(missing)}"
            )
        return tuple(chosen.values())

    def _find(self, line: str, by_path: Mapping[str, Sample]) -> Sample | None:
        name = unicodedata.normalize("NFC", _without_suffix(line.lstrip("/")))
        if sample := self.samples.get(name.removesuffix(self.image_ending)) or by_path.get(name):
            return sample
        image, *mask = line.split("\t") if "\t" in line else line.split()
        if len(mask) == 1 and (sample := self._find(image, by_path)):
            mask_file = self.root / mask[0].lstrip("/")
            return replace(sample, mask=mask_file if mask_file.is_file() else None)
        image_file = self.root / line.lstrip("/")
        if image_file.suffix.lower() in IMAGE_SUFFIXES and image_file.is_file():
            return Sample(name, image_file)
        return None


def draw_fraction(samples: Iterable[Sample], fraction: Fraction, seed: int) -> tuple[Sample, ...]:
    """Return ceil(fraction · n) of the samples, in their order.

    The draw depends on the ids and the seed alone: it is the same on every machine, a smaller fraction is a subset of
    a larger one, and an image that is added or removed does not reshuffle the others.
    """
    samples = tuple(samples)
    order = sorted(samples, key=lambda sample: hashlib.sha256(f"{seed}:{sample.id}".encode()).digest())
    drawn = {sample.id for sample in order[: math.ceil(fraction * len(samples))]}
    return tuple(sample for sample in samples if sample.id in drawn)


def without(samples: Iterable[Sample], others: Iterable[Sample]) -> tuple[Sample, ...]:
    """Return the samples whose image file is neither one of `others` nor one that came before, links followed."""
    seen = {sample.image.resolve() for sample in others}
    kept = []
    for sample in samples:
        image = sample.image.resolve()
        if image not in seen:
            seen.add(image)
            kept.append(sample)
    return tuple(kept)


def require_masks(samples: Iterable[Sample], where: str, masks: Iterable[Path], ending: str) -> None:
    """Raise a DataError that names the samples without a mask, where masks were searched and how they are named."""
    samples = tuple(samples)
    if missing := [sample for sample in samples if sample.mask is None]:
        first = missing[0]
        folders = tuple(masks)
        hint = "; ".join(_wanted(place, first.id, ending) for place in folders[:1])
        for folder in folders:
            for other in folder.glob(f"{glob.escape(first.id)}{ending}.*"):
                hint = f"{other} is no mask file; save masks without loss, as PNG, TIFF or BMP"
        names = _named([sample.id for sample in missing])
        raise DataError(
            f"{where}: {len(missing)} of {len(samples)} images have no mask: {names}{'; ' if hint else ''}{hint}"
        )


def _wanted(place: Path, name: str, ending: str) -> str:
    return f"{place} has no annotations of {name}" if place.is_file() else f"{place / name}{ending}.png is wanted"


def _lines(list_file: Path) -> list[str]:
    try:
        text = list_file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{list_file}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise DataError(f"{list_file}: cannot be read: {error.strerror}") from None
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in text.splitlines())
    return [line.replace("\\", "/") for line in lines if line]


def _without_suffix(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in IMAGE_SUFFIXES else str(path)


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _named(names: list[str]) -> str:
    return ", ".join(names[:_MOST_IDS_NAMED]) + (", …" if len(names) > _MOST_IDS_NAMED else "")
