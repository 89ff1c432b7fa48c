"""What `label-next` tells of its choice: in sentences, as terms with explanations, and as a table of all images."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from segkc_deploy.training.label_next.contact_sheet import MOST_SHOWN
from segkc_deploy.training.label_next.networks import RunNetworks
from segkc_deploy.training.label_next.rank import RankedImage
from segkc_deploy.training.label_next.true_errors import ERRORS, Comparison
from segkc_deploy.training.label_next.uncertainty import RANKINGS

#: The first columns of the table.
_COLUMNS = ("id", "image", "chosen", "score")


def sentences(
    networks: RunNetworks, by: str, diversity: float, scores: np.ndarray, chosen: Sequence[int]
) -> tuple[str, ...]:
    """Say how many images were chosen, by what, and how high their scores (N,) are."""
    how = {"disagreement": "disagreement", "entropy": "entropy", "both": "disagreement × entropy"}[by]
    spread = f", spread over different-looking images (diversity {diversity:g})" if diversity else ""
    told = [f"{len(chosen)} of {len(scores)} unlabeled images, by {how}{spread}."]
    if not networks.has_senior:
        told.append(
            "The run has no senior, so there is no disagreement to rank by: the junior's entropy alone decides."
        )
    told.append(
        f"Median score: {np.median(scores):.3g} of all images, {np.median(scores[list(chosen)]):.3g} of those chosen."
    )
    if len(chosen) > MOST_SHOWN:
        told.append(f"The contact sheet shows the first {MOST_SHOWN} of them.")
    return tuple(told)


def facts(run: Path, networks: RunNetworks, by: str, diversity: float) -> dict[str, str]:
    """Return what the choice was made with, as terms and their explanations."""
    metadata = networks.metadata
    ema = ", EMA weights" if metadata.ema else ""
    return {
        "networks": f"{run}: {metadata.recipe}, method {metadata.method}, step {metadata.step}{ema}",
        "score": " × ".join(RANKINGS[by]),
        "diversity": (
            f"{diversity:g}: the next image is the one with the largest score × distance^diversity; 0 takes the"
            f" highest scores. The distance is that of the {'senior' if networks.has_senior else 'junior'}'s pooled"
            " features from the closest image chosen before"
        ),
        "heat map": (
            "1 where the junior and the senior give different classes, else 0; where the image is shown smaller, the"
            " share of the pixels that differ. Its mean is the disagreement"
            if networks.has_senior
            else "the junior's entropy of each pixel, 0 to 1"
        ),
        "resolution": networks.protocol,
    }


def table(ranked: Sequence[RankedImage], scores: np.ndarray, chosen: Sequence[int], class_names: Sequence[str]) -> str:
    """Return all images as CSV, the highest of the scores (N,) first; `chosen` in it counts from 1."""
    place = {index: number for number, index in enumerate(chosen, start=1)}
    errors = sorted({name for image in ranked for name in image.errors or ()}, reverse=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(ranked[0].scores)
    writer.writerow([*_COLUMNS, *names, *errors, *(f"share {name}" for name in class_names)])
    for index in sorted(range(len(ranked)), key=lambda index: (-scores[index], index)):
        image = ranked[index]
        measured = [image.errors[name] if image.errors else "" for name in errors]
        figures = [scores[index], *(image.scores[name] for name in names), *measured, *image.class_shares]
        rounded = [round(float(figure), 6) if figure != "" else "" for figure in figures]
        writer.writerow([image.sample.id, image.sample.image, place.get(index, ""), *rounded])
    return text.getvalue()


def is_table(path: Path) -> bool:
    """Return whether a file begins as `table` does."""
    beginning = ",".join(_COLUMNS).encode()
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(beginning)) == beginning


def comparison_table(comparison: Comparison) -> Table:
    """Return the comparison as a table for the terminal."""
    drawn = Table(title=f"Scores beside the junior's true errors, {comparison.images} images", title_justify="left")
    drawn.add_column("score")
    for title in ("rank correlation, pixel error", "rank correlation, mIoU error", "pixel error of the highest %"):
        drawn.add_column(title, justify="right")
    for name, values in comparison.correlations.items():
        correlations = (f"{values[error]:.3f}" for error in ERRORS)
        drawn.add_row(name, *correlations, f"{comparison.mean_of_highest[name]:.1f}")
    drawn.add_section()
    drawn.add_row("chosen", "", "", f"{comparison.mean_of_chosen:.1f}")
    drawn.add_row("all", "", "", f"{comparison.mean_of_all:.1f}")
    return drawn
