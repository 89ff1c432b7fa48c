"""The command that is running, as it is written into manifests and reports."""

import shlex
import sys
from pathlib import Path


def command_line() -> str:
    """Return the running command as one would type it; `python -m segkc_deploy` reads as `segkc-deploy`."""
    program = Path(sys.argv[0]).name
    return shlex.join(["segkc-deploy" if program == "__main__.py" else program, *sys.argv[1:]])
