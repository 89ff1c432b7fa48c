"""Which charts a report of trainings has: one for every value that some run recorded, in sections."""

from collections.abc import Sequence
from dataclasses import dataclass

from segkc_deploy.benchmarks.report.trainings.run import NETWORKS, TrainingRun
from segkc_deploy.benchmarks.report.trainings.text import network_title

_MIOU, _LOSS, _CHOICE, _PACE = (
    "mIoU over steps",
    "Loss terms",
    "Pseudo-labels and gates",
    "Learning rate, gradients and pace",
)

#: Sections in the order of the page, with what a reader has to know of each.
_ABOUT = {
    _MIOU: "Percent, on the validation images, at every validation.",
    _LOSS: "Before weighting; the total is the weighted sum that is minimized. Means over the steps since the record"
    " before.",
    _CHOICE: "Mask ratio: the share of unlabeled pixels whose pseudo-label counts. Gates: how much of the junior's"
    " features the senior takes in, by level.",
    _PACE: "Learning rate of the backbones; norm of the gradients before clipping, and under FP16 the steps that"
    " were skipped because they overflowed; images of both sets per second; peak memory of the process, or of the GPU.",
}

_TITLES = {
    "loss": "total",
    "lr": "learning rate",
    "images_per_s": "images per second",
    "gradient_norm": "norm of the gradients",
    "memory_mib": "peak memory (MiB)",
}


@dataclass(frozen=True)
class Chart:
    """One chart: all runs that have `name` among their `curves` (`training` or `validation`).

    `log` says whether it follows the switch for a logarithmic axis, `smooth` whether it follows the smoothing; `low`
    and `high` are where its axis has to begin and end, if anywhere.
    """

    id: str
    name: str
    title: str
    curves: str
    log: bool = False
    smooth: bool = False
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Section:
    """Charts of one kind, and what a reader has to know of them."""

    title: str
    about: str
    charts: list[Chart]


def chart_sections(runs: Sequence[TrainingRun]) -> list[Section]:
    """Return the sections that have charts."""
    sections: dict[str, list[Chart]] = {title: [] for title in _ABOUT}
    for network in NETWORKS:
        if any(f"miou_{network}" in run.validation.values for run in runs):
            chart = Chart(f"miou-{network}", f"miou_{network}", network_title(network), "validation")
            sections[_MIOU].append(chart)
    names = dict.fromkeys(name for run in runs for name in run.training.values)
    for place, name in enumerate(sorted(names, key=_order)):
        title, chart = _training_chart(f"training-{place}", name)
        sections[title].append(chart)
    return [Section(title, _ABOUT[title], charts) for title, charts in sections.items() if charts]


def _order(name: str) -> tuple[bool, str]:
    """The total first, then by name, so that what belongs together stands together."""
    return name != "loss", name


def _training_chart(identifier: str, name: str) -> tuple[str, Chart]:
    """Return the section of a training's value, and its chart."""
    title = _TITLES.get(name, name.replace("_", " "))
    if name in ("images_per_s", "gradient_norm", "skipped_steps"):
        return _PACE, Chart(identifier, name, title, "training", smooth=True, low=0)
    if name.startswith("mask_ratio_"):
        return _CHOICE, Chart(identifier, name, title, "training", smooth=True, low=0, high=1)
    if name.startswith("gate_"):
        return _CHOICE, Chart(identifier, name, title, "training", smooth=True, low=0)
    if name in ("lr", "memory_mib"):
        return _PACE, Chart(identifier, name, title, "training", low=0)
    return _LOSS, Chart(identifier, name, title, "training", log=True, smooth=True)
