"""The image and mask files below a folder, by the id that pairs them."""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from segkc_deploy.errors import ConfigError, DataError

#: Synology's thumbnails, macOS's archives, the trash of QNAP, Samba and Windows.
FOLDERS_OF_OTHERS = frozenset({"@eaDir", "__MACOSX", "@Recycle", "#recycle", "$RECYCLE.BIN", "@Recently-Snapshot"})


def files_by_id(folder: Path, suffixes: frozenset[str], ending: str = "") -> dict[str, Path]:
    """Return the files below `folder` whose suffix is one of `suffixes`, by id, sorted.

    Args:
        folder: searched as `files_below` does.
        suffixes: in lower case; the files' own may be in any case.
        ending: what a file's name has after the id; a name without it is an id as a whole.

    Returns:
        id to path; an id is the path below `folder` without ending and suffix, with forward slashes, in Unicode's
        composed form (NFC): archives from macOS write `ü` as two characters.

    Raises:
        DataError: two files have the same id.
    """
    found: dict[str, Path] = {}
    for path in sorted(files_below(folder)):
        if path.suffix.lower() not in suffixes:
            continue
        name = unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix().removesuffix(ending))
        if name in found:
            raise DataError(
                f"{path}: {found[name].name} beside it has the same id {name!r};"
                " keep one of the two (masks belong in a folder of their own)"
            )
        found[name] = path
    return found


def files_below(folder: Path) -> Iterator[Path]:
    """Yield every file below `folder`, links followed.

    Hidden files are left out, and folders of thumbnails and deleted files that file servers and archivers add.

    Raises:
        DataError: a folder cannot be listed.
    """
    yield from _files(folder, seen=frozenset())


def existing_folder(folder: Path, where: str) -> Path:
    """Return `folder`; raise a ConfigError that begins with `where` when there is none."""
    if folder.is_dir():
        return folder
    parent = next(parent for parent in folder.parents if parent.is_dir())
    inside = sorted(entry.name for entry in parent.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    there = f"{parent} has {', '.join(inside[:8])}" if inside else f"{parent} has no folders"
    raise ConfigError(f"{where}: no folder {folder}; {there}")


def _files(folder: Path, seen: frozenset[str]) -> Iterator[Path]:
    """`seen` holds the real paths of the folders above."""
    real = os.path.realpath(folder)
    if real in seen:  # a link to a folder above
        return
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from None
    for entry in entries:
        if entry.name.startswith(".") or entry.name in FOLDERS_OF_OTHERS:
            continue
        if entry.is_dir():
            yield from _files(Path(entry.path), seen | {real})
        else:
            yield Path(entry.path)
