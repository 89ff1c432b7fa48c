"""Trainings that differ by seed alone, as one row: scores with the seeds' spread, and differences to a reference."""

import re
import statistics
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from pydantic import BaseModel

from segkc_deploy.benchmarks.report.seeds import SUPERVISED, paired
from segkc_deploy.benchmarks.report.trainings.run import NETWORKS, TrainingRun
from segkc_deploy.errors import ConfigError

#: Texts of a row's configuration by key; a key that the row does not have is missing.
Configuration = dict[str, str]


class Score(BaseModel):
    """mIoU in percent at the last step, by seed; `deviation` is the sample standard deviation, null for one seed."""

    by_seed: dict[int, float]
    mean: float
    deviation: float | None


class Difference(BaseModel):
    """A row's mIoU less the reference row's, in points, paired by seed.

    `interval` is the 95% interval of the mean by Student's t; null, like the significance `not judged`, below 3 seeds.
    """

    by_seed: dict[int, float]
    mean: float
    deviation: float | None
    interval: tuple[float, float] | None
    significance: str


class TrainingRow(BaseModel):
    """One line of the ablation table. Unfinished runs are among `runs` and not in the scores.

    `shipped` is the copy of the junior that its runs hand to export, a key of `scores`; `differing` is what of its
    configuration is not the same in all rows.
    """

    name: str
    runs: list[str]
    recipe: str
    method: str
    shipped: str
    unfinished: int
    scores: dict[str, Score]
    differences: dict[str, Difference]
    differing: Configuration


class TrainingTable(BaseModel):
    """All rows, the one that differences are to, and the keys in which configurations differ.

    `keys` have different values in rows that have them; `partial_keys` are in some rows alone, there with one value.
    """

    reference: str
    rows: list[TrainingRow]
    keys: list[str]
    partial_keys: list[str]


def training_table(runs: Sequence[TrainingRun], reference: str | None = None) -> TrainingTable:
    """Group runs by their configuration and compare the groups.

    Args:
        runs: at least one.
        reference: a row's or a run's name; by default a supervised row, of several the one on the data of most rows,
            else the first row.

    Raises:
        ConfigError: nothing is called `reference`.
    """
    order: dict[str, int] = {}
    for run in runs:
        order.setdefault(_key(run), len(order))
    ordered = sorted(runs, key=lambda run: order[_key(run)])
    groups = [list(group) for _, group in groupby(ordered, key=_key)]
    names = _row_names(groups)
    chosen = _reference(groups, names, reference)
    base = {network: _by_seed(groups[chosen], network) for network in NETWORKS}
    keys, partial_keys = _differing_keys([group[0].configuration for group in groups])
    rows = [
        TrainingRow(
            name=name,
            runs=[run.name for run in group],
            recipe=group[0].recipe,
            method=group[0].method,
            shipped="junior_ema" if group[0].shipped == "ema" else "junior",
            unfinished=sum(run.state != "finished" for run in group),
            scores=_scores(group),
            differences=_differences(group, base) if group is not groups[chosen] else {},
            differing={key: text for key, text in group[0].configuration.items() if key in (*keys, *partial_keys)},
        )
        for name, group in zip(names, groups, strict=True)
    ]
    return TrainingTable(reference=names[chosen], rows=rows, keys=keys, partial_keys=partial_keys)


def _key(run: TrainingRun) -> str:
    return repr(sorted(run.configuration.items()))


def _row_names(groups: Sequence[Sequence[TrainingRun]]) -> list[str]:
    """Name each row by what its runs' names are without the seed, or else by its recipe."""
    names = []
    for group in groups:
        stems = {_without_seed(run) for run in group}
        names.append(stems.pop() if len(stems) == 1 else group[0].recipe)
    return [
        f"{name} ({group[0].name})" if names.count(name) > 1 else name
        for name, group in zip(names, groups, strict=True)
    ]


def _without_seed(run: TrainingRun) -> str:
    return re.sub(rf"([-_ ]|[-_. ](seed|s)|seed)[-_=.]?{run.seed}$", "", run.name) or run.name


def _reference(groups: Sequence[Sequence[TrainingRun]], names: Sequence[str], wanted: str | None) -> int:
    """Return the place of the reference row."""
    if wanted is not None:
        if wanted in names:
            return names.index(wanted)
        for place, group in enumerate(groups):
            if wanted in [run.name for run in group]:
                return place
        raise ConfigError(f"--reference {wanted!r}: no row of that name; rows: {', '.join(names)}")
    data = [_data(group) for group in groups]
    supervised = [place for place, group in enumerate(groups) if group[0].method == SUPERVISED]
    return max(supervised, key=lambda place: data.count(data[place]), default=0)


def _data(group: Sequence[TrainingRun]) -> str:
    return group[0].configuration.get("data", "")


def _by_seed(group: Sequence[TrainingRun], network: str) -> dict[int, float]:
    """Return a network's mIoU by seed; of several runs with one seed, their mean."""
    found: dict[int, list[float]] = {}
    for run in group:
        if run.state == "finished" and network in run.miou:
            found.setdefault(run.seed, []).append(run.miou[network])
    return {seed: statistics.fmean(found[seed]) for seed in sorted(found)}


def _scores(group: Sequence[TrainingRun]) -> dict[str, Score]:
    by_network = {network: _by_seed(group, network) for network in NETWORKS}
    return {
        network: Score(by_seed=values, **_mean_and_deviation(list(values.values())))
        for network, values in by_network.items()
        if values
    }


def _differences(group: Sequence[TrainingRun], base: dict[str, dict[int, float]]) -> dict[str, Difference]:
    found = {}
    for network in NETWORKS:
        ours = _by_seed(group, network)
        difference = paired(ours, base[network])
        if difference:
            seeds = sorted(ours.keys() & base[network].keys())
            found[network] = Difference(
                by_seed=dict(zip(seeds, difference.values, strict=True)),
                **_mean_and_deviation(difference.values),
                interval=difference.interval,
                significance=difference.significance,
            )
    return found


def _mean_and_deviation(values: Sequence[float]) -> dict[str, Any]:
    return {
        "mean": statistics.fmean(values),
        "deviation": statistics.stdev(values) if len(values) > 1 else None,
    }


def _differing_keys(configurations: Sequence[Configuration]) -> tuple[list[str], list[str]]:
    keys, partial = [], []
    for key in dict.fromkeys(key for configuration in configurations for key in configuration):
        values = [configuration.get(key) for configuration in configurations]
        if len(set(values) - {None}) > 1:
            keys.append(key)
        elif None in values:
            partial.append(key)
    return keys, partial
