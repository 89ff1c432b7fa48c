"""What an earlier call of `label-next` wrote into a folder: it alone is replaced and deleted."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from segkc_deploy import atomic
from segkc_deploy.data.tasks.writers import WRITERS
from segkc_deploy.prediction_record import foreign_file, recorded_paths
from segkc_deploy.training.label_next.summary import is_table

#: By its first columns an earlier call's work is known. It is written first and deleted last.
SCORES = "scores.csv"

#: The files of tasks, one JSON string a line: a path below the folder, noted before the file is written.
_TASKS = "tasks.jsonl"
_FILES = ("label-next.txt", "labeled.txt", "index.html", "comparison.json", _TASKS, SCORES)


def require_own(out: Path, tools: Sequence[str]) -> None:
    """Refuse a folder in which this call would replace or delete files that no earlier call wrote.

    Args:
        out: the folder.
        tools: keys of `WRITERS`, whose files this call writes.

    Raises:
        ConfigError: no earlier call wrote what is there, such as a data set's own `labeled.txt`.
    """
    there = [out / name for name in _FILES if os.path.lexists(out / name)]
    if there and not is_table(out / SCORES):
        raise foreign_file(there[0])
    own = set(_tasks(out))
    for tool in tools:
        if os.path.lexists(out / tool) and not (out / tool).is_dir():
            raise foreign_file(out / tool)
        for name in WRITERS[tool].writes:
            for path in _entries(out / tool / name):
                if path not in own:
                    raise foreign_file(path)


def remove_earlier(out: Path) -> None:
    """Delete what an earlier call wrote, which may have written other files than this one.

    Folders of tasks that become empty by it are deleted too; other files stay.
    """
    for path in _tasks(out):
        if path.is_file() or path.is_symlink():
            path.unlink()
        for folder in path.parents:
            if folder == out or not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()
    for name in _FILES:
        (out / name).unlink(missing_ok=True)


def note_task_file(out: Path, path: Path) -> None:
    """Note that this call writes the file `path` of a task below `out`."""
    atomic.append_line(out / _TASKS, json.dumps(path.relative_to(out).as_posix()))


def _tasks(out: Path) -> Iterator[Path]:
    """Yield the noted files that a writer of tasks may have written."""
    for path in recorded_paths(out / _TASKS):
        tool, *parts = path.parts
        if tool in WRITERS and parts and parts[0] in WRITERS[tool].writes:
            yield out / path


def _entries(path: Path) -> Iterator[Path]:
    """Yield `path`, or in place of a folder the files below it; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        for folder, _, names in os.walk(path):
            yield from (Path(folder) / name for name in names)
    elif os.path.lexists(path):
        yield path
