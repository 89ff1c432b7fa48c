"""Commands as one types them: the one that is running, for manifests and reports, and those that messages name."""

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


def suggested_command(*words: object) -> str:
    """Return the `segkc-deploy` command of these words as one would type it: paths with spaces are quoted."""
    return shlex.join(["segkc-deploy", *map(str, words)])
