"""`segkc-deploy pseudo-label`: a run's masks of unlabeled images, for any trainer."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from segkc_deploy.cli.app import app


@app.command("pseudo-label")
def pseudo_label_command(
    run: Annotated[Path, typer.Argument(help="Run directory of `segkc-deploy train`.")],
    out: Annotated[Path, typer.Option(help="The folder for `masks/`, `pseudo-label.json` and `data.yaml`.")],
    source: Annotated[
        str | None,
        typer.Option(
            help="An image, a folder, or a glob pattern in quotes.", show_default="the data spec's unlabeled images"
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Data spec (YAML) whose validation images choose the threshold.", show_default="the run's own"
        ),
    ] = None,
    role: Annotated[
        Literal["junior", "senior"] | None,
        typer.Option(help="Which network labels.", show_default="senior, where the run has one"),
    ] = None,
    precision: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=1, help="Share of the kept pixels that is to be right, class by class.", show_default="0.95"
        ),
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Keep pixels from this softmax probability on, instead of by --precision."),
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where it runs.")] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an earlier call was ended, with the thresholds it chose.")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Write into a folder that is not empty; deletes the masks written there."),
    ] = False,
) -> None:
    """Write masks that a run's network predicts, as PNG files of class ids; pixels it is unsure of are ignored.

    Example: `segkc-deploy pseudo-label runs/a --source photos --out pseudo --precision 0.95`

    How sure it has to be is chosen on the validation images, so that the wanted share of the kept pixels is right.
    """
    from rich.console import Console

    from segkc_deploy.cli.extras import needs_extra
    from segkc_deploy.errors import DataError
    from segkc_deploy.invocation import suggested_command

    with needs_extra("train"):
        from segkc_deploy.training.pseudo_label.pseudo_masks import Request, pseudo_label
        from segkc_deploy.training.pseudo_label.summary import sentences, threshold_table

    request = Request(run, out, source, data, role, precision, confidence, device, resume, overwrite)
    written = pseudo_label(request)
    Console(highlight=False, markup=False).print(threshold_table(written))
    for sentence in sentences(written):
        typer.echo(sentence)
    typer.echo(f"masks: {out / 'masks'}; thresholds and their precision: {out / 'pseudo-label.json'}")
    typer.echo(f"next: {suggested_command('train', '--data', written.data, '--recipe', 'RECIPE', '--out', 'RUN')}")
    problems = []
    if written.left_out:
        problems.append(f"{len(written.left_out)} of {len(written.left_out) + written.masks} images were left out")
    if written.bad_masks:
        problems.append(f"{len(written.bad_masks)} masks of the data spec could not be used")
    if problems:
        reasons = "".join(f"\n  {reason}" for reason in (*written.left_out, *written.bad_masks))
        raise DataError(f"{' and '.join(problems)}; replace or remove them, and add --resume:{reasons}")
