"""MLflow and Weights & Biases, through their own libraries and without a network."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_data import tiny_recipe

from segkc_deploy.errors import ConfigError, MissingDependencyError
from segkc_deploy.training.files.run_directory import RunDirectory, create_run
from segkc_deploy.training.run_log import RunLog
from segkc_deploy.training.trackers import registry
from segkc_deploy.training.trackers.registry import check_trackers, open_tracker
from segkc_deploy.training.trackers.tracker import TrackerError

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)

PICTURE = np.zeros((4, 6, 3), np.uint8)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return create_run(tmp_path / "run", tiny_recipe(), None, overwrite=False)


def record(run: RunDirectory, name: str, first_step: int, losses: dict[int, float]) -> None:
    """Record one session of a training."""
    recipe = tiny_recipe().model_dump(mode="json", exclude_none=True)
    with RunLog(run, 4, first_step, [open_tracker(name, run.path, run.key, recipe)]) as log:
        for step, loss in losses.items():
            log.training(step, {"loss": loss})
        log.validation(4, {"junior": 61.5})
        log.pictures(4, [PICTURE])


@pytest.mark.parametrize("validated", [True, False])
def test_a_validation_that_no_checkpoint_holds_is_recorded_once(run: RunDirectory, validated: bool) -> None:
    """The run ended after the record and before the checkpoint with the scores, so it validates again."""
    with RunLog(run, 4, 0) as log:
        log.training(2, {"loss": 1.0})
        log.validation(2, {"junior": 50.0})
        log.training(3, {"loss": 0.5})
    with RunLog(run, 4, 2, validated=validated) as log:
        if not validated:
            log.validation(2, {"junior": 50.0})
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [(one["step"], one["kind"]) for one in records] == [(2, "train"), (2, "validation")]


def test_mlflow_holds_the_curves_of_both_sessions_in_one_run(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    record(run, "mlflow", 0, {1: 3.0, 2: 2.0})
    record(run, "mlflow", 2, {3: 1.5})
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("segkc-deploy")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_name, found.info.status) == ("run", "FINISHED")
    assert found.data.params["optimizer.lr"] == "0.001"
    curve = client.get_metric_history(found.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in curve] == [(1, 3.0), (2, 2.0), (3, 1.5)]
    assert found.data.metrics["validation/miou_junior"] == 61.5
    assert [file.path for file in client.list_artifacts(found.info.run_id, "validation")] == ["validation/0-step-4.png"]


def test_wandb_keeps_an_offline_run_in_the_run_directory(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    record(run, "wandb", 0, {1: 3.0, 2: 2.0})
    wandb.teardown()  # its own process writes the file; a training waits for it when it ends
    (folder,) = (run.path / "wandb").glob("offline-run-*")
    (stored,) = folder.glob("*.wandb")
    assert run.key in folder.name
    content = stored.read_bytes()
    assert b"train/loss" in content
    assert b"validation/miou_junior" in content
    create_run(run.path, tiny_recipe(), None, overwrite=True)  # which deletes it with the run
    assert not (run.path / "wandb").exists()


def test_wandb_without_a_key_is_refused_before_it_asks(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a terminal `wandb.init` shows a menu and waits."""
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    wandb.teardown()  # it keeps the settings of earlier runs

    def asked(**_: object) -> None:
        raise AssertionError("it would ask for a key")

    monkeypatch.setattr(wandb, "init", asked)
    with pytest.raises(TrackerError, match="there is no key; run `wandb login`, or set WANDB_API_KEY"):
        open_tracker("wandb", run.path, run.key, {})
    wandb.teardown()


class Broken:
    """A tracker whose service is down."""

    name = "broken"

    def __init__(self) -> None:
        self.calls = 0

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self.calls += 1
        raise TrackerError("broken: no answer")

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None: ...

    def close(self, failed: bool) -> None: ...


def test_a_service_that_is_down_does_not_end_a_training(run: RunDirectory) -> None:
    broken = Broken()
    with RunLog(run, 4, 0, [broken]) as log:
        for step in (1, 2):
            log.training(step, {"loss": 1.0})
    assert broken.calls == 1
    assert "warning: broken: no answer; training continues without it" in run.log.read_text()
    assert len(run.metrics.read_text().splitlines()) == 2


def test_unknown_and_missing_trackers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--track neptune: there are mlflow and wandb"):
        check_trackers(["neptune"])
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r'pip install "segkc-deploy\[wandb\]"'):
        check_trackers(["wandb"])
