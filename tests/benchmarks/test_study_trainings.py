"""The trainings of a study: each once, resumed, stopped in good order, and the rows that they leave."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from study_examples import MACHINE, STUDY, write_data, write_study
from tiny_data import CLASSES

from segkc_deploy.benchmarks.studies.__main__ import main
from segkc_deploy.benchmarks.studies.merged_classes import merged_miou
from segkc_deploy.benchmarks.studies.parallelism import Outcome, Parallelism, claim, train_trials
from segkc_deploy.benchmarks.studies.study import Trial, load_study
from segkc_deploy.benchmarks.studies.study_rows import read_rows
from segkc_deploy.benchmarks.studies.trials import (
    Session,
    State,
    StudyDirectory,
    TrialFiles,
    train_trial,
)
from segkc_deploy.errors import ConfigError
from segkc_deploy.training.loop import Trainer
from segkc_deploy.training.train import train_run


def test_a_study_trains_what_is_missing_and_tells_what_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One trial was started before, one diverges; then nothing is left to do."""
    diverges = {"like": "segkc", "method": {"weights": {"cps_junior": 1e39}}}
    trials = [{"rows": ["segkc", "segkc-weak"], "labels": "1/2", "seeds": 0}]
    merge = {CLASSES[0]: [CLASSES[1]]}
    path = write_study(tmp_path, rows=STUDY["rows"] | {"segkc-weak": diverges}, trials=trials, merge=merge)
    results = tmp_path / "results.json"
    common = [str(path), *write_data(tmp_path), "--out", str(tmp_path / "out"), "--results", str(results)]
    directory = StudyDirectory(load_study(path), tmp_path / "out", tmp_path / "data", tmp_path / "lists")
    interrupted, files = interrupted_training(directory, Trial("segkc", "1/2", 0), monkeypatch)

    assert main([*common, "--device", "cpu", "--pin"]) == 1
    told = capsys.readouterr()
    assert "1 failed, 1 finished" in told.out
    assert "failed: segkc-weak-1_2-seed0: exit code 1: error: step 1: " in told.out
    assert "segkc-1_2-seed0 resumes" in told.err

    # The resumed training is the one that was never interrupted.
    whole = train_run(
        directory.specs["1/2", 0],
        str(directory.recipes["segkc"]),
        tmp_path / "whole",
        ["seed=0", "workers=0"],
        device="cpu",
    )
    assert interrupted < whole.steps == 3
    rows = {(row.row, row.role): row for row in read_rows(results)}
    assert list(rows) == [("segkc", "junior"), ("segkc", "senior")]
    for role in ("junior", "senior"):
        row = rows["segkc", role]
        extra = row.model_extra or {}
        evaluation = json.loads(files.scores(role).read_text())
        assert evaluation["miou"] == pytest.approx(row.miou)
        assert extra["miou_merged"] == merged_miou(np.array(evaluation["confusion"]), CLASSES, merge)
        assert (row.miou, extra["miou_raw"]) == (whole.miou[f"{role}_ema"], whole.miou[role])
        assert row.params_m == parameters(whole.path / f"{role}.safetensors") / 1e6
        assert (row.steps, row.size, extra["sessions"]) == (3, (64, 64), 2)
        assert {name: extra["images"][name] for name in ("labeled", "unlabeled", "val")} == {
            "labeled": 2,
            "unlabeled": 6,
            "val": 3,
        }
        assert "seconds" not in extra  # nobody saw the first session end
        assert row.command.endswith("--results RESULTS --only row=segkc,labels=1/2,seed=0")
        assert str(tmp_path) not in row.command

    before = results.read_bytes()
    assert main([*common, "--device", "cpu", "--only", "row=segkc"]) == 0
    assert "1 skipped" in capsys.readouterr().out
    results.unlink()
    assert main([*common, "--collect"]) == 0
    assert "1 collected, 1 not finished" in capsys.readouterr().out
    assert main([*common, "--collect", "--only", "row=segkc"]) == 0
    assert "1 collected\n" in capsys.readouterr().out
    assert main([*common, "--collect", "--only", "row=segkc", "--only", "row=segkc-weak"]) == 0
    assert "1 collected, 1 not finished" in capsys.readouterr().out
    assert results.read_bytes() == before
    assert len(files.read_sessions()) == 2

    # Its recipe has changed since: neither trained over nor counted.
    write_study(tmp_path, common=STUDY["common"] | {"schedule": {"steps": 4}}, trials=trials)
    assert main([*common, "--collect"]) == 1
    assert "schedule.steps = 3, not 4" in capsys.readouterr().out
    assert results.read_bytes() == before


def interrupted_training(
    directory: StudyDirectory, trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, TrialFiles]:
    """Begin a trial in this process and kill it after a step; return that step and where its files are."""
    files = directory.files(trial)
    files.add_to_sessions(
        {"commit": "abc", "machine": MACHINE, "threads": 1, "pinned": False, "data": directory.data_facts(trial)}
    )
    real_step = Trainer._train_step

    def dying(trainer: Trainer, step: int, *arguments: Any) -> int:
        if step == 2:
            raise KeyboardInterrupt
        return real_step(trainer, step, *arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "_train_step", dying)
        train_run(
            directory.specs[trial.labels, trial.seed],
            str(directory.recipes[trial.row]),
            files.run.path,
            ["seed=0"],
            device="cpu",
        )
    assert files.run.checkpoint.is_file()
    return 2, files


def parameters(path: Path) -> int:
    """Count the parameters of a file of convolutional networks: all but the statistics of batch normalization."""
    with safe_open(path, "pt") as file:
        names = [name for name in file.keys() if not name.endswith(("_mean", "_var", "_tracked"))]  # noqa: SIM118
        return sum(math.prod(file.get_slice(name).get_shape()) for name in names)


class FakeStudyDirectory:
    """A study's folder where a trial's row is the program that "trains" it; it is finished when it leaves a file."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def files(self, trial: Trial) -> TrialFiles:
        return TrialFiles(self.out, Trial(f"trial{trial.seed}", trial.labels, trial.seed))

    def data_facts(self, trial: Trial) -> dict[str, Any]:
        return {"labels": trial.labels}

    def state(self, trial: Trial) -> State:
        return "finished" if (self.files(trial).run.path / "done").exists() else "new"

    def command_before(self, trial: Trial, device: str) -> None:
        """Nothing is labeled first."""

    def command(self, trial: Trial, state: State, loaders: int, device: str) -> list[str]:
        run = self.files(trial).run
        run.path.mkdir(parents=True, exist_ok=True)
        run.log.write_text("score\n")
        leave = f"import pathlib; pathlib.Path({str(run.path / 'done')!r}).write_text('')"
        return [sys.executable, "-c", f"{trial.row}\n{leave}"]


def train(directory: FakeStudyDirectory, programs: list[str], parallelism: Parallelism) -> list[Outcome]:
    trials = [Trial(program, "1/2", seed) for seed, program in enumerate(programs)]
    told: list[Trial] = []
    outcomes = train_trials(directory, trials, parallelism, told.append)  # type: ignore[arg-type]
    assert set(told) == {outcome.trial for outcome in outcomes if outcome.kind in ("finished", "skipped")}
    return sorted(outcomes, key=lambda outcome: outcome.trial.seed)


def test_code_that_differs_from_its_commit_is_recorded_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segkc_deploy.benchmarks.studies import parallelism

    here = tmp_path / "benchmarks" / "studies" / "parallelism.py"
    for path in (here, tmp_path / "training" / "loop.py", tmp_path / "segkc_deploy" / "metrics.py"):
        path.parent.mkdir(parents=True)
        path.write_text("committed\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "code"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(parallelism, "__file__", str(here))
    monkeypatch.setattr(parallelism, "current_commit", lambda: "0123abc")
    assert parallelism._code_version() == "0123abc"
    (tmp_path / "training" / "loop.py").write_text("changed\n")
    assert parallelism._code_version() == "0123abc+changes"


def test_a_failing_training_stops_no_other(tmp_path: Path) -> None:
    programs = ["1 / 0", "pass", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "import os; os._exit(0)"]
    outcomes = train(FakeStudyDirectory(tmp_path), programs, Parallelism(workers=2))
    assert [outcome.kind for outcome in outcomes] == ["failed", "finished", "failed", "failed"]
    assert outcomes[0].remark.startswith("exit code 1: ZeroDivisionError: division by zero (")
    assert outcomes[2].remark.startswith("killed by signal 9: it printed nothing")
    assert outcomes[3].remark.startswith("exit code 0: ")
    assert [outcome.kind for outcome in train(FakeStudyDirectory(tmp_path), programs[:2], Parallelism())] == [
        "failed",
        "skipped",
    ]


def test_pinned_trainings_have_a_processor_each(tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    count = min(2, len(cores))
    say = "import os, time; print(os.sched_getaffinity(0), os.environ['OMP_NUM_THREADS'], flush=True); time.sleep(1)"
    directory = FakeStudyDirectory(tmp_path)
    assert {outcome.kind for outcome in train(directory, [say] * count, Parallelism(count, pin=True))} == {"finished"}
    logs = {(tmp_path / "logs" / f"trial{seed}-1_2-seed{seed}.log").read_text().strip() for seed in range(count)}
    assert logs == {f"{{{core}}} 1" for core in cores[:count]}
    assert sorted(os.sched_getaffinity(0)) == cores
    with pytest.raises(ConfigError, match="--workers 0"):
        Parallelism(0)
    with pytest.raises(ConfigError, match=f"choose 1 to {len(cores)}, the cores"):
        Parallelism(len(cores) + 1, pin=True)


def test_time_that_is_up_stops_trainings_in_good_order(tmp_path: Path) -> None:
    clean = f"""
import signal, sys, time, pathlib
try:
    time.sleep(600)
except KeyboardInterrupt:
    pathlib.Path({str(tmp_path / "saved")!r}).write_text("")
    sys.exit(1)"""
    outcomes = train(FakeStudyDirectory(tmp_path), [clean, "pass"], Parallelism(seconds=2))
    assert [outcome.kind for outcome in outcomes] == ["stopped", "stopped"]
    assert (tmp_path / "saved").exists()
    assert not (tmp_path / "runs" / "trial1-1_2-seed1").exists(), "started after its time"
    session = TrialFiles(tmp_path, Trial("trial0", "1/2", 0)).read_sessions()[0]
    assert session.seconds is not None and session.processor_seconds is not None
    assert 1 < session.seconds < 600, "it was stopped while it slept"
    assert session.processor_seconds < session.seconds


def test_sigterm_stops_the_trainings_too(tmp_path: Path) -> None:
    """The command as a service manager ends it, even started in the background of a script, where SIGINT is ignored."""
    path = write_study(tmp_path, trials=[{"rows": "supervised", "labels": "1/2", "seeds": 0}])
    options = [*write_data(tmp_path), "--out", str(tmp_path / "out"), "--results", str(tmp_path / "results.json")]
    command = [sys.executable, "-m", "segkc_deploy.benchmarks.studies", str(path), *options, "--device", "cpu"]
    ignore = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    with subprocess.Popen(
        [sys.executable, "-c", ignore, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(lambda: (tmp_path / "out" / "sessions").is_dir())
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "1 stopped" in out
    assert "Traceback" not in err


def test_a_cell_is_trained_once_even_if_who_began_it_was_killed(tmp_path: Path) -> None:
    directory, end = FakeStudyDirectory(tmp_path), threading.Event()
    trial = Trial("import time; time.sleep(60)", "1/2", 0)
    files = directory.files(trial)
    session = Session("abc", MACHINE, 1, False, {})
    with claim(files.lock) as lock:
        assert lock is not None
        descriptor = os.dup(lock)
    thread = threading.Thread(
        target=train_trial, args=(directory.command(trial, "new", 0, "cpu"), files, session, descriptor, end.is_set)
    )
    thread.start()
    wait_for(lambda: files.log.is_file() and files.sessions.is_file())
    time.sleep(0.5)
    os.close(descriptor)  # as when this process dies
    assert [outcome.kind for outcome in train(directory, [trial.row], Parallelism())] == ["busy"]
    end.set()
    thread.join()
    with claim(files.lock) as lock:
        assert lock is not None


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)
