"""MkDocs hook: the site's page of commands shows the arguments and options of each, as `--help` does.

They are read from the program when the site is built, so no copy of them can become outdated.
"""

import re

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page
from typer.main import get_command

from segkc_deploy.cli import app

#: What a value is called, by the name of its type in Python; choices are shown as they are.
_VALUES = {"path": "PATH", "str": "TEXT", "int": "N", "int range": "N", "float": "N", "float range": "N"}


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Append the reference of every command to `commands.md`; leave the other pages as they are."""
    if page.file.src_uri != "commands.md":
        return markdown
    commands = get_command(app).commands  # type: ignore[attr-defined]
    return "\n\n".join([markdown, *(_reference(name, command) for name, command in sorted(commands.items()))])


def _reference(name: str, command: click.Command) -> str:
    """Return a command's section: its usage, its help, and a table of its arguments and options."""
    context = click.Context(command, info_name=f"segkc-deploy {name}")
    records = [record for parameter in command.params if (record := parameter.get_help_record(context))]
    rows = [f"| `{_with_plain_value(names)}` | {_cell(text)} |" for names, text in records]
    table = "\n".join(["| argument or option | meaning |", "| :-- | :-- |", *rows])
    usage = " ".join(command.collect_usage_pieces(context))
    return f"## {name}\n\n```\nsegkc-deploy {name} {usage}\n```\n\n{command.help or ''}\n\n{table}"


def _with_plain_value(names: str) -> str:
    """Return names such as `--out <path>` with a value that means something without Python: `--out PATH`."""
    match = re.fullmatch(r"(.*) <(?:list\[)?(.*?)\]?>", names)
    if match is None:
        return names
    name, value = match.groups()
    # Arguments need no type beside their name; those of options say what to give.
    return f"{name} {_VALUES.get(value.lower(), value)}" if name.startswith("-") else name


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
