"""`segkc-deploy init`: a data spec for a folder of images and masks or annotations."""

from pathlib import Path
from typing import Annotated

import typer

from segkc_deploy.cli.app import app


@app.command("init")
def init_command(
    folder: Annotated[Path, typer.Argument(help="The folder with the images and their masks or annotations.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The file to write; FOLDER/data.yaml by default.", metavar="FILE")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Look at a folder and write the data spec for it, saying what was guessed.

    Example: `segkc-deploy init exports/cvat`
    """
    from segkc_deploy.data.write_spec import write_spec
    from segkc_deploy.invocation import suggested_command

    path = out or folder / "data.yaml"
    for remark in write_spec(folder, path, overwrite):
        typer.echo(remark)
    typer.echo(f"written: {path}; look it over, then: {suggested_command('check', '--data', path)}")
