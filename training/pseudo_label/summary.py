"""What `pseudo-label` says of its masks: a table of the thresholds, and sentences."""

import math

from rich.table import Table

from segkc_deploy.training.pseudo_label.confidence import ENOUGH_PIXELS, overall
from segkc_deploy.training.pseudo_label.pseudo_masks import PseudoLabels

#: A class whose held-out precision is lower than the wanted one by more is named.
_TOLERANCE = 0.05


def threshold_table(written: PseudoLabels) -> Table:
    """Return the thresholds, their precision on the validation images, and what the masks hold."""
    calibration = written.calibration
    table = Table(title=f"Pseudo-labels of the {written.role}", title_justify="left")
    table.add_column("class")
    for title in ("threshold", "precision %", "held out %", "kept %", "of the masks %"):
        table.add_column(title, justify="right")
    count = written.labels.num_classes
    measured = calibration.qualities or (None,) * count
    held_out = calibration.held_out or (None,) * count
    shares = (written.kept / max(written.pixels, 1)).tolist()
    for name, value, quality, other, share in zip(
        written.labels.names, calibration.thresholds.values, measured, held_out, shares, strict=True
    ):
        table.add_row(
            name,
            f"{value:.4f}" if math.isfinite(value) else "none",
            _percent(quality.precision if quality else None),
            _percent(other.precision if other else None),
            _percent(quality.kept_share if quality else None),
            _percent(share),
        )
    table.add_section()
    together = overall(calibration.qualities) if calibration.qualities else None
    together_held_out = overall(calibration.held_out) if calibration.held_out else None
    table.add_row(
        "all",
        "",
        _percent(together.precision if together else None),
        _percent(together_held_out.precision if together_held_out else None),
        _percent(together.kept_share if together else None),
        _percent(sum(shares)),
        style="bold",
    )
    return table


def sentences(written: PseudoLabels) -> list[str]:
    """Say how the thresholds were found and what became of the images."""
    calibration, names = written.calibration, written.labels.names
    said = []
    if calibration.images:
        said.append(
            f"precision and kept: of the pixels of {calibration.images} validation images, by predicted class;"
            " held out: with thresholds that the other images gave"
        )
    chosen = any(calibration.thresholds.own)
    shared = [name for name, own in zip(names, calibration.thresholds.own, strict=True) if not own]
    if chosen and shared:
        said.append(
            f"fewer than {ENOUGH_PIXELS} validation pixels, so the threshold of all classes together:"
            f" {', '.join(shared)}"
        )
    never = [name for name, value in zip(names, calibration.thresholds.values, strict=True) if not math.isfinite(value)]
    if never:
        said.append(f"no confidence reaches the precision, so every pixel is ignored: {', '.join(never)}")
    if written.precision is not None and calibration.held_out:
        least = written.precision - _TOLERANCE
        lower = [
            name
            for name, quality in zip(names, calibration.held_out, strict=True)
            if quality.precision is not None and quality.precision < least
        ]
        if lower:
            said.append(
                f"the threshold does not hold on other images (held out is below {100 * least:g}%): {', '.join(lower)};"
                " these classes need more validation images, or ask for less --precision"
            )
    said.append(f"{written.masks} masks; {100 * written.kept.sum() / max(written.pixels, 1):.1f}% of the pixels kept")
    if written.empty:
        said.append(f"{written.empty} masks have no kept pixel and are not in {written.data}")
    if written.known:
        said.append(f"{written.known} images that the data spec labels or validates on were left out")
    return said


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"
