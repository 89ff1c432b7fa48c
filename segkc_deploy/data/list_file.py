"""Lists of images, as `ids` in a data spec names them, written."""

from collections.abc import Iterable
from pathlib import Path

from segkc_deploy import atomic
from segkc_deploy.errors import DataError


def write_list(path: Path, lines: Iterable[str]) -> str:
    """Write a list, one line an image, and return its name.

    Raises:
        DataError: the name of an image is no text, so that a list, which is UTF-8, cannot hold it.
    """
    text = "".join(f"{line}\n" for line in lines)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        line = text[text.rfind("\n", 0, error.start) + 1 :].partition("\n")[0]
        raise DataError(f"{path}: cannot list {line!r}, a file name that is not UTF-8; rename the file") from None
    atomic.write_text(path, text)
    return path.name
