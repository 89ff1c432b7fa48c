"""How annotation files name images, and how these names are compared with image files."""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

#: How well a name fits an image file, to be compared: whether the stems are equal, and how many folders are.
Fit = tuple[bool, int]

#: Label Studio puts eight characters of its own before the names of uploaded files.
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-(?=.)")


def parts_of(name: str) -> tuple[str, ...]:
    """Return the folders and the stem of an image's path, which any system may have written, in composed Unicode."""
    path = PurePosixPath(unicodedata.normalize("NFC", name).replace("\\", "/"))
    return (*path.parts[:-1], re.sub(r"\.\w{1,5}$", "", path.name))


def without_upload_prefix(stem: str) -> str:
    """Return a file's stem as it was before the file was uploaded to Label Studio."""
    return _UPLOAD_PREFIX.sub("", stem)


def _shared_folders(parts: tuple[str, ...], others: tuple[str, ...]) -> int:
    """Return how many folders next to the file two paths have in common."""
    count = 0
    for one, other in zip(reversed(parts[:-1]), reversed(others[:-1]), strict=False):
        if one != other:
            break
        count += 1
    return count


class ImageNames:
    """The image names of annotations, each known by its place in `names`, found by the paths of image files."""

    def __init__(self, names: Iterable[str]) -> None:
        self._parts = [parts_of(name) for name in names]
        self._by_stem: dict[str, list[int]] = {}
        self._by_uploaded_stem: dict[str, list[int]] = {}
        for place, (*_, stem) in enumerate(self._parts):
            self._by_stem.setdefault(stem, []).append(place)
            self._by_uploaded_stem.setdefault(without_upload_prefix(stem), []).append(place)

    def find(self, image: Path) -> tuple[list[int], Fit]:
        """Return the places of the names that fit an image file best, and how well they do; no place where none does.

        Names are compared without suffix and in Unicode's composed form; where none is equal, without the characters
        that Label Studio puts before the names of uploaded files. These are taken from one of the two names alone:
        dates, as in `20230101-0001`, look like them.
        """
        parts = parts_of(image.as_posix())
        stem = parts[-1]
        equal = self._by_stem.get(stem)
        found = equal or self._by_uploaded_stem.get(stem) or self._by_stem.get(without_upload_prefix(stem), [])
        shared = [_shared_folders(parts, self._parts[place]) for place in found]
        most = max(shared, default=0)
        best = [place for place, count in zip(found, shared, strict=True) if count == most]
        return best, (equal is not None, most)
