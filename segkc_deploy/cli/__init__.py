"""The command line: one file a command."""

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
from segkc_deploy.error_messages import one_line_errors


def main() -> None:
    """Run the command line; a mistake of the user's ends in one line on stderr and exit code 2."""
    with one_line_errors():
        app()
