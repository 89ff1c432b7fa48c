"""Run directories with made-up figures, as `train` would write them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from tiny_data import tiny_recipe

from segkc_deploy.training.files.run_directory import create_run

STEPS = 40

SESSION = "tiny: 4 labeled, 6 unlabeled, 3 validation images; 40 steps from step 0 on cpu, fp32"


def write_run(
    path: Path,
    seed: int = 0,
    records: Sequence[Mapping[str, Any]] = (),
    log: Sequence[tuple[str, str]] = (("2026-01-31 10:00:00", SESSION), ("2026-01-31 10:01:30", "step 40/40")),
    data: Path = Path("data.yaml"),
    version: str | None = None,
    **recipe: Any,
) -> Path:
    """Write a run directory without networks and return its path."""
    made = create_run(path, tiny_recipe(**({"schedule": {"steps": STEPS}} | recipe | {"seed": seed})), data, False)
    if version:
        content = yaml.safe_load(made.config.read_text())
        made.config.write_text(yaml.safe_dump(content | {"segkc_deploy": version}))
    made.metrics.write_text("".join(json.dumps(record) + "\n" for record in records))
    made.log.write_text("".join(f"{time} {text}\n" for time, text in log))
    return path


def training(last: int = STEPS, **values: float) -> list[dict[str, Any]]:
    """Records of a training every 10 steps until `last`; each value is divided by the record's number."""
    steps = range(10, last + 1, 10)
    return [
        {"step": step, "kind": "train"} | {name: value / number for name, value in values.items()}
        for number, step in enumerate(steps, start=1)
    ]


def validation(step: int = STEPS, **miou: float) -> dict[str, Any]:
    """The record of a validation: mIoU by network."""
    return {"step": step, "kind": "validation"} | {f"miou_{name}": value for name, value in miou.items()}


def pair(seed: int, junior: float, senior: float) -> list[dict[str, Any]]:
    """A finished training of two networks; the averaged ones are a point better."""
    terms = {"loss": 2.0 + seed, "supervised_junior": 1.5, "supervised_senior": 1.2, "cps_junior": 0.4}
    monitors = {"mask_ratio_junior": 0.5, "mask_ratio_senior": 0.6, "gate_1": 0.01, "gate_2": 0.02}
    pace = {"lr": 1e-3, "images_per_s": 20.0, "memory_mib": 900.0}
    early = validation(20, junior=junior - 5, junior_ema=junior - 4, senior=senior - 5, senior_ema=senior - 4)
    last = validation(junior=junior, junior_ema=junior + 1, senior=senior, senior_ema=senior + 1)
    return [*training(**terms, **monitors, **pace), early, last]


def alone(seed: int, junior: float) -> list[dict[str, Any]]:
    """A finished supervised training, whose average is a point better."""
    values = {"loss": 1.0 + seed, "supervised_junior": 1.0 + seed}
    pace = {"lr": 1e-3, "images_per_s": 40.0, "memory_mib": 500.0}
    return [*training(**values, **pace), validation(junior=junior, junior_ema=junior + 1)]


#: What makes the tiny recipe one of a junior that learns from labels alone.
SUPERVISED: dict[str, Any] = {"senior": None, "method": {"name": "supervised"}, "name": "labels alone"}

PAIR_JUNIORS = {0: 61.25, 1: 62.5, 2: 63.0}
LONE_JUNIORS = {0: 60.0, 1: 60.5, 2: 61.75}


def write_study(root: Path) -> list[Path]:
    """Write three seeds of a pair, three of a supervised junior, and a fourth seed that still trains."""
    runs = [write_run(root / f"pair-seed{seed}", seed, pair(seed, miou, 70.0)) for seed, miou in PAIR_JUNIORS.items()]
    for seed, miou in LONE_JUNIORS.items():
        runs.append(write_run(root / f"lone-seed{seed}", seed, alone(seed, miou), **SUPERVISED))
    half = [*training(20, loss=1.0, supervised_junior=1.0), validation(20, junior=90.0, junior_ema=90.0)]
    return [*runs, write_run(root / "lone-seed3", 3, half, **SUPERVISED)]
