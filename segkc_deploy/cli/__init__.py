"""The command line: one file a command; errors become exit codes here and nowhere else."""

import sys

from segkc_deploy.broken_imports import explain
from segkc_deploy.cli import (  # noqa: F401  (each adds itself)
    benchmark,
    card,
    check,
    compare,
    convert,
    demo,
    doctor,
    evaluate,
    export,
    hub,
    import_weights,
    init,
    label_next,
    predict,
    pseudo_label,
    recipes,
    report,
    serve,
    train,
)
from segkc_deploy.cli.app import app
from segkc_deploy.errors import SegKCError


def main() -> None:
    """Run the command line; a mistake of the user's ends in one line on stderr and exit code 2."""
    try:
        app()
    except SegKCError as error:
        _tell(str(error))
        sys.exit(error.exit_code)
    except ImportError as error:
        if (fix := explain(error)) is None:
            raise
        _tell(fix)
        sys.exit(2)
    except OSError as error:
        # A folder that may not be written, a disk that is full: the user can fix these. Anything else is a bug.
        _tell(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        sys.exit(2)


def _tell(message: str) -> None:
    from rich.markup import escape

    from segkc_deploy.progress import console

    console.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
