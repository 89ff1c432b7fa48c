"""The images that a section of a data spec can choose from, and the ways of choosing: by a list, by a fraction."""

import glob
import hashlib
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path, PurePosixPath

from segkc_deploy.data import roboflow
from segkc_deploy.data.annotations.pairing import pair_masks
from segkc_deploy.data.annotations.reading import ANNOTATION_SUFFIXES
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
        line, after a space or, where paths hold spaces or `#`, after a tab, is the image's mask. A line that is an id
        or a path as a whole is taken so; of others, what follows a `#` is skipped. So are blank lines.

        Raises:
            DataError: the list cannot be read, is empty, or names images that are not there.
        """
        samples = self.named(_lines(list_file), str(list_file))
        if not samples:
            raise DataError(f"{list_file}: the list is empty; give one id a line")
        return samples

    def named(self, lines: Iterable[str], where: str) -> tuple[Sample, ...]:
        """Return the samples that the lines of a list name; see `listed`.

        Of images in one folder that differ in their suffix alone, those after the first have it in their ids.

        Raises:
            DataError: images are not there; the message begins with `where`.
        """
        chosen: dict[Path, Sample] = {}
        image_of: dict[str, Path] = {}
        missing = []
        for line in lines:
            text = _without_comment(line)
            sample = self._exactly(line) or self._pair(line)
            if sample is None and text != line:
                sample = self._file(line)
            if sample is None and text:
                sample = self._image(text) or self._pair(text) or self._spaced_pair(text)
            if sample is not None:
                if image_of.setdefault(sample.id, sample.image) != sample.image:
                    sample = replace(sample, id=sample.id + sample.image.suffix)
                    image_of.setdefault(sample.id, sample.image)
                chosen[sample.image] = sample
            elif text:
                missing.append(text)
        if missing:
            raise DataError(
                f"{where}: {len(missing)} of {len(missing) + len(chosen)} ids have no image: {_named(missing)}"
            )
        return tuple(chosen.values())

    @cached_property
    def _by_path(self) -> dict[str, Sample]:
        """The samples by the path of their image below the root, with its suffix."""
        return {_composed(_below(sample.image, self.root)): sample for sample in self.samples.values()}

    @cached_property
    def _by_stem(self) -> dict[str, Sample]:
        """The samples by that path without the suffix."""
        return {_without_suffix(path): sample for path, sample in self._by_path.items()}

    def _image(self, text: str) -> Sample | None:
        if sample := self._exactly(text):
            return sample
        name = _composed(_without_suffix(text.lstrip("/")))
        return self.samples.get(name.removesuffix(self.image_ending)) or self._by_stem.get(name) or self._file(text)

    def _exactly(self, text: str) -> Sample | None:
        """Return the sample whose id or path is the text as it stands: names may hold ` #`, and ids end with `.jpg`."""
        return self.samples.get(_composed(text)) or self._by_path.get(_composed(text.lstrip("/")))

    def _file(self, text: str) -> Sample | None:
        """Return the image at a path below the root that is none of the samples."""
        path = self.root / text.lstrip("/")
        if path.suffix.lower() in IMAGE_SUFFIXES and _is_file(path):
            return Sample(_composed(_without_suffix(text.lstrip("/"))), path)
        return None

    def _pair(self, line: str) -> Sample | None:
        image, _, rest = line.partition("\t")
        mask = _without_comment(rest)
        if not rest.strip() or "\t" in mask or (sample := self._image(image)) is None:
            return None
        for text in (rest, mask):
            path = self.root / text.lstrip("/")
            if _is_file(path):
                return replace(sample, mask=path)
        if not mask:
            return None
        # A list names the mask that is to be drawn, where an export of a labeling tool may come to hold the image.
        is_annotated = sample.mask is not None and sample.mask.suffix.lower() in ANNOTATION_SUFFIXES
        return sample if is_annotated else replace(sample, mask=None)

    def _spaced_pair(self, text: str) -> Sample | None:
        parts = text.split()
        return self._pair("\t".join(parts)) if len(parts) == 2 else None


def draw_fraction(samples: Iterable[Sample], fraction: Fraction, seed: int) -> tuple[Sample, ...]:
    """Return ceil(fraction · n) of the samples, in their order.

    The draw depends on the ids and the seed alone: it is the same on every machine, a smaller fraction is a subset of
    a larger one, and an image that is added or removed does not reshuffle the others.
    """
    samples = tuple(samples)
    order = sorted(
        samples, key=lambda sample: hashlib.sha256(f"{seed}:{sample.id}".encode(errors="surrogateescape")).digest()
    )
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
    return text.split("\n")


def _without_comment(line: str) -> str:
    return re.sub(r"(^|\s)#.*", "", line).strip().replace("\\", "/")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a comment may be too long for a name
        return False


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _without_suffix(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in IMAGE_SUFFIXES else str(path)


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _named(names: list[str]) -> str:
    return ", ".join(names[:_MOST_IDS_NAMED]) + (", …" if len(names) > _MOST_IDS_NAMED else "")
