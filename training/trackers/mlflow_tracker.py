"""MLflow through its own client (https://mlflow.org/docs/latest/api_reference/python_api/mlflow.client.html).

MLFLOW_TRACKING_URI says where to, MLFLOW_EXPERIMENT_NAME into which experiment.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from segkc_deploy.training.trackers.tracker import TrackerError, flat_values

_DEFAULT_EXPERIMENT = "segkc-deploy"
_KEY_TAG = "segkc_deploy.run"
#: MLflow takes no more parameters at once.
_MOST_PARAMETERS = 100


class MLflowTracker:
    """See `Tracker` and `registry.open_tracker`."""

    name = "mlflow"

    def __init__(self, run: Path, key: str, recipe: dict[str, Any]) -> None:
        with _refused():
            self._client = MlflowClient()
            experiment = self._experiment()
            found = self._client.search_runs([experiment], f"tags.`{_KEY_TAG}` = '{key}'", max_results=1)
            if found:
                self._run = found[0].info.run_id
                self._client.update_run(self._run, status="RUNNING")
                return
            self._run = self._client.create_run(experiment, tags={_KEY_TAG: key}, run_name=run.name).info.run_id
            parameters = [Param(name, str(value)[:500]) for name, value in flat_values(recipe).items()]
            for start in range(0, len(parameters), _MOST_PARAMETERS):
                self._client.log_batch(self._run, params=parameters[start : start + _MOST_PARAMETERS])

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Add a value to each curve."""
        now = int(time.time() * 1000)
        with _refused():
            self._client.log_batch(self._run, [Metric(name, value, now, step) for name, value in values.items()])

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Add a picture, uint8 (H, W, 3)."""
        with _refused():
            self._client.log_image(self._run, pixels, artifact_file=f"{name}-step-{step}.png")

    def close(self, failed: bool) -> None:
        """End the session."""
        with _refused():
            self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _DEFAULT_EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))


@contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except (MlflowException, OSError) as error:
        raise TrackerError(f"mlflow: {' '.join(str(error).split())[:300]}") from None
