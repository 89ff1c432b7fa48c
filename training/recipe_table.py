"""Recipes as people and programs read them: a table of all, one beside the published numbers, and JSON."""

import re
from collections.abc import Iterable
from typing import Any

from segkc_deploy.training.published import DataSet, published
from segkc_deploy.training.recipe import Recipe

COLUMNS = ("name", "method", "networks", "data", "crop", "batch", "schedule")


def recipe_table(recipes: Iterable[Recipe]) -> list[str]:
    """Return a line of headings and a line for each recipe, columns aligned."""
    rows = [COLUMNS, *map(recipe_cells, recipes)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(COLUMNS))]
    return [" ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def comparison(recipe: Recipe) -> list[str]:
    """Return the published rows that a recipe is to be compared with, as comment lines of a recipe file."""
    data_set = published().compare_with(recipe.name)
    return _rows_of(data_set) if data_set else ["# No published number belongs to this recipe."]


def as_json(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe, the data set whose protocol it follows (or None), and the published rows of that."""
    data_set = published().compare_with(recipe.name)
    sources = published().sources
    rows = (
        [row.model_dump() | {"source": sources[row.source].model_dump()} for row in data_set.rows] if data_set else []
    )
    return {
        "recipe": recipe.model_dump(mode="json"),
        "data_set": published().data_set_key(recipe.name),
        "compare_with": rows,
    }


def recipe_cells(recipe: Recipe) -> tuple[str, ...]:
    """Return one recipe's cells of the table, in the order of `COLUMNS`."""
    networks = "+".join(_short(spec.backbone) for spec in (recipe.junior, recipe.senior) if spec)
    height, width = recipe.crop_size
    steps, epochs = recipe.schedule.steps, recipe.schedule.epochs
    length = (
        f"{epochs} epochs" if steps is None else f"{steps // 1000}k steps" if steps % 1000 == 0 else f"{steps} steps"
    )
    return (
        recipe.name,
        str(recipe.method["name"]),
        networks,
        published().data_set_key(recipe.name) or "any",
        str(height) if height == width else f"{height}x{width}",
        f"{recipe.batch.labeled}+{recipe.batch.unlabeled}",
        length,
    )


def _short(backbone: str) -> str:
    """A backbone's name in few letters: vit_small_patch14_dinov2 is dinov2-s."""
    stem = backbone.split(".")[0].replace("mobilenetv4_conv", "mnv4").replace("tf_efficientnet_lite", "lite")
    stem = re.sub(r"^vit_(\w+)_patch14_dinov2$", r"dinov2_\1", stem)
    for size in ("nano", "tiny", "small", "medium", "base", "large"):
        stem = stem.replace(f"_{size}", f"_{size[0]}")
    return stem.replace("_", "-")


def _rows_of(data_set: DataSet) -> list[str]:
    """The published rows as comment lines of a recipe file."""
    used = [name for name in data_set.partitions if any(name in row.miou for row in data_set.rows)]
    lines = ["#", f"# To compare with, {data_set.title}, mIoU in percent, by partition:", "#"]
    cells = [("", "", *used)]
    for row in data_set.rows:
        size = f"{row.params_m:g}M" if row.params_m else "-"
        cells.append((row.method, size, *(str(row.miou[name]) if name in row.miou else "-" for name in used)))
    widths = [max(len(line[index]) for line in cells) for index in range(len(used) + 2)]
    sources = published().sources
    abouts = ["", *(", ".join(filter(None, (sources[row.source].title, row.note))) for row in data_set.rows)]
    for line, about in zip(cells, abouts, strict=True):
        padded = " ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        lines.append(f"#   {padded}  {about}".rstrip())
    return lines
