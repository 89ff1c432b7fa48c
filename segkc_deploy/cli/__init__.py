"""The command line: one file a command; errors become exit codes here and nowhere else."""

import sys

from segkc_deploy.cli import benchmark, check, demo, evaluate, export, predict, train  # noqa: F401  (each adds itself)
from segkc_deploy.cli.app import app
from segkc_deploy.errors import SegKCError


def main() -> None:
    """Run the command line; a mistake of the user's ends in one line on stderr and exit code 2."""
    try:
        app()
    except SegKCError as error:
        from segkc_deploy.progress import console

        console.print(f"[bold red]error:[/] {_escaped(str(error))}", soft_wrap=True)
        sys.exit(error.exit_code)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
