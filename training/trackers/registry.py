"""The trackers that there are, and how one is opened."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from segkc_deploy.errors import ConfigError, MissingDependencyError
from segkc_deploy.training.trackers.tracker import Tracker

#: The trackers by the names that `train --track` takes, each with its own settings in environment variables.
TRACKERS = ("mlflow", "wandb")


def check_trackers(names: Sequence[str]) -> None:
    """Raise ConfigError for a name that is none of `TRACKERS`, MissingDependencyError where its package is missing."""
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f"--track {name}: there are {' and '.join(TRACKERS)}")
        if find_spec(name) is None:
            raise MissingDependencyError(f'--track {name}: not installed; `pip install "segkc-deploy[{name}]"`')


def open_tracker(name: str, run: Path, key: str, recipe: dict[str, Any]) -> Tracker:
    """Open a tracker; a run that is resumed continues its curves.

    Args:
        name: one of `TRACKERS`, and installed.
        run: the run directory, whose name is the run's there.
        key: the same for all sessions of a run, and for no other run.
        recipe: the recipe's values, by section.

    Raises:
        TrackerError: the service cannot be reached.
    """
    if name == "mlflow":
        from segkc_deploy.training.trackers.mlflow_tracker import MLflowTracker

        return MLflowTracker(run, key, recipe)
    from segkc_deploy.training.trackers.wandb_tracker import WandbTracker

    return WandbTracker(run, key, recipe)
