"""The labels of YOLO's class numbers: from the YAML file of the tool that wrote them, or from the classes."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from segkc_deploy.data.resolve import Places
from segkc_deploy.data.samples import Sample
from segkc_deploy.errors import ConfigError
from segkc_deploy.labels import Labels


def object_names(samples: Iterable[Sample], labels: Labels, places: Places) -> tuple[str, ...]:
    """Return the label of each class number; empty where no mask is YOLO's text.

    They are the `names` of a YAML file beside the data spec or in its root, as Ultralytics and Roboflow write it.
    Without one they are the classes without the background, in their order, since YOLO numbers objects alone.

    Raises:
        ConfigError: two such files have different names.
    """
    if not any(sample.mask is not None and sample.mask.suffix.lower() == ".txt" for sample in samples):
        return ()
    found: dict[Path, tuple[str, ...]] = {}
    for folder in dict.fromkeys((places.spec.parent, places.root)):
        for path in sorted((*folder.glob("*.yaml"), *folder.glob("*.yml"))):
            if path.resolve() != places.spec.resolve() and (names := yolo_names(path)):
                found[path] = names
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
    if isinstance(names, dict) and sorted(names, key=str) and set(names) == set(range(len(names))):
        names = [names[number] for number in range(len(names))]
    return tuple(map(str, names)) if isinstance(names, list) else ()
