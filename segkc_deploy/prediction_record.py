"""Which files of a folder `predict` wrote, so that it can delete its own, and no others, when it writes there again."""

import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePath, PurePosixPath

from segkc_deploy import atomic
from segkc_deploy.errors import ConfigError, DataError


class Further(StrEnum):
    """Further files of an image, each in a folder of this name.

    COCO run lengths, GeoJSON polygons, labelme's JSON, and the confidence of every pixel, 0 to 255.
    """

    RLE = "rle"
    POLYGONS = "polygons"
    LABELME = "labelme"
    CONFIDENCE = "confidence"


#: One JSON string a line: a file's path below the folder.
RECORD = "predicted.jsonl"
#: What the pixels of the recorded files depend on, a JSON object.
SETTINGS = "predicted.settings.json"

#: The subfolders of results, each with the endings that its files may have.
_ENDINGS = {
    "masks": {".png", ".tif"},
    "overlays": {".jpg", ".png"},
    Further.RLE: {".json"},
    Further.POLYGONS: {".geojson"},
    Further.LABELME: {".json"},
    Further.CONFIDENCE: {".png", ".tif"},
}

#: How the files end that are written unflushed, within so many bytes. TIFFs are flushed, and end in data.
_TAIL = 64
_LAST_BYTES = {".png": b"IEND\xaeB`\x82", ".jpg": b"\xff\xd9", ".json": b"}", ".geojson": b"}"}


@dataclass(frozen=True)
class ResultFolder:
    """A folder for results, with a record of them.

    Attributes:
        path: the folder.
        recorded: whether the record names the files already, as where several machines write into the folder.
    """

    path: Path
    recorded: bool = False

    def write(self, name: Path, content: bytes) -> None:
        """Write a file by its path below the folder.

        Raises:
            ConfigError: it cannot be written.
            DataError: its name is too long.
        """
        path = self.path / name
        if len(os.fsencode(name.name)) > atomic.LONGEST_NAME:
            raise DataError(f"{path}: its name is too long for a file; rename the image")
        try:
            # Noted first: a killed run then leaves nothing that is not known as its own.
            self.note(name)
            # Unflushed: to wait for the disk takes longer than a small network, and `results_there` looks at the files.
            atomic.write_bytes(path, content, flush=False)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror}; choose another --out") from None

    def note(self, *names: PurePath) -> None:
        """Add results, by their paths below the folder, to the record, unless they are there."""
        if not self.recorded:
            with (self.path / RECORD).open("a", encoding="utf-8") as record:
                record.writelines(json.dumps(name.as_posix()) + "\n" for name in names)


def foreign_file(path: Path) -> ConfigError:
    """Return the error for a file that a command would replace and did not write."""
    return ConfigError(f"{path}: is there, and no earlier call wrote it; choose another --out, or move it away")


def keep_existing(out: Path) -> None:
    """Leave only those results in the record that exist, each once."""
    names = dict.fromkeys(name.as_posix() for name in _recorded(out / RECORD) if (out / name).is_file())
    atomic.write_text(out / RECORD, "".join(json.dumps(name) + "\n" for name in names))


def record_settings(out: Path, settings: Mapping[str, object]) -> None:
    """Note how the results in `out` are made.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        with atomic.atomic_path(out / SETTINGS) as temporary:
            temporary.write_text(json.dumps(dict(settings), indent=2, sort_keys=True) + "\n")
    except OSError as error:
        raise ConfigError(f"{out / SETTINGS}: cannot be written: {error.strerror}; choose another --out") from None


def recorded_settings(out: Path) -> dict[str, object]:
    """Return how the results in `out` were made, as far as it is noted."""
    try:
        settings = json.loads((out / SETTINGS).read_bytes())
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def recorded_results(out: Path) -> set[str]:
    """Return the paths below `out` of the recorded results, whether they exist or not."""
    return {name.as_posix() for name in _recorded(out / RECORD)}


def remove_earlier(out: Path) -> None:
    """Delete the recorded results in `out`, the subfolders that become empty by it, the record and its settings."""
    names = list(_recorded(out / RECORD))
    _remove_unfinished(out, names)
    for name in names:
        path = out / name
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == out or not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()
    (out / RECORD).unlink(missing_ok=True)
    (out / SETTINGS).unlink(missing_ok=True)


def results_there(out: Path) -> set[str]:
    """Return the paths below `out`, such as `masks/a.png`, of the recorded results that exist and are whole.

    A crash of the machine may leave files that are empty or end in zeros, which their last bytes tell.
    A last line that a killed run cut short is ended, so that it does not spoil the next one.
    """
    record = out / RECORD
    if record.is_file() and not record.read_bytes().endswith(b"\n"):
        with record.open("a", encoding="utf-8") as file:
            file.write("\n")
    names = list(_recorded(record))
    _remove_unfinished(out, names)
    return {name.as_posix() for name in names if _is_whole(out / name)}


def _remove_unfinished(out: Path, names: Collection[PurePosixPath]) -> None:
    """Remove the temporary files that a killed run left of the named results."""
    known = {path.with_name(atomic.fitting_stem(path) + path.suffix) for path in (out / name for name in names)}
    for folder in {path.parent for path in known}:
        for path in folder.glob(".*") if folder.is_dir() else ():
            match = atomic.TEMPORARY.fullmatch(path.name)
            if match and path.with_name(match[1] + match[2]) in known:
                path.unlink(missing_ok=True)


def _is_whole(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _TAIL, 0))
        # Editors end a text file with a new line.
        return size > 0 and file.read().rstrip(b" \t\r\n").endswith(_LAST_BYTES.get(path.suffix, b""))


def _recorded(record: Path) -> Iterator[PurePosixPath]:
    """Yield the recorded paths that a prediction may have written."""
    for path in recorded_paths(record):
        if len(path.parts) > 1 and path.suffix in _ENDINGS.get(path.parts[0], ()):
            yield path


def recorded_paths(record: Path) -> Iterator[PurePosixPath]:
    """Yield the paths in a record of one JSON string a line, which are relative to its folder.

    A line that a killed run cut short, or that leads elsewhere, is left out. Without a record there is none.
    """
    if not record.is_file():
        return
    for line in record.read_bytes().splitlines():
        try:
            name = json.loads(line)
        except ValueError:
            continue
        path = PurePosixPath(name) if isinstance(name, str) else PurePosixPath()
        if path.parts and not path.is_absolute() and ".." not in path.parts:
            yield path
