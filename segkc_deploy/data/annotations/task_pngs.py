"""Label Studio's PNG export of brush masks: one file for each task and label, named by task and not by image."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from segkc_deploy.data.annotations.json_fields import load_json
from segkc_deploy.data.annotations.label_studio import is_label_studio, task_images
from segkc_deploy.data.annotations.shapes import AnnotatedImage, Bitmap
from segkc_deploy.errors import DataError

_NAME = re.compile(r"task-(\d+)-annotation-(\d+)-by-.*?-tag-(.+)-(\d+)\.png")


@dataclass(frozen=True)
class _Png:
    path: Path
    task: int
    annotation: int
    label: str
    layer: int


def is_task_png(path: Path) -> bool:
    """Return whether a file is named as Label Studio names the PNG of a task and a label."""
    return _NAME.fullmatch(path.name) is not None


def first_pngs(folder: Path) -> dict[int, Path]:
    """Return the first PNG of each task in a folder, which stands for all of the task."""
    return {task: pngs[0].path for task, pngs in sorted(_by_task(folder).items())}


def task_names(folder: Path) -> Mapping[int, str] | None:
    """Return the image's name of each task, from a JSON export in `folder` or the folder above; None without one."""
    return _task_names(folder.resolve())


def read_task(path: Path, read_mask: Callable[[Path], np.ndarray]) -> AnnotatedImage:
    """Return the masks of the task that a PNG belongs to, of its last annotation, in the order of the files' names.

    `read_mask` returns the values of one PNG, (H, W).

    Raises:
        DataError: a file is damaged, or the sizes differ.
    """
    match = _NAME.fullmatch(path.name)
    assert match is not None
    pngs = _by_task(path.parent)[int(match[1])]
    last = max(png.annotation for png in pngs)
    regions = [(png, read_mask(png.path) > 0) for png in pngs if png.annotation == last]
    size = regions[0][1].shape
    for png, region in regions:
        if region.shape != size:
            raise DataError(f"{png.path}: has another size than {regions[0][0].path.name}, of the same task")
    shapes = tuple(Bitmap(png.label, np.asarray(region)) for png, region in regions)
    return AnnotatedImage(f"task {match[1]}", (size[0], size[1]), shapes)


def _by_task(folder: Path) -> dict[int, list[_Png]]:
    tasks: dict[int, list[_Png]] = {}
    for path in sorted(folder.iterdir()):
        if match := _NAME.fullmatch(path.name):
            png = _Png(path, int(match[1]), int(match[2]), match[3], int(match[4]))
            tasks.setdefault(png.task, []).append(png)
    return tasks


@lru_cache(maxsize=8)
def _task_names(folder: Path) -> Mapping[int, str] | None:
    for path in sorted((*folder.glob("*.json"), *folder.parent.glob("*.json"))):
        data = load_json(path)
        if is_label_studio(data):
            return task_images(data)
    return None
