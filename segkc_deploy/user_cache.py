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
        return _temporary() / "segkc-deploy" / purpose


def _temporary() -> Path:
    """Return a folder of this user's alone, the same one each time: what is cached is trusted."""
    folder = Path(tempfile.gettempdir()) / f"segkc-deploy-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder if folder.lstat().st_uid == os.getuid() else Path(tempfile.mkdtemp(prefix="segkc-deploy-"))
