"""The lock of a folder, such as a run directory: one process at a time writes to it."""

import errno
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from segkc_deploy.atomic import naming
from segkc_deploy.errors import RunDirectoryError

LOCK_NAME = ".lock"

#: Locks of this process, in which the kernel's own lock has no effect.
_held: set[Path] = set()


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made if it does not exist.

    The kernel releases the lock when its process ends, however it ends, so the file of a dead process does not lock the
    folder. Worker processes do not inherit the lock. On Windows, which has no such lock, nothing is locked.

    Raises:
        RunDirectoryError: another process writes to the folder; the message names it.
    """
    if folder.exists() and not folder.is_dir():
        raise RunDirectoryError(f"{folder}: not a directory; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    path = (folder / LOCK_NAME).resolve()
    file = _acquire(path, folder)
    _held.add(path)
    try:
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        with naming(path):
            file.truncate(0)
            file.write(json.dumps(owner))
            file.flush()
        yield
    finally:
        _held.discard(path)
        if sys.platform == "win32":  # which deletes no open file
            file.close()
        with suppress(OSError):
            path.unlink(missing_ok=True)
        file.close()


def _acquire(path: Path, folder: Path) -> IO[str]:
    while path not in _held:
        file = path.open("a+", encoding="utf-8")
        try:
            _lock(file)
        except OSError as error:
            file.close()
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            break
        if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
        file.close()  # its owner has just removed it: lock the file that took its place
    raise RunDirectoryError(f"{folder}: {_owner_in_words(path)}; wait for it to end, or choose another --out")


def _lock(file: IO[str]) -> None:
    if sys.platform != "win32":
        import fcntl

        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _owner_in_words(path: Path) -> str:
    if path in _held:
        # To open and close the file would release this process's lock.
        return f"in use by this process ({os.getpid()})"
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return f"in use by process {owner['pid']} on host {owner['host']} since {owner['since']}"
    except (OSError, ValueError, KeyError):
        return "in use by another process"
