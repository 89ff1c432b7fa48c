"""Published networks as points behind the report's own: mIoU against parameters."""

from typing import Any

from segkc_deploy.data.layouts import LAYOUTS
from segkc_deploy.labels import Labels
from segkc_deploy.training.published import DataSet, published


def published_sets(labels: Labels) -> list[dict[str, Any]]:
    """Return the published numbers that have a number of parameters, one set for each data set and partition.

    Each has `title`, `partition`, `same_classes` (whether the classes are those of `labels`) and `points` with
    `method`, `networks`, `params_m`, `miou`, `source` and `note`.
    """
    return [
        {
            "title": data_set.title,
            "partition": partition,
            "same_classes": _classes(data_set) == labels.names,
            "points": points,
        }
        for data_set in published().data_sets.values()
        for partition in data_set.partitions
        if (points := _points(data_set, partition))
    ]


def _classes(data_set: DataSet) -> tuple[str, ...]:
    return tuple(LAYOUTS[data_set.layout].classes or ())


def _points(data_set: DataSet, partition: str) -> list[dict[str, Any]]:
    return [
        {
            "method": row.method,
            "networks": row.networks,
            "params_m": row.params_m,
            "miou": row.miou[partition],
            "source": published().sources[row.source].title,
            "note": row.note,
        }
        for row in data_set.rows
        if row.params_m is not None and partition in row.miou
    ]
