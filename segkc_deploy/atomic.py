"""Files appear whole or not at all: write beside the target, flush to disk, rename over it."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the target's folder; on a clean exit it replaces `target`.

    The data is on disk (fsync) before the rename and the folder entry after it, so a crash leaves
    either the old file or the new one. On an exception the temporary file is removed and `target` is untouched.

    The temporary name keeps the target's suffix, since some writers choose a format by it.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem}-", suffix=target.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        with naming(target):
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            _fsync(temporary)
            temporary.replace(target)
            _fsync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


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


def write_bytes(target: str | Path, data: bytes) -> None:
    """Write `data` to `target` atomically."""
    with atomic_path(target) as temporary:
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


def _umask() -> int:
    # The mask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
