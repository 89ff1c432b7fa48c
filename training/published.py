"""Published numbers, and which recipe is to be compared with which of them."""

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from segkc_deploy.validation import load_yaml, validate


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Section):
    """Where numbers come from: its name with the arXiv number or DOI, and the address."""

    title: str
    url: str = Field(pattern=r"^https://")


class Row(_Section):
    """One published network: millions of parameters (None where not stated), and mIoU in percent by partition."""

    method: str
    networks: str
    params_m: float | None = Field(default=None, gt=0)
    source: str
    miou: dict[str, Annotated[float, Field(gt=0, le=100)]] = Field(min_length=1)
    note: str = ""


class DataSet(_Section):
    """A data set, its partitions from few labels to many, and the numbers on it."""

    title: str
    layout: str
    partitions: list[str]
    rows: list[Row]


class Published(_Section):
    """All published numbers. `data_sets` is keyed by what the names of the recipes for a data set end in."""

    sources: dict[str, Source]
    data_sets: dict[str, DataSet]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for key, data_set in self.data_sets.items():
            for row in data_set.rows:
                if row.source not in self.sources:
                    raise ValueError(f"data_sets.{key}: {row.method} names the source {row.source!r}, which is missing")
                if unknown := set(row.miou) - set(data_set.partitions):
                    raise ValueError(f"data_sets.{key}: {row.method} has the unknown partition {min(unknown)!r}")
        return self

    def data_set_key(self, recipe: str) -> str | None:
        """Return the data set whose protocol the recipe of this name follows (`voc`), or None for any other recipe."""
        return next((key for key in self.data_sets if recipe.endswith(f"-{key}")), None)

    def compare_with(self, recipe: str) -> DataSet | None:
        """Return the published rows that the recipe of this name is to be compared with."""
        key = self.data_set_key(recipe)
        return self.data_sets[key] if key else None


@cache
def published() -> Published:
    """Return the published numbers that ship with the package."""
    path = Path(str(resources.files("segkc_deploy.training") / "published.yaml"))
    return validate(Published, load_yaml(path), path)
