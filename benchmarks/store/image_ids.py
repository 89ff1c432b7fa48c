"""Names of files in JSON results, which hold Unicode alone: Linux has file names that are none."""

from pathlib import Path

from segkc_deploy.errors import ConfigError


def printable(image_id: str) -> str:
    """Return an image's id with every byte that is not UTF-8 as an escape, `\\udce9`."""
    return image_id.encode("utf-8", "backslashreplace").decode()


def require_unicode(*paths: Path) -> None:
    """Raise ConfigError for a path that a result cannot hold."""
    for path in paths:
        if printable(str(path)) != str(path):
            raise ConfigError(f"{printable(str(path))}: its name is not UTF-8, which results cannot hold; rename it")
