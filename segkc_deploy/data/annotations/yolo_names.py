"""The labels of YOLO's class numbers: from the YAML file of the tool that wrote them, or from the classes."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from segkc_deploy.data.images import read_bytes
from segkc_deploy.data.resolve import Places
from segkc_deploy.data.samples import Sample
from segkc_deploy.errors import ConfigError
from segkc_deploy.labels import Labels

#: Names, one a line: Label Studio's YOLO export and labelImg, and CVAT's.
_LISTS = ("classes.txt", "obj.names")
_LARGEST_NUMBER = 9999


def object_names(samples: Iterable[Sample], labels: Labels, places: Places) -> tuple[str, ...]:
    """Return the label of each class number; empty where no mask is YOLO's text.

    They are the `names` of a YAML file beside the data spec or in its root, as Ultralytics and Roboflow write it, or
    else the lines of `classes.txt` or `obj.names` there, with the masks or above them, as Label Studio and CVAT write
    it. Without these they are the classes without the background, in their order, since YOLO numbers objects alone.

    Raises:
        ConfigError: two such files have different names, or a list is not UTF-8 text.
    """
    texts = [sample.mask for sample in samples if sample.mask is not None and sample.mask.suffix.lower() == ".txt"]
    if not texts:
        return ()
    folders = tuple(dict.fromkeys((places.spec.parent, places.root)))
    found: dict[Path, tuple[str, ...]] = {}
    for folder in folders:
        for path in sorted((*folder.glob("*.yaml"), *folder.glob("*.yml"))):
            if path.resolve() != places.spec.resolve() and (names := yolo_names(path)):
                found[path] = names
    if not found:
        with_masks = {parent for text in texts for parent in (text.parent, text.parent.parent)}
        found = names_in_lists((*folders, *sorted(with_masks)))
    if len(set(found.values())) > 1:
        raise ConfigError(
            f"{places.spec}: {' and '.join(path.name for path in found)} have different `names`; keep one of them"
        )
    if found:
        return next(iter(found.values()))
    return tuple(name for name in labels.names if name.lower().strip("_") != "background")


def yolo_names(path: Path) -> tuple[str, ...]:
    """Return the `names` of a YOLO data set's YAML file, in the order of their numbers; empty where it is none."""
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return ()
    names = data.get("names") if isinstance(data, dict) else None
    if isinstance(names, dict):
        names = _in_order(names)
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _in_order(names: dict[Any, Any]) -> list[str]:
    """Return names by number as a list, numbers that are left out as `class 2`; empty where a key is no number."""
    numbered = {int(key): str(name) for key, name in names.items() if str(key).isascii() and str(key).isdigit()}
    if len(numbered) != len(names) or max(numbered, default=0) > _LARGEST_NUMBER:
        return []
    return [numbered.get(number, f"class {number}") for number in range(max(numbered, default=-1) + 1)]


def names_in_lists(folders: Iterable[Path]) -> dict[Path, tuple[str, ...]]:
    """Return the lines of each `classes.txt` and `obj.names` in the folders, without empty ones at the end.

    Raises:
        ConfigError: one is not UTF-8 text.
    """
    found = {}
    for folder in dict.fromkeys(folders):
        for path in (folder / name for name in _LISTS):
            if path.is_file():
                try:
                    lines = read_bytes(path, "list of names").decode("utf-8-sig").rstrip().splitlines()
                except UnicodeDecodeError as error:
                    raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from None
                if lines:
                    found[path] = tuple(line.strip() for line in lines)
    return found
