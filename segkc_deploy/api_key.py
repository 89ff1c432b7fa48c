"""The file that holds an API key."""

from pathlib import Path

from segkc_deploy.errors import ConfigError


def read_key(path: Path) -> str:
    """Return the API key in a file: one line of ASCII characters without spaces.

    Raises:
        ConfigError: the file cannot be read, or holds no key.
    """
    try:
        key = path.read_text("utf-8", errors="replace").strip()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; write the API key into it") from None
    if not key.isascii() or len(key.split()) != 1:
        raise ConfigError(f"{path}: holds no API key; write one line of ASCII characters without spaces into it")
    return key
