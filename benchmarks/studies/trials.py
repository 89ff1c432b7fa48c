"""The trials of a study on disk: the files of each, its state, and the process that trains it."""

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from segkc_deploy.benchmarks.studies.shared_settings import difference, shared_settings
from segkc_deploy.benchmarks.studies.study import Study, Trial, write_data_spec, write_recipes
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import ConfigError, RunDirectoryError
from segkc_deploy.training.files.run_directory import RunDirectory, check_same_recipe, read_config
from segkc_deploy.training.methods.registry import with_method_defaults
from segkc_deploy.training.recipe import Recipe
from segkc_deploy.training.recipe_file import load_recipe

State = Literal["new", "started", "finished"]

_SECONDS_TO_STOP = 60.0
_SECONDS_BETWEEN_LOOKS = 0.05


@dataclass(frozen=True)
class Session:
    """One process that trained a trial: what it ran on.

    `seconds` is its wall time and `processor_seconds` the time of all its threads; both are None where the parent
    process was killed before it ended.
    """

    commit: str
    machine: dict[str, Any]
    threads: int
    pinned: bool
    data: dict[str, Any]
    seconds: float | None = None
    processor_seconds: float | None = None


@dataclass(frozen=True)
class TrialFiles:
    """Where the files of one trial are."""

    out: Path
    trial: Trial

    @property
    def run(self) -> RunDirectory:
        return RunDirectory(self.out / "runs" / self.trial.name)

    @property
    def pseudo_labels(self) -> Path:
        """The folder of the masks that another trial's network gives the unlabeled images."""
        return self.out / "pseudo-labels" / self.trial.name

    @property
    def log(self) -> Path:
        """What the training printed, in all sessions."""
        return self.out / "logs" / f"{self.trial.name}.log"

    @property
    def sessions(self) -> Path:
        """A line at the start of each session and one at its end."""
        return self.out / "sessions" / f"{self.trial.name}.jsonl"

    def scores(self, role: str) -> Path:
        """What `segkc-deploy eval` says of a network of the finished run."""
        return self.out / "scores" / f"{self.trial.name}-{role}.json"

    @property
    def lock(self) -> Path:
        return self.out / "locks" / f"{self.trial.name}.lock"

    def read_sessions(self) -> list[Session]:
        """Return the sessions so far."""
        sessions: list[Session] = []
        for line in self.sessions.read_text(encoding="utf-8").splitlines() if self.sessions.is_file() else []:
            record = json.loads(line)
            if "seconds" in record:
                sessions[-1] = Session(**(vars(sessions[-1]) | record))
            else:
                sessions.append(Session(**record))
        return sessions

    def add_to_sessions(self, record: dict[str, Any]) -> None:
        """Add a line to the sessions."""
        self.sessions.parent.mkdir(parents=True, exist_ok=True)
        with self.sessions.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


class StudyDirectory:
    """A study's folder, with the recipes and data specs that its trials are trained by.

    Raises:
        ConfigError: a recipe cannot be used, or two rows differ in what has to be the same.
        DataError: the images are not there.
    """

    def __init__(self, study: Study, out: Path, data_root: Path, lists: Path | None) -> None:
        self.study, self.out = study, out
        self.recipes = write_recipes(study, out / "recipes")
        self._resolved = {row: self._load(row, 0) for row in study.rows}
        self._check_comparable()
        drawn = dict.fromkeys((trial.labels, trial.seed) for trial in study.ordered_trials())
        self.specs = {
            (labels, seed): write_data_spec(study, labels, seed, data_root, lists, out / "data")
            for labels, seed in drawn
        }
        self._data: dict[Path, dict[str, Any]] = {}

    def files(self, trial: Trial) -> TrialFiles:
        return TrialFiles(self.out, trial)

    def recipe(self, trial: Trial) -> Recipe:
        """Return the recipe that the trial is trained by, with every value."""
        return self._resolved[trial.row].model_copy(update={"seed": trial.seed})

    def spec(self, trial: Trial) -> Path:
        """Return the data spec that the trial is trained on; that of pseudo-labels is written by `command_before`'s."""
        if self.study.labeling_trial(trial) is None:
            return self.specs[trial.labels, trial.seed]
        return self.files(trial).pseudo_labels / "data.yaml"

    def command_before(self, trial: Trial, device: str) -> list[str] | None:
        """Return the command that writes the pseudo-labels of a trial; None where it needs none, or has them.

        Raises:
            ConfigError: the trial whose network labels is not finished.
        """
        labeling, files = self.study.labeling_trial(trial), self.files(trial)
        if labeling is None or self.spec(trial).is_file():
            return None
        if self.state(labeling) != "finished":
            raise ConfigError(f"it learns pseudo-labels of {labeling.name}, which is not finished; train that first")
        run = self.files(labeling).run.path
        command = [sys.executable, "-m", "segkc_deploy", "pseudo-label", str(run), "--out", str(files.pseudo_labels)]
        # Every pixel counts: a threshold chosen on the validation images would let the trial learn from them.
        return [*command, "--confidence", "0", "--device", device, "--overwrite"]

    def data_facts(self, trial: Trial) -> dict[str, Any]:
        """Return how many images people labeled and how many others there are, and a digest of them and the classes."""
        spec = self.specs[trial.labels, trial.seed]
        if spec not in self._data:
            self._data[spec] = _facts(load_data_spec(spec).resolve())
        return self._data[spec]

    def state(self, trial: Trial) -> State:
        """Return the state of the trial.

        Raises:
            ConfigError: its folder holds a training by another recipe, or on other images.
            RunDirectoryError: its folder holds something else.
        """
        files = self.files(trial)
        if not files.run.config.is_file():
            return "new"
        stored, _ = read_config(files.run)
        wanted = self.recipe(trial)
        # A default that a method has gained since, and the number of loaders, do not change a training.
        check_same_recipe(files.run, _without_workers(with_method_defaults(stored)), _without_workers(wanted))
        sessions = files.read_sessions()
        if not sessions:
            raise RunDirectoryError(f"{files.run.path}: not trained by this command; choose another --out")
        if sessions[-1].data != self.data_facts(trial):
            raise ConfigError(f"{files.run.path}: trained on other images or classes; choose another --out")
        if final_scores(files.run, steps_of(wanted)):
            return "finished"
        return "started" if files.run.checkpoint.is_file() else "new"

    def command(self, trial: Trial, state: State, loaders: int, device: str) -> list[str]:
        """Return the command that trains the trial to its end."""
        run = self.files(trial).run
        command = [sys.executable, "-m", "segkc_deploy", "train", "--out", str(run.path)]
        command += ["--data", str(self.spec(trial)), "--workers", str(loaders), "--device", device]
        if state == "started":
            return [*command, "--resume"]
        command += ["--recipe", str(self.recipes[trial.row]), "--seed", str(trial.seed)]
        # The run ended before its first checkpoint.
        return [*command, "--overwrite"] if run.config.is_file() else command

    def _load(self, row: str, seed: int) -> Recipe:
        recipe = with_method_defaults(load_recipe(str(self.recipes[row]), [f"seed={seed}"]))
        steps_of(recipe)
        return recipe

    def _check_comparable(self) -> None:
        first, *others = self._resolved.values()
        for recipe in others:
            if found := difference(shared_settings(self.study, first), shared_settings(self.study, recipe)):
                raise ConfigError(
                    f"{self.study.path}: rows {first.name} and {recipe.name} differ in {found[0]}, so their scores"
                    " say nothing about the methods; set it under common"
                )


def steps_of(recipe: Recipe) -> int:
    """Return the steps of a recipe.

    Raises:
        ConfigError: it counts epochs, whose length depends on the share of the labels.
    """
    if recipe.schedule.steps is None:
        raise ConfigError(f"recipe {recipe.name}: a study needs schedule.steps, the same for all shares of the labels")
    return recipe.schedule.steps


def final_scores(run: RunDirectory, steps: int) -> dict[str, float]:
    """Return the mIoU (percent) at the last of `steps`, by network (`junior`, `junior_ema`, …); empty before."""
    if not run.metrics.is_file():
        return {}
    scores: dict[str, float] = {}
    for line in run.metrics.read_text(encoding="utf-8").splitlines(keepends=True):
        if '"validation"' not in line or not line.endswith("\n"):
            continue  # losses, or a line that is being written
        record = json.loads(line)
        if record["step"] == steps:
            scores = {name.removeprefix("miou_"): value for name, value in record.items() if name.startswith("miou_")}
    return scores


def train_trial(
    command: list[str], files: TrialFiles, session: Session, lock: int, should_stop: Callable[[], bool]
) -> int | None:
    """Train in a process of its own and return its exit code, or None if it was stopped because `should_stop` said so.

    The process gets the calling thread's processors. It holds `lock`, a file descriptor, too: should this process be
    killed, the trial stays claimed until the training ends.
    """
    files.add_to_sessions({name: value for name, value in vars(session).items() if not name.endswith("seconds")})
    environment = os.environ | {"OMP_NUM_THREADS": str(session.threads)}
    files.log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with files.log.open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            pass_fds=(lock,),
            start_new_session=True,
        )
        ended, stopped = None, False
        while (ended := _wait(process, 0.2)) is None:
            if should_stop():
                stopped = True
                process.send_signal(signal.SIGINT)
                ended = _wait(process, _SECONDS_TO_STOP)
                if ended is None:
                    process.kill()
                    ended = _wait(process, math.inf)
                break
    assert ended is not None
    seconds = {"seconds": time.monotonic() - started, "processor_seconds": ended.processor_seconds}
    files.add_to_sessions({name: round(value, 1) for name, value in seconds.items()})
    return None if stopped else ended.code


def last_line(path: Path) -> str:
    """Return the last line of a log that is not empty."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "it printed nothing")


@dataclass(frozen=True)
class _End:
    code: int
    processor_seconds: float


def _wait(process: subprocess.Popen[bytes], seconds: float) -> _End | None:
    """Wait for a child process and return its exit code and processor time, which `Popen.wait` does not give."""
    until = time.monotonic() + seconds
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return _End(process.returncode, usage.ru_utime + usage.ru_stime)
        if time.monotonic() >= until:
            return None
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _without_workers(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"workers": None})


def _facts(sets: ImageSets) -> dict[str, Any]:
    parts = {"labeled": sets.labeled, "unlabeled": sets.unlabeled, "val": sets.val}
    ids = {name: [sample.id for sample in samples] for name, samples in parts.items()}
    content = json.dumps([ids, sets.labels.model_dump(mode="json"), sorted(sets.coding.label_mapping.items())])
    counts = {name: len(samples) for name, samples in parts.items()}
    return {**counts, "sha256": hashlib.sha256(content.encode()).hexdigest()}
