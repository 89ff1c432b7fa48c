"""The typer application. Heavy imports belong inside a command's body: `--help` has to answer at once."""

import typer

app = typer.Typer(
    name="segkc-deploy",
    help="Co-train a senior and a junior segmentation network, ship the junior, and prove what was shipped.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
