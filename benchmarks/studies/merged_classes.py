"""A second mIoU of a finished trial, for which some classes count as others: doors and windows as building."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from segkc_deploy.errors import ConfigError, SegKCError
from segkc_deploy.metrics import iou_percent, mean_iou

#: By class, the classes that count as it.
Merge = Mapping[str, Sequence[str]]


def merged_miou(confusion: np.ndarray, names: Sequence[str], merge: Merge) -> float:
    """Return the mIoU in percent over the classes that remain.

    Args:
        confusion: int64 (classes, classes) pixels by true class (rows) and predicted class (columns).
        names: the classes' names in the order of their ids.
        merge: by class, the classes that count as it.

    Raises:
        ConfigError: `merge` names a class that does not exist.
    """
    target = {name: name for name in names} | {part: whole for whole, parts in merge.items() for part in parts}
    if unknown := [name for name in (*target, *merge) if name not in names]:
        raise ConfigError(f"merge: no class {unknown[0]!r}; the classes are {', '.join(names)}")
    remaining = list(dict.fromkeys(target.values()))
    # (remaining, classes): adding rows and columns of the confusion matrix is a product with this matrix.
    members = np.array([[target[name] == whole for name in names] for whole in remaining], dtype=np.int64)
    counts = members @ confusion @ members.T
    hits = np.diag(counts)
    return float(mean_iou(iou_percent(hits, counts.sum(0) + counts.sum(1) - hits)))


def evaluate_merged(run: Path, spec: Path, role: str, scores: Path, merge: Merge, device: str) -> float:
    """Score a network of a run directory by its recipe's protocol and return the merged mIoU in percent.

    Args:
        run: the run directory.
        spec: the data spec whose validation images are scored.
        role: `junior` or `senior`, the network that is shipped.
        scores: the JSON file of `segkc-deploy eval`; it is written when missing.
        merge: by class, the classes that count as it.
        device: where the network runs.

    Raises:
        ConfigError: `merge` names a class that does not exist.
        SegKCError: the evaluation failed; the message is its last line.
    """
    if not scores.is_file():
        command = [sys.executable, "-m", "segkc_deploy", "eval", str(run), "--data", str(spec), "--role", role]
        command += ["--device", device, "--json", str(scores)]
        scores.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SegKCError(f"{run}: not scored: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    stored = json.loads(scores.read_text(encoding="utf-8"))
    return merged_miou(np.array(stored["confusion"]), list(stored["iou"]), merge)
