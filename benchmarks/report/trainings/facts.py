"""What a run directory says about its training besides the curves: images, steps, time, the networks' sizes."""

import json
import math
import re
import struct
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

#: The line that `train` writes to `train.log` at the start of each session.
_SESSION = re.compile(
    r"(?P<recipe>.*): (?P<labeled>\d+) labeled, (?P<unlabeled>\d+) unlabeled, (?P<val>\d+) validation images;"
    r" (?P<steps>\d+) steps from step \d+ on (?P<device>.+), \w+"
)
_STAMP = "%Y-%m-%d %H:%M:%S"
_STAMP_LENGTH = len("2026-01-31 12:00:00")

#: Tensors that batch normalization counts and nobody learns.
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

#: Longer headers than this are no safetensors file's.
_LONGEST_HEADER = 100 << 20


@dataclass(frozen=True)
class LogFacts:
    """What `train.log` says; None where it does not.

    `images` counts `labeled`, `unlabeled` and `val`; `seconds` is the wall time of all sessions together, each from its
    first line to its last one; `interrupted` says whether a signal, such as Ctrl-C, ended the
    last session.
    """

    images: dict[str, int] | None = None
    steps: int | None = None
    device: str | None = None
    started: str | None = None
    seconds: float | None = None
    interrupted: bool = False


def read_log(path: Path) -> LogFacts:
    """Read a `train.log`; what is not there, or not as `train` writes it, is None."""
    if not path.is_file():
        return LogFacts()
    stamped = [pair for line in path.read_text("utf-8", errors="replace").splitlines() if (pair := _split(line))]
    sessions: list[list[datetime]] = []
    begin = None
    for time, text in stamped:
        if found := _SESSION.fullmatch(text):
            begin = found
            sessions.append([time, time])
        elif sessions:
            sessions[-1][1] = time
    if begin is None:
        return LogFacts()
    spent = sum((end - start for start, end in sessions), timedelta())
    return LogFacts(
        images={name: int(begin[name]) for name in ("labeled", "unlabeled", "val")},
        steps=int(begin["steps"]),
        device=begin["device"],
        started=sessions[0][0].strftime(_STAMP),
        seconds=spent.total_seconds(),
        interrupted=stamped[-1][1].startswith(("interrupted", "stopped by")),
    )


def count_parameters(path: Path) -> int | None:
    """Return how many parameters a network file holds, by its header alone, or None where it is no such file.

    Statistics of batch normalization are in the file and are not counted: nobody learns them.
    """
    header = _header(path)
    if header is None:
        return None
    tensors = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
    learned = (tensor for name, tensor in tensors.items() if name.rpartition(".")[2] not in _STATISTICS)
    return sum(math.prod(tensor["shape"]) for tensor in learned)


def _header(path: Path) -> dict[str, Any] | None:
    """Return the JSON header of a safetensors file: a length of 8 bytes, little-endian, and as many bytes of JSON."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else _LONGEST_HEADER + 1
        content = file.read(length) if length <= _LONGEST_HEADER else b""
    try:
        header = json.loads(content)
    except ValueError:
        return None
    return header if isinstance(header, dict) else None


def _split(line: str) -> tuple[datetime, str] | None:
    """Split a line of the log into its time and its text."""
    try:
        return datetime.strptime(line[:_STAMP_LENGTH], _STAMP), line[_STAMP_LENGTH + 1 :]
    except ValueError:
        return None
