"""What `--source` means: one image, a folder with everything below it, a glob pattern, or a list of files."""

import glob
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from segkc_deploy.data.files import FOLDERS_OF_OTHERS, files_below
from segkc_deploy.data.images import IMAGE_SUFFIXES
from segkc_deploy.errors import DataError

#: Files with these suffixes are videos (`segkc_deploy.video`).
VIDEO_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv"}
    | {".ts", ".vob", ".webm", ".wmv"}
)


@dataclass(frozen=True)
class SourceImage:
    """An image to predict, and the path, without a suffix, under which its results are written."""

    path: Path
    id: str


def find_images(source: str, exclude: Path | None = None) -> list[SourceImage]:
    """Return the images that `source` names, in the order of their paths.

    Args:
        source: an image file, a folder (searched with its subfolders, links followed), a glob pattern (`**` goes
            through folders), or a text file (`.txt`) with the path of an image in each line, relative to the text
            file's folder. Its images keep their order, and those that are missing are returned too.
        exclude: a folder whose files are left out, so that results inside the source are not taken for images.

    Raises:
        DataError: no image was found, all are in `exclude`, or the list is not text.
    """
    path = Path(source)
    if path.is_file() and path.suffix.lower() == ".txt":
        return images_below(_listed(path))
    if path.is_file():
        return [SourceImage(path, path.stem)]
    if path.is_dir():
        base, found = path, list(files_below(path))
    elif glob.has_magic(source):
        base = _fixed_part(path)
        # Unlike `Path.glob`, this follows links; a link to a folder above would repeat files without end.
        matches = glob.glob(source, recursive=True)  # noqa: PTH207
        found = list({_real_folder(name): Path(name) for name in sorted(matches, key=len, reverse=True)}.values())
    else:
        raise DataError(f"{source}: no such image or folder")
    there = [image for image in found if _is_image(image)]
    images = sorted(image for image in there if not _is_within(image, exclude))
    if there and not images:
        raise DataError(
            f"{source}: its images are all inside {exclude}, which is to hold the results; choose an --out beside the"
            " images, or a folder in theirs"
        )
    if not images:
        raise DataError(f"{source}: holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return _named_below(base, images)


def images_below(images: list[Path]) -> list[SourceImage]:
    """Return the given image files (at least one), named by their paths below the folder that they share."""
    absolute = [image.absolute() for image in images]
    return _named_below(Path(os.path.commonpath([image.parent for image in absolute])), absolute)


def _listed(path: Path) -> list[Path]:
    """Return the images that the lines of a text file name, each once."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); write one image path in each line") from None
    # Without `..`, so that the results cannot lie outside the output folder.
    images = [Path(os.path.normpath(path.parent.absolute() / line)) for line in lines if line]
    if not images:
        raise DataError(f"{path}: names no image; write one image path in each line")
    return list(dict.fromkeys(images))


def _named_below(base: Path, images: list[Path]) -> list[SourceImage]:
    return [SourceImage(image, name) for image, name in zip(images, _distinct_ids(images, base), strict=True)]


def _real_folder(name: str) -> tuple[str, str]:
    folder, file = os.path.split(name)
    return os.path.realpath(folder), file


def _is_image(path: Path) -> bool:
    # macOS and some cameras leave `._name.jpg` files that are no images.
    hidden = path.name.startswith(".") or not FOLDERS_OF_OTHERS.isdisjoint(path.parts)
    return path.suffix.lower() in IMAGE_SUFFIXES and not hidden and path.is_file()


def _is_within(path: Path, folder: Path | None) -> bool:
    return folder is not None and path.resolve().is_relative_to(folder.resolve())


def _fixed_part(pattern: Path) -> Path:
    """Return the folder above the first part of a glob pattern that is a pattern."""
    folder = pattern.parent
    while glob.has_magic(str(folder)):
        folder = folder.parent
    return folder


def _distinct_ids(images: list[Path], base: Path) -> list[str]:
    """Return each image's path below `base` without its suffix, or with it where two images would share the rest.

    Ids that differ only in upper and lower case count as shared, since some file systems make one file of them.
    """
    full = [image.relative_to(base).as_posix() for image in images]
    ids = [name.removesuffix(image.suffix) for name, image in zip(full, images, strict=True)]
    while True:
        uses = Counter(name.casefold() for name in ids)
        distinct = [whole if uses[name.casefold()] > 1 else name for name, whole in zip(ids, full, strict=True)]
        if distinct == ids:
            return ids
        ids = distinct
