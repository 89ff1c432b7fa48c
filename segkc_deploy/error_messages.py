"""Turns errors into one line on stderr and an exit code; nothing else does."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from segkc_deploy.broken_imports import explain
from segkc_deploy.errors import SegKCError


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the process in one line and an exit code, 2 for a user's mistake, where the block raises a known error.

    A bug keeps its traceback.
    """
    try:
        yield
    except SegKCError as error:
        _end(str(error), error.exit_code)
    except ImportError as error:
        if (fix := explain(error)) is None:
            raise
        _end(fix, 2)
    except OSError as error:
        # A folder that may not be written, a disk that is full: the user can fix these. Anything else is a bug.
        _end(f"{error.filename}: {error.strerror}" if error.filename else str(error), 2)


def _end(message: str, code: int) -> None:
    from rich.markup import escape

    from segkc_deploy.progress import console

    console.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
    sys.exit(code)
