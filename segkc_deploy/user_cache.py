"""Where this user keeps what costs time to make and may be deleted at any time."""

import os
from pathlib import Path


def cache_folder(purpose: str) -> Path:
    """Return the folder for `purpose`; it need not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segkc-deploy" / purpose
