"""How annotation files name images, and how these names are compared with image files."""

import re
import unicodedata
from pathlib import PurePosixPath

#: Label Studio puts eight characters of its own before the names of uploaded files.
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-(?=.)")


def parts_of(name: str) -> tuple[str, ...]:
    """Return the folders and the stem of an image's path, which any system may have written, in composed Unicode."""
    path = PurePosixPath(unicodedata.normalize("NFC", name).replace("\\", "/"))
    return (*path.parts[:-1], re.sub(r"\.\w{1,5}$", "", path.name))


def without_upload_prefix(stem: str) -> str:
    """Return a file's stem as it was before the file was uploaded to Label Studio."""
    return _UPLOAD_PREFIX.sub("", stem)


def shared_folders(parts: tuple[str, ...], others: tuple[str, ...]) -> int:
    """Return how many folders next to the file two paths have in common."""
    count = 0
    for one, other in zip(reversed(parts[:-1]), reversed(others[:-1]), strict=False):
        if one != other:
            break
        count += 1
    return count
