"""Fields of annotation JSON, checked as they are taken: one line that names the file and the field."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segkc_deploy.data.images import read_bytes
from segkc_deploy.data.pixel_limit import require_within_limit
from segkc_deploy.errors import DataError

_MOST_SHOWN = 60
_TOO_LARGE = 2**63


def load_json(path: Path) -> Any:
    """Return the content of a JSON file; raise a DataError that names it when it is none."""
    try:
        return json.loads(read_bytes(path, "annotation file").decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except RecursionError:
        raise DataError(f"{path}: not JSON that can be read: it is nested too deeply") from None
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from None


def field(data: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """Return `data[key]`, which must be of `kind`."""
    if not isinstance(data, dict):
        raise DataError(f"{where}: should be a mapping, but is {_short(data)}")
    value = data.get(key)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise DataError(f"{where}: {key} is {'missing' if key not in data else 'wrong: ' + _short(value)}")
    return value


def number(value: Any, where: str) -> float:
    """Return a number that is neither infinite nor too large for a place in an image."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _TOO_LARGE:
        raise DataError(f"{where}: should be a number, but is {_short(value)}")
    return float(value)


def image_size(height: Any, width: Any, where: str) -> tuple[int, int]:
    """Return (height, width), whole numbers above 0 within the pixel limit."""
    for side in (height, width):
        if not isinstance(side, int | float) or isinstance(side, bool) or not 1 <= side < 2**31 or side != int(side):
            raise DataError(f"{where}: the image's size is wrong: {_short(width)} x {_short(height)}")
    size = (int(height), int(width))
    require_within_limit(where, size)
    return size


def points(values: Any, where: str) -> list[tuple[float, float]]:
    """Return a list of (x, y) from `[[x, y], …]`."""
    if not isinstance(values, list):
        raise DataError(f"{where}: points should be a list, but are {_short(values)}")
    pairs = []
    for pair in values:
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) < 2:
            raise DataError(f"{where}: a point should be [x, y], but is {_short(pair)}")
        pairs.append((number(pair[0], where), number(pair[1], where)))
    return pairs


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "…"
