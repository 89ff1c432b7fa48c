"""Every number that a row holds, by a name: `miou`, `iou.road`, `latency.p50`, `throughput.4.images_per_s`.

The names are the schema's own, without `accuracy` and `total`, which go without saying.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from segkc_deploy.benchmarks.schema import BatchPoint, Row

_SILENT = ("accuracy", "total")
_TIMED = ("latency", "latency_cuda_graph", "roofline", "throughput", "sustained", "cold_start_s")
_PERCENTAGES = ("iou", "pixel_accuracy", "agreement")
_UNITS = {
    "_mib": " MiB",
    "images_per_s": " images/s",
    "_s": " s",
    "seconds": " s",
    "bytes": " bytes",
    "watts": " W",
    "joules_per_image": " J",
    "efficiency": " %",
    "drift": " %",
}


@dataclass(frozen=True)
class RowMetric:
    """One number of a row: its name, and the fields that lead to it, the batch size or the class's index among them.

    Whole numbers are metrics in the row itself alone (`parameters`); further in they say how something was measured.
    """

    name: str
    path: tuple[str | int, ...]

    @property
    def is_timing(self) -> bool:
        """Whether it says how fast a row is, which depends on the machine."""
        return self.path[0] in _TIMED

    @property
    def is_memory(self) -> bool:
        """Whether it says how much memory a row takes, which depends on the machine."""
        return self.path[0] == "memory"

    @property
    def is_accuracy(self) -> bool:
        """Whether it depends on the images and their classes."""
        return self.path[0] == "accuracy"

    @property
    def is_percentage(self) -> bool:
        """Whether it lies between 0 and 100."""
        return self.is_accuracy and str(self.path[1]).endswith(_PERCENTAGES)

    @property
    def unit(self) -> str:
        """What follows its value, with the space before it."""
        leaf = str(self.path[-1])
        named = next((text for ending, text in _UNITS.items() if leaf.endswith(ending)), "")
        rest = " ms" if self.is_timing and leaf != "cv" else ""
        return " %" if self.is_percentage else named or rest

    def of(self, row: Row) -> float | None:
        """Return its value in `row`, None where it was not measured."""
        found: Any = row
        for step in self.path:
            if isinstance(found, list) and found and isinstance(found[0], BatchPoint):
                found = next((point for point in found if point.batch == step), None)
            elif isinstance(found, list | tuple):
                found = found[int(step)] if int(step) < len(found) else None
            else:
                found = getattr(found, str(step))
            if found is None:
                return None
        return float(found)


def row_metrics(classes: Sequence[str], batches: Sequence[int | str]) -> dict[str, RowMetric]:
    """Return all metrics of a row by their names, for these class names and batch sizes."""
    metrics = [RowMetric(".".join(names), path) for names, path in _metrics_of(Row, classes, batches)]
    return {metric.name: metric for metric in metrics}


_Path = tuple[tuple[str, ...], tuple[str | int, ...]]


def _metrics_of(model: type[BaseModel], classes: Sequence[str], batches: Sequence[int | str]) -> Iterator[_Path]:
    """Yield (parts of the name, path) of each number below `model`."""
    for field, information in model.model_fields.items():
        kind = _without_none(information.annotation)
        if kind is int and model is not Row:
            continue
        for names, path in _metrics_in(kind, classes, batches):
            yield (names if field in _SILENT else (field, *names)), (field, *path)


def _metrics_in(kind: Any, classes: Sequence[str], batches: Sequence[int | str]) -> Iterator[_Path]:
    if kind in (int, float):
        yield (), ()
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        yield from _metrics_of(kind, classes, batches)
    elif get_args(kind) == (float, float):
        yield from ((("low",), (0,)), (("high",), (1,)))
    elif get_origin(kind) is list:
        (item,) = get_args(kind)
        if item is BatchPoint:
            for batch in batches:
                for names, path in _metrics_of(item, classes, batches):
                    yield (str(batch), *names), (batch, *path)
        elif _without_none(item) is float and item is not float:  # null for a class that does not occur
            for index, name in enumerate(classes):
                yield (name,), (index,)


def _without_none(kind: Any) -> Any:
    """Return what an annotation says besides None and pydantic's remarks."""
    if get_origin(kind) is Annotated:
        return _without_none(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        kinds = [part for part in get_args(kind) if part is not NoneType]
        return _without_none(kinds[0]) if len(kinds) == 1 else kind
    return kind
