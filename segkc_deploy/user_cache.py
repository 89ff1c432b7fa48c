"""Where this user keeps what costs time to make and may be deleted at any time."""

import os
import tempfile
from pathlib import Path


def cache_folder(purpose: str) -> Path:
    """Return the folder for `purpose`; it need not exist yet. Users without a home, as in containers, have one too."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "segkc-deploy" / purpose
    try:
        return Path.home() / ".cache" / "segkc-deploy" / purpose
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"segkc-deploy-{os.getuid()}" / purpose
