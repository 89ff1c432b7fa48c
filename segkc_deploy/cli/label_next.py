"""`segkc-deploy label-next`: which unlabeled images to label next."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from segkc_deploy.cli.app import app


@app.command("label-next")
def label_next_command(
    run: Annotated[Path, typer.Argument(help="Run directory of `segkc-deploy train`.")],
    out: Annotated[Path, typer.Option(help="The folder for the lists, the scores and the contact sheet.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Data spec (YAML) whose unlabeled images are ranked.", show_default="the run's own"),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Rank the images of this folder instead.", metavar="FOLDER")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many images to choose.")] = 20,
    by: Annotated[
        Literal["disagreement", "entropy", "both"] | None,
        typer.Option(
            help="Pixels where junior and senior differ, how unsure the junior is, or differing × unsure.",
            show_default="both; entropy for a run without a senior",
        ),
    ] = None,
    diversity: Annotated[
        float, typer.Option(min=0, help="0 takes the highest scores; more avoids images that look alike.")
    ] = 1.0,
    masks: Annotated[
        Path | None,
        typer.Option(help="True masks of some of the images: tells how well the scores find errors.", metavar="FOLDER"),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            help="Write tasks with the networks' masks to correct: cvat, label-studio or fiftyone; repeatable.",
            metavar="TOOL",
        ),
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where it runs.")] = "auto",
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Write into a folder that is not empty; deletes an earlier choice there."),
    ] = False,
) -> None:
    """Choose the unlabeled images whose labels should help most, as a list and as a page of pictures.

    Example: `segkc-deploy label-next runs/a --count 20 --out next --tasks cvat`
    """
    from rich.console import Console

    from segkc_deploy.cli.extras import needs_extra
    from segkc_deploy.errors import DataError

    with needs_extra("train"):
        from segkc_deploy.training.label_next.next_labels import Request, label_next
        from segkc_deploy.training.label_next.summary import comparison_table

    request = Request(run, out, data, images, masks, count, by, diversity, device, overwrite, tuple(tasks or ()))
    choice = label_next(request)
    for sentence in choice.sentences:
        typer.echo(sentence)
    if choice.comparison is not None:
        Console(highlight=False, markup=False).print(comparison_table(choice.comparison))
    typer.echo(f"list: {out / 'label-next.txt'}; every image's scores: {out / 'scores.csv'}")
    typer.echo(f"contact sheet: {out / 'index.html'}")
    for step in choice.tasks:
        typer.echo(step)
    typer.echo(f"next: {choice.next_step}")
    problems = []
    if choice.unreadable:
        problems.append(f"{choice.unreadable} of {choice.unreadable + choice.ranked} images could not be read")
    if choice.bad_masks:
        problems.append(f"{choice.bad_masks} masks of --masks could not be used")
    if problems:
        raise DataError(f"{' and '.join(problems)} (named above); replace or remove them")
