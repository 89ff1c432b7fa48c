"""Files appear whole or not at all: write beside the target, flush to disk, rename over it."""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Bytes of a file's name that Linux, macOS and Windows allow, and that a temporary name has more than its target's.
LONGEST_NAME = 255
_ADDED = len(".-12345678")

#: The name of a temporary file; the groups are its target's stem, see `fitting_stem`, and suffix.
TEMPORARY = re.compile(r"\.(.+)-[0-9a-f]{8}(\.[^.]*|)", re.DOTALL)


@contextmanager
def atomic_path(target: str | Path, flush: bool = True) -> Iterator[Path]:
    """Yield the path of a new, empty file in the target's folder; on a clean exit it replaces `target`.

    On an exception it is removed and `target` is untouched; where the process is killed, `target` is the old or the
    new one. With `flush` the same holds where the machine crashes: the data is on disk (fsync) before the rename, and
    the folder's entry after it. Without, the file may then be empty or incomplete.

    The temporary name keeps the target's suffix, since some writers choose a format by it.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    stem = fitting_stem(target)
    temporary = target.with_name(f".{stem}-{secrets.token_hex(4)}{target.suffix}")
    # The system takes the umask off the mode; to read the umask would change it for other threads.
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    mode = temporary.stat().st_mode
    try:
        with naming(target):
            yield temporary
            temporary.chmod(mode)  # some writers put another file in its place
            if flush:
                _fsync(temporary)
            try:
                temporary.replace(target)
            except OSError as error:
                error.filename = str(target)  # such as a folder, which the temporary file is not
                raise
            if flush:
                _fsync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def fitting_stem(target: Path) -> str:
    """Return a target's stem in the name of its temporary file: cut where that would be too long for a file system."""
    stem = target.stem
    while stem and len(os.fsencode(f"{stem}{target.suffix}")) > LONGEST_NAME - _ADDED:
        stem = stem[:-1]
    return stem


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Let an OSError name `path` where it names no file: a write to a full disk does not know its file."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def append_line(path: Path, line: str) -> None:
    """Append a line to a text file, as UTF-8, and flush it to disk.

    A line that a full disk or a crash cut off is ended first, so that the next one is whole.

    Raises:
        OSError: it cannot be written; the error names the file.
    """
    with naming(path), path.open("ab") as file:
        ends_torn = file.tell() > 0 and not _ends_with_newline(path)
        file.write(("\n" if ends_torn else "").encode() + line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def write_bytes(target: str | Path, data: bytes, flush: bool = True) -> None:
    """Write `data` to `target` atomically; for `flush` see `atomic_path`."""
    with atomic_path(target, flush) as temporary:
        temporary.write_bytes(data)


def write_text(target: str | Path, text: str) -> None:
    """Write `text` to `target` atomically, as UTF-8."""
    write_bytes(target, text.encode())


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
