"""A small study with its data, and rows as its trainings would leave them."""

from pathlib import Path
from typing import Any

import yaml
from tiny_data import CLASSES, tiny_recipe, write_recipe, write_tiny_data

from segkc_deploy.benchmarks.studies.study_rows import StudyRow

MACHINE = {"cpu": "test", "cores": 1, "ram_gib": 1.0, "gpus": [], "packages": {"torch": "2"}}

STUDY: dict[str, Any] = {
    "name": "tiny-methods",
    "data": {
        "layout": "folders",
        "classes": CLASSES,
        "labeled": {"images": "images/train", "masks": "masks/train"},
        "unlabeled": {"images": ["images/extra"]},
        "val": {"images": "images/val", "masks": "masks/val"},
    },
    "base": "tiny.yaml",
    "common": {"schedule": {"steps": 3}, "checkpoint_every": 1, "validation": {"every": 3}},
    "rows": {
        "supervised": {"method": {"name": "supervised"}, "senior": None},
        "segkc": {},
        "segkc-weak": {"like": "segkc", "method": {"confidence_threshold": 0.9}},
    },
    "trials": [
        {"rows": ["segkc", "supervised"], "labels": "1/2", "seeds": [0, 1]},
        {"rows": "all", "labels": ["1/2", "full"], "seeds": 0},
    ],
}


def write_study(folder: Path, **changes: Any) -> Path:
    """Write a study with its base recipe beside it."""
    write_recipe(folder / "tiny.yaml", tiny_recipe())
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | changes, sort_keys=False))
    return path


def write_data(folder: Path) -> list[str]:
    """Write data and lists; return the options that name them."""
    write_tiny_data(folder / "data")
    (folder / "lists").mkdir()
    (folder / "lists" / "1_2.txt").write_text("000\n001\n")
    return ["--data-root", str(folder / "data"), "--lists", str(folder / "lists")]


def made_row(**changes: Any) -> StudyRow:
    values: dict[str, Any] = {
        "study": "made",
        "row": "segkc",
        "role": "junior",
        "labels": "1/8",
        "seed": 0,
        "steps": 900,
        "size": (352, 480),
        "params_m": 0.56,
        "miou": 30.0,
        "miou_raw": 31.0,
        "shipped": "ema",
        "machine": MACHINE,
        "versions": {"torch": "2.15"},
        "command": "python -m segkc_deploy.benchmarks.studies made.yaml --only row=segkc,labels=1/8,seed=0",
        "commit": "abc",
        "network": "mobilenet + fpn 64, random weights",
        "crop_size": [192, 256],
        "images_per_step": [4, 4],
        "images": {"labeled": 46, "unlabeled": 321, "val": 101},
        "settings": {"precision": "fp32", "weak": {"flip": 0.5}},
        "threads": 1,
        "seconds": 90.0,
    }
    return StudyRow.model_validate(values | changes)


def made_rows(row: str, juniors: list[float], seniors: list[float] | None = None, **changes: Any) -> list[StudyRow]:
    """Rows of one method with seeds 0, 1, …"""
    rows = [made_row(row=row, seed=seed, miou=miou, **changes) for seed, miou in enumerate(juniors)]
    senior = {"role": "senior", "network": "resnet18 + fpn 64, random weights", "params_m": 11.42}
    rows += [made_row(row=row, seed=seed, miou=miou, **senior | changes) for seed, miou in enumerate(seniors or [])]
    return rows
