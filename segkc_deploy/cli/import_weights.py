"""`segkc-deploy import-weights`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from segkc_deploy.cli.app import app

if TYPE_CHECKING:
    from segkc_deploy.data.spec import DataSpec


@app.command("import-weights")
def import_weights_command(
    file: Annotated[Path, typer.Argument(help="The published checkpoint.")],
    out: Annotated[Path, typer.Option(help="Run directory.")],
    file_format: Annotated[Literal["unimatch-v2"], typer.Option("--format", help="Whose checkpoint.")] = "unimatch-v2",
    data: Annotated[Path | None, typer.Option(help="Data spec (YAML) that names its classes.")] = None,
    layout: Annotated[str | None, typer.Option(help="Or the data set: voc, cityscapes, ade20k, coco.")] = None,
    classes: Annotated[str | None, typer.Option(help="Or the names, as road,building,sky.")] = None,
    copy: Annotated[
        Literal["ema", "raw"] | None, typer.Option(help="Averaged weights or not; by default averaged if there are.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe with the evaluation protocol; by default the data set's published one.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the run in --out first, with its artifacts.")
    ] = False,
) -> None:
    """Turn a published checkpoint into a run directory, to evaluate, export, benchmark or start a training from.

    Example: `segkc-deploy import-weights unimatch-v2-s.pth --layout voc --out runs/imported`
    """
    from segkc_deploy.cli.extras import needs_extra
    from segkc_deploy.invocation import suggested_command

    with needs_extra("train"):
        from segkc_deploy.training.import_run import Classes, import_weights, usual_recipe
        from segkc_deploy.training.recipe_file import load_recipe

    where, spec = _spec_of_classes(data, layout, classes)
    imported = import_weights(
        file,
        file_format,
        out,
        Classes(spec.labels(), where),
        load_recipe(recipe or usual_recipe(spec.layout)),
        data,
        copy,
        overwrite,
    )
    metadata = imported.metadata
    kind = "EMA" if metadata.ema else "raw"
    typer.echo(
        f"imported: {out} ({metadata.network.backbone} with DPT, {imported.parameters / 1e6:.1f}M parameters,"
        f" {metadata.labels.num_classes} classes, {kind} weights)"
    )
    typer.echo(f"next: {suggested_command('eval', out, '--data', data or 'data.yaml')}")


def _spec_of_classes(data: Path | None, layout: str | None, classes: str | None) -> tuple[str, "DataSpec"]:
    """Return what names the classes, for messages, and a data spec that holds them."""
    from segkc_deploy.data.spec import DataSpec, load_data_spec
    from segkc_deploy.errors import ConfigError
    from segkc_deploy.validation import validate

    if sum(option is not None for option in (data, layout, classes)) != 1:
        raise ConfigError("a checkpoint names no classes: give one of --data, --layout and --classes")
    if data is not None:
        return str(data), load_data_spec(data)
    if layout is not None:
        where = f"--layout {layout}"
        return where, validate(DataSpec, {"layout": layout}, where)
    assert classes is not None
    return "--classes", validate(DataSpec, {"classes": [name.strip() for name in classes.split(",")]}, "--classes")
