"""The command that is running, as it is written into manifests and reports."""

import shlex
import sys
from pathlib import Path


def command_line() -> str:
    """Return the running command as one would type it; `python -m segkc_deploy` reads as `segkc-deploy`.

    Of a file name that is not UTF-8 the bytes are written as escapes.
    """
    program = Path(sys.argv[0]).name
    command = shlex.join(["segkc-deploy" if program == "__main__.py" else program, *sys.argv[1:]])
    return command.encode(errors="backslashreplace").decode()
