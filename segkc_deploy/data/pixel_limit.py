"""The largest image that is decoded: one limit for every format, checked against the header before decoding."""

import os
from pathlib import Path

from segkc_deploy.errors import ConfigError, DataError

#: The environment variable that replaces `DEFAULT_PIXEL_LIMIT`.
VARIABLE = "SEGKC_DEPLOY_MAX_PIXELS"

#: 16384 x 16384; such an image takes 0.8 GB as RGB.
DEFAULT_PIXEL_LIMIT = 2**28

#: What OpenCV decodes at most in all, and libpng along a side.
_LARGEST_LIMIT = 2**30
_LONGEST_SIDE = 1_000_000


def pixel_limit() -> int:
    """Return how many pixels an image may have.

    Raises:
        ConfigError: the environment variable holds no number of pixels.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return DEFAULT_PIXEL_LIMIT
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:12]) <= _LARGEST_LIMIT:
        raise ConfigError(f"{VARIABLE}: should be a number of pixels from 1 to {_LARGEST_LIMIT}, but is {text!r}")
    return int(text)


def require_within_limit(path: Path | str, size: tuple[int, int]) -> None:
    """Raise a DataError that names `path` when an image of `size` (height, width) is larger than the limit."""
    height, width = size
    limit = pixel_limit()
    if height * width > limit:
        raise DataError(
            f"{path}: {width}x{height} pixels, more than the limit of {limit};"
            f" cut it into tiles, or set the environment variable {VARIABLE}"
        )
    if max(size) > _LONGEST_SIDE:
        raise DataError(f"{path}: {width}x{height} pixels, but a side may have {_LONGEST_SIDE}; cut it into tiles")
