"""`segkc-deploy convert`: annotations of other tools into PNG masks of class ids."""

from pathlib import Path
from typing import Annotated

import typer

from segkc_deploy.cli.app import app


@app.command("convert")
def convert_command(
    source: Annotated[
        Path, typer.Argument(help="A data spec, a folder that holds one or that `init` understands, or a zip.")
    ],
    out: Annotated[Path, typer.Option(help="The folder for `masks/` and `data.yaml`.")],
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Write into a folder that is not empty; replaces files of the same names."),
    ] = False,
) -> None:
    """Write masks and annotations of any format that is read as PNG masks of class ids, with a data spec.

    COCO, YOLO, labelme, CVAT, Label Studio, Supervisely and RGB masks; see docs/data.md. Exits with 2 when a mask could
    not be used.

    Example: `segkc-deploy convert exports/coco --out converted`
    """
    from segkc_deploy.data.convert import convert, open_source
    from segkc_deploy.errors import DataError
    from segkc_deploy.prediction_files import prepare_folder

    prepare_folder(out, overwrite)
    spec, remarks = open_source(source, out)
    for remark in remarks:
        typer.echo(remark)
    written, left_out = convert(spec, out)
    typer.echo(f"{written} masks written to {out / 'masks'}; the data spec is {out / 'data.yaml'}")
    if left_out:
        raise DataError(f"{left_out} of {written + left_out} masks were left out (named above)")
