"""Weights & Biases through its own library (https://docs.wandb.ai/ref/python/).

WANDB_PROJECT says into which project, WANDB_MODE=offline keeps everything in the run directory for `wandb sync`.
"""

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import wandb

from segkc_deploy.training.trackers.tracker import TrackerError

_DEFAULT_PROJECT = "segkc-deploy"


class WandbTracker:
    """See `Tracker` and `registry.open_tracker`."""

    name = "wandb"

    def __init__(self, run: Path, key: str, recipe: dict[str, Any]) -> None:
        with _refused():
            _require_key()
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", _DEFAULT_PROJECT),
                id=key,
                resume="allow",
                name=run.name,
                dir=str(run),
                config=recipe,
                settings=wandb.Settings(silent=True, console="off"),
            )
            # A resumed run goes back to its last checkpoint: a step of its own axis may come twice.
            self._run.define_metric("step")
            self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Add a value to each curve."""
        with _refused():
            self._run.log({"step": step, **values})

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Add a picture, uint8 (H, W, 3)."""
        with _refused():
            self._run.log({"step": step, name: wandb.Image(pixels)})

    def close(self, failed: bool) -> None:
        """End the session."""
        with _refused():
            self._run.finish(exit_code=1 if failed else 0)


def _require_key() -> None:
    """Raise TrackerError where there is no key: in a terminal `init` would ask for one, and the training would wait."""
    if wandb.setup().settings.mode in ("offline", "dryrun", "disabled"):
        return
    if "prompt" in inspect.signature(wandb.login).parameters:
        has_key = wandb.login(prompt=False, verify=False)
    else:
        has_key = bool(wandb.api.api_key)  # older versions, whose `login` always asks
    if not has_key:
        raise TrackerError("wandb: there is no key; run `wandb login`, or set WANDB_API_KEY or WANDB_MODE=offline")


@contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except (wandb.Error, OSError) as error:
        raise TrackerError(f"wandb: {' '.join(str(error).split())[:300]}") from None
