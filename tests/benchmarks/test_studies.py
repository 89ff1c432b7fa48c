"""A study of methods: which trials, each trained once, and tables that say what the seeds allow to say."""

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
import torch
import yaml
from safetensors import safe_open
from tiny_data import CLASSES, tiny_recipe, write_recipe, write_tiny_data

from segkc_deploy.benchmarks.report.seeds import PairedDifference, paired
from segkc_deploy.benchmarks.studies.__main__ import main
from segkc_deploy.benchmarks.studies.merged_classes import merged_miou
from segkc_deploy.benchmarks.studies.method_tables import main as tables_main
from segkc_deploy.benchmarks.studies.method_tables import study_text
from segkc_deploy.benchmarks.studies.parallelism import Outcome, Parallelism, claim, train_trials
from segkc_deploy.benchmarks.studies.shared_settings import completed, difference, shared_settings
from segkc_deploy.benchmarks.studies.study import Trial, chosen_trials, load_study, write_data_spec, write_recipes
from segkc_deploy.benchmarks.studies.study_rows import StudyRow, append_rows, read_rows, replace_rows
from segkc_deploy.benchmarks.studies.tables import study_table
from segkc_deploy.benchmarks.studies.trials import (
    Session,
    State,
    StudyDirectory,
    TrialFiles,
    train_trial,
)
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.error_messages import one_line_errors
from segkc_deploy.errors import ConfigError, UserError
from segkc_deploy.training.loop import Trainer
from segkc_deploy.training.methods.registry import build_method
from segkc_deploy.training.recipe import without_pretrained
from segkc_deploy.training.recipe_file import load_recipe
from segkc_deploy.training.train import train_run

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


# Which trials


def test_important_trials_come_first_and_once(tmp_path: Path) -> None:
    trials = load_study(write_study(tmp_path)).ordered_trials()
    assert [(trial.row, trial.labels, trial.seed) for trial in trials] == [
        ("segkc", "1/2", 0),
        ("supervised", "1/2", 0),
        ("segkc", "1/2", 1),
        ("supervised", "1/2", 1),
        ("segkc-weak", "1/2", 0),
        ("supervised", "full", 0),
        ("segkc", "full", 0),
        ("segkc-weak", "full", 0),
    ]
    assert len({trial.name for trial in trials}) == len(trials)


def test_only_chooses_by_every_key(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path))
    found = chosen_trials(study, "row=segkc,row=supervised,labels=1/2,seed=0")
    assert [trial.name for trial in found] == ["segkc-1_2-seed0", "supervised-1_2-seed0"]
    assert chosen_trials(study, None) == study.ordered_trials()


def test_rows_of_other_settings_are_noticed_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, results = write_study(tmp_path), tmp_path / "r.json"
    options = [*write_data(tmp_path), "--out", str(tmp_path / "out"), "--results", str(results)]
    name = load_study(path).name
    append_rows(results, [made_row(study="another"), made_row(study=name, seed=4)])
    with pytest.raises(SystemExit, match="2"), one_line_errors():
        main([str(path), *options])
    told = capsys.readouterr().err
    assert f"{results}: row segkc, labels 1/8, seed 4 was trained with other settings: junior was None" in told
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "only", "message"),
    [
        ({"rows": {"segkc": {"like": "segcc"}}, "trials": STUDY["trials"][1:]}, None, "no row 'segcc'; did you mean"),
        ({"rows": {"segkc": {"like": "segkc", "base": "x"}}}, None, "no row 'supervised'"),
        ({"trials": [{"rows": "all", "labels": "an eighth", "seeds": 0}]}, None, "write a fraction such as 1/8"),
        ({"trial": []}, None, "unknown key 'trial'; did you mean 'trials'"),
        ({}, "row:segkc", "write row=NAME"),
        ({}, "row=segkc,seed=7", "has no such trial"),
    ],
)
def test_mistakes_are_told_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], only: str | None, message: str
) -> None:
    path = write_study(tmp_path, **changes)
    options = [*write_data(tmp_path), "--out", str(tmp_path / "out"), "--results", str(tmp_path / "r.json")]
    with pytest.raises(SystemExit, match="2"), one_line_errors():
        main([str(path), *options, *(["--only", only] if only else [])])
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_row_lies_over_common_values_and_those_over_the_base(tmp_path: Path) -> None:
    files = write_recipes(load_study(write_study(tmp_path)), tmp_path / "out")
    recipes = {row: load_recipe(str(path)) for row, path in files.items()}
    assert recipes["supervised"].senior is None
    assert recipes["supervised"].method == {"name": "supervised"}
    assert recipes["segkc-weak"].method == {"name": "segkc", "strong_views": 1, "confidence_threshold": 0.9}
    assert recipes["segkc"].method["confidence_threshold"] == 0.4
    for name, recipe in recipes.items():
        assert (recipe.name, recipe.schedule.steps, recipe.crop_size) == (name, 3, (32, 64))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_size": [64, 64]}, "rows supervised and segkc differ in crop_size"),
        ({"strong": {"blur_probability": 0.0}}, "differ in strong"),
        ({"schedule": {"steps": None, "epochs": 2}}, "recipe segkc: a study needs schedule.steps"),
    ],
)
def test_rows_that_cannot_be_compared_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    study = load_study(write_study(tmp_path, rows=STUDY["rows"] | {"segkc": changes}))
    with pytest.raises(ConfigError, match=message):
        StudyDirectory(study, tmp_path / "out", tmp_path, tmp_path)


def test_a_study_may_compare_settings_of_the_loss_and_the_crops(tmp_path: Path) -> None:
    weighted = {"supervision": {"dice": 1.0}, "weak": {"rare_class_crops": 0.5}}
    rows = {"supervised": {"method": {"name": "supervised"}, "senior": None}, "weighted": weighted}
    trials = [{"rows": "all", "labels": "full", "seeds": 0}]
    study = load_study(write_study(tmp_path, rows=rows, trials=trials, compared=["supervision", "weak"]))
    directory = StudyDirectory(study, tmp_path / "out", tmp_path, None)
    recipes = [directory.recipe(Trial(row, "full", 0)) for row in rows]
    plain, weighted_loss = [shared_settings(study, recipe) for recipe in recipes]
    assert plain == weighted_loss
    assert not {"supervision", "weak"} & plain.keys()
    same_in_all = study.model_copy(update={"compared": ()})
    plain, weighted_loss = [shared_settings(same_in_all, recipe) for recipe in recipes]
    assert difference(plain, weighted_loss) == ("weak.rare_class_crops", 0.0, 0.5)
    with pytest.raises(ConfigError, match="differ in weak"):
        StudyDirectory(study.model_copy(update={"compared": ("supervision",)}), tmp_path / "out", tmp_path, None)


def test_settings_that_recipes_gained_since_are_at_their_defaults(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path))
    directory = StudyDirectory(study, tmp_path / "out", tmp_path, tmp_path)
    settings = shared_settings(study, directory.recipe(Trial("segkc", "1/2", 0)))
    stored = json.loads(json.dumps(settings))
    assert stored == settings == completed(stored, "r.json")
    assert append_rows(tmp_path / "r.json", [made_row(settings=settings)])[0].settings == settings
    assert read_rows(tmp_path / "r.json")[0].settings == settings  # null too
    del stored["weak"]["rare_class_crops"], stored["validation"]["most_pixels"], stored["junior"]["input"]
    assert difference(completed(stored, "r.json"), settings) is None
    stored["weak"]["flip"] = 0.25
    assert difference(completed(stored, "r.json"), settings) == ("weak.flip", 0.25, 0.5)


def test_entropymix_is_a_rows_own(tmp_path: Path) -> None:
    mixed = {"strong": {"entropymix": {"mode": "after-cutmix"}}, "method": {"strong_views": 2}}
    study = load_study(write_study(tmp_path, rows=STUDY["rows"] | {"segkc": mixed}))
    recipe = StudyDirectory(study, tmp_path / "out", tmp_path, None).recipe(Trial("segkc", "1/2", 5))
    assert (recipe.seed, recipe.strong.entropymix.mode) == (5, "after-cutmix")


@pytest.mark.parametrize(
    ("layout", "labels", "section"),
    [
        ("folders", "1/8", {"fraction": "1/8"}),
        ("camvid", "1/8", {"partition": "1/8"}),
        ("cityscapes", "1/8", {"partition": "1/8"}),
        ("voc", "366", {"partition": "366"}),
        ("voc", "blended-1/8", {"partition": "blended-1/8"}),
        ("camvid", "full", None),
    ],
)
def test_labels_are_a_published_partition_or_a_drawn_part(
    tmp_path: Path, layout: str, labels: str, section: dict[str, str] | None
) -> None:
    trials = [{"rows": "all", "labels": labels, "seeds": 0}]
    study = load_study(write_study(tmp_path, data={"layout": layout, "classes": CLASSES}, trials=trials))
    spec = write_data_spec(study, labels, 0, tmp_path, None, tmp_path / "out")
    assert yaml.safe_load(spec.read_text()).get("labeled") == section
    load_data_spec(spec)


def test_every_seed_may_have_labels_of_its_own(tmp_path: Path) -> None:
    write_tiny_data(tmp_path / "data")
    drawn = {0: ["000", "001"], 1: ["001", "002"]}
    for seed, ids in drawn.items():
        path = tmp_path / "data" / "splits" / f"seed{seed}" / "1_2.txt"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(ids))
    trials = [{"rows": "supervised", "labels": ["1/2", "full"], "seeds": [0, 1]}]
    study = load_study(write_study(tmp_path, lists="splits/seed{seed}/{labels}.txt", trials=trials))
    directory = StudyDirectory(study, tmp_path / "out", tmp_path / "data", None)
    for seed, ids in drawn.items():
        sets = load_data_spec(directory.specs["1/2", seed]).resolve()
        assert [sample.id for sample in sets.labeled] == ids
    assert directory.specs["full", 0] == directory.specs["full", 1]
    facts = [directory.data_facts(Trial("supervised", labels, seed)) for labels in ("1/2", "full") for seed in (0, 1)]
    assert facts[0]["labeled"] == facts[1]["labeled"]
    assert facts[0]["sha256"] != facts[1]["sha256"]
    assert facts[2] == facts[3]


# Real trainings


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


# Who trains what, with programs in directory of trainings


MACHINE = {"cpu": "test", "cores": 1, "ram_gib": 1.0, "gpus": [], "packages": {"torch": "2"}}


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


# Rows and tables


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


def test_rows_replace_those_of_the_same_cell(tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    append_rows(path, [*made_rows("segkc", [30, 31], [35]), made_row(study="other", miou=1)])
    merged = replace_rows(path, [made_row(miou=40), made_row(seed=2)], lambda row: (row.study, row.role, row.seed))
    found = [(row.study, row.role, row.seed, row.miou) for row in merged]
    assert found == [
        ("made", "junior", 0, 40),
        ("made", "junior", 1, 31),
        ("made", "junior", 2, 30),
        ("made", "senior", 0, 35),
        ("other", "junior", 0, 1),
    ]
    assert read_rows(path) == merged


@pytest.mark.parametrize(
    ("values", "significance"),
    [
        ((1.5, 2.0, 2.5), "outside"),  # mean 2, standard error 0.5 / √3 = 0.289, times 4.303 = 1.24
        ((1.0, 2.0, 3.0), "within"),  # one sign; mean 2, standard error 0.577, times 4.303 = 2.48
        ((1.0, 2.0, 3.0, 2.0), "outside"),  # mean 2, standard error 0.408, times 3.182 = 1.30
        ((-1.5, -2.0, -2.5), "outside"),
        ((*[1.0, 3.0] * 6,), "outside"),  # mean 2, standard error 0.302
        ((-0.1, 5.0, 5.0, 5.0, 5.0, 5.0), "within"),  # mean 4.15, standard error 0.85, but one seed speaks against it
        ((0.0, 0.0, 0.0), "within"),
        ((9.0, 9.0), "not judged"),
        ((9.0,), "not judged"),
    ],
)
def test_the_rule_by_which_a_difference_is_judged(values: tuple[float, ...], significance: str) -> None:
    assert PairedDifference(values).significance == significance


def test_a_share_of_the_headroom_has_an_interval_from_three_seeds_on() -> None:
    rows = [
        *made_rows("supervised", [20, 22, 24]),
        *made_rows("segkc", [30, 31, 33.5]),
        *made_rows("supervised", [40, 42, 44], labels="full"),
    ]
    # 10, 9 and 9.5 of 20 points; 9.5 ± 4.303 · 0.5 / √3.
    assert (
        "| segkc, 1/8 | 3 | 31.50 ± 1.80 | +9.50 ± 0.50 (outside) | +8.3 to +10.7 | 48% |"
        in study_text(rows).splitlines()
    )
    assert "Headroom" not in study_text(rows[:-3])


def test_minutes_are_given_with_the_processors_time() -> None:
    rows = [*made_rows("supervised", [20, 22], seconds=120.0, processor_seconds=90.0), *made_rows("segkc", [30, 31])]
    text = study_text(rows)
    assert "| minutes (of the processor) |" in text
    assert "| 2.0 (1.5) |" in text
    assert "of the processor" not in study_text(made_rows("supervised", [20, 22]))


def test_minutes_are_not_averaged_over_different_processors() -> None:
    usual = made_rows("supervised", [20, 22], seconds=120.0)
    slow = MACHINE | {"cpu_features": ["AVX2"]}
    other = made_row(row="supervised", miou=24, seed=2, seconds=600.0, machine=slow)
    text = study_text([*usual, other])
    assert "| 2.0 |" in text and "0: 20.00, 1: 22.00, 2: 24.00" in text
    assert "on the machine that trained most" in text
    assert "machine: test, 1 core, 1.0 GiB, no GPU or test (AVX2), 1 core, 1.0 GiB, no GPU;" in text
    assert "on the machine that trained most" not in study_text(usual)


def test_merged_classes_by_hand() -> None:
    """Classes a, b, c with b counted as a: the pixels that b and a confuse become right."""
    confusion = np.array([[5, 2, 1], [3, 4, 0], [1, 0, 9]])
    # a: 14 right of 14 + 1 + 1; c: 9 of 9 + 1 + 1.
    assert merged_miou(confusion, ["a", "b", "c"], {"a": ["b"]}) == pytest.approx(50 * (14 / 16 + 9 / 11))
    assert merged_miou(confusion, ["a", "b", "c"], {}) == pytest.approx(100 / 3 * (5 / 12 + 4 / 9 + 9 / 11))
    with pytest.raises(ConfigError, match="merge: no class 'd'; the classes are a, b, c"):
        merged_miou(confusion, ["a", "b", "c"], {"a": ["d"]})
    text = study_text([*made_rows("supervised", [20, 22], miou_merged=40.0, merged={"a": ["b", "c"]})])
    assert "| junior mIoU, merged classes |" in text
    assert "| 40.00 ± 0.00 |" in text
    assert "- merged classes: b, c as a" in text


def test_differences_are_paired_by_seed() -> None:
    assert paired({0: 3.0, 1: 5.0, 4: 9.0}, {1: 4.5, 0: 1.0, 2: 7.0}) == PairedDifference((2.0, 0.5))
    assert paired({0: 1.0}, {1: 1.0}) is None


def test_tables_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        *made_rows("supervised", [20, 22, 24], seconds=60.0),
        *made_rows("fixmatch", [26, 27, 28]),
        *made_rows("unimatch-v2", [27, 28, 29.6]),
        *made_rows("segkc", [30, 31, 33.5], [34, 35, 36]),
        *made_rows("segkc-no-gate", [29, 32], [34, 35]),
        *made_rows("supervised", [40, 41], labels="full"),
        *made_rows("segkc", [44], [45], labels="full", commit="abc, def"),  # it was interrupted
    ]
    path = tmp_path / "made.json"
    append_rows(path, rows)
    assert tables_main([str(path)]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    # Differences of segkc to supervised 10, 9, 9.5; to unimatch-v2 3, 3, 3.9; to its senior -4, -4, -2.5.
    for line in (
        "| supervised | 22.00 ± 2.00 | 0: 20.00, 1: 22.00, 2: 24.00 | – | -9.50 ± 0.50 (outside) | 31.00 ± 0.00 | – | –"
        " | 1.0 |",
        "| segkc | 31.50 ± 1.80 | 0: 30.00, 1: 31.00, 2: 33.50 | +9.50 ± 0.50 (outside) | – | 31.00 ± 0.00"
        " | 35.00 ± 1.00 | -3.50 ± 0.87 (outside) | 1.5 |",
        "Best method of one network: unimatch-v2. segkc − unimatch-v2: +3.30 ± 0.52 (outside).",
        # With full labels seeds 0 and 1 alone: 20 and 19 points of headroom, of which segkc gains 10 and 9.
        "| supervised, 1/8 | 2 | 21.00 ± 1.41 | – | – | – |",
        "| supervised, full | 2 | 40.50 ± 0.71 | +19.50 ± 0.71 (not judged) | – | 100% |",
        "| segkc, 1/8 | 2 | 30.50 ± 0.71 | +9.50 ± 0.71 (not judged) | – | 49% |",
        "| segkc-no-gate, 1/8 | 2 | 30.50 ± 2.12 | +9.50 ± 0.71 (not judged) | – | 49% |",
        "| row (number of seeds) | 1/8 | full |",
        "| supervised | 22.00 ± 2.00 (3) | 40.50 ± 0.71 (2) |",
        "| segkc − supervised | +9.50 ± 0.50 (outside) | +4.00 (not judged) |",
        # Seeds 0 and 1: -1 and +1.
        "| segkc-no-gate | 30.50 ± 2.12 | 0: 29.00, 1: 32.00 | +0.00 ± 1.41 (not judged) | 31.00 ± 0.00"
        " | 34.50 ± 0.71 | -4.00 ± 1.41 (not judged) | 1.5 |",
        "- 900 steps; per step 4 labeled images, and 4 unlabeled ones where a method uses them; crops 192×256; scored"
        " at network input 352×480",
        "- junior of every row: mobilenet + fpn 64, random weights (0.56M)",
        "- senior: resnet18 + fpn 64, random weights (11.42M) (segkc, segkc-no-gate)",
        "- machine: test, 1 core, 1.0 GiB, no GPU; threads of a training: 1",
        "- code: commit abc, def",
        "- command: `python -m segkc_deploy.benchmarks.studies made.yaml`",
    ):
        assert line in lines
    methods, _, ablations = text.partition("## Ablations")
    assert "segkc-no-gate" not in methods.partition("## Methods")[2].partition("## Headroom")[0]
    assert "fixmatch" not in ablations
    with pytest.raises(UserError, match=r"no\.json"):
        tables_main([str(tmp_path / "no.json")])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 1000}, "steps is 900 in row segkc, labels 1/8, seed 0, but 1000 in row cps, labels 1/8, seed 0"),
        ({"crop_size": [96, 96]}, "crop_size is"),
        (
            {"settings": {"precision": "fp32", "weak": {"flip": 0.25}}},
            "weak.flip is 0.5 in row segkc, labels 1/8, seed 0, but 0.25 in row cps, labels 1/8, seed 0",
        ),
        ({"settings": {"precision": "fp32"}}, "weak is {'scale': [0.5, 2.0], "),
        ({"settings": {"weak": {"twist": 1}}}, "row cps, labels 1/8, seed 0: this version cannot read weak.twist"),
        ({"settings": {"wake": {}}}, "row cps, labels 1/8, seed 0: studies of this version have no setting wake"),
        ({"settings": None}, "row cps, labels 1/8, seed 0: not a training of a study of methods"),
        ({"network": "other"}, "network is"),
        ({"images": {"labeled": 46, "unlabeled": 321, "val": 101, "sha256": "other"}}, "images is"),
        ({"images": None}, "row cps, labels 1/8, seed 0: not a training of a study of methods"),
    ],
)
def test_rows_of_different_trainings_make_no_table(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        study_text([made_row(), made_row(row="cps", **changes)])
    assert message in str(error.value)


STUDIES = Path(__file__).parents[2] / "benchmarks" / "studies"


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_studies_can_be_trained(tmp_path: Path, path: Path) -> None:
    study = load_study(path)
    assert study.name == path.stem  # its results are found by the file's name
    drives = STUDIES / "camvid-drives"
    lists = drives if f"--lists benchmarks/studies/{drives.name}" in path.read_text() else None
    directory = StudyDirectory(study, tmp_path, tmp_path, lists)
    trials = study.ordered_trials()
    assert {trial.row for trial in trials} == set(study.rows)
    for row in study.rows:
        recipe = directory.recipe(Trial(row, "1/8", 7))
        assert (recipe.name, recipe.seed) == (row, 7)
        with torch.device("meta"):
            networks = build_method(without_pretrained(recipe), 11, 255).networks()
        assert ("senior" in networks) == (recipe.senior is not None)
    for (labels, seed), spec in directory.specs.items():
        section = yaml.safe_load(spec.read_text()).get("labeled")
        name = labels.replace("/", "_")
        if labels == "full":
            assert section == study.data.get("labeled")
        elif study.lists:
            assert section["ids"] == f"splits/seed{seed}/{name}/labeled.txt"  # as the data sets have them
        else:  # a published list or one that is here, of which others can take the same
            assert section == ({"ids": str(drives / f"{labels}.txt")} if lists else {"partition": labels})


def test_the_lists_of_drives_are_of_one_size_and_of_what_their_names_say() -> None:
    names = {path.stem: path.read_text().split() for path in (STUDIES / "camvid-drives").iterdir()}
    assert {name: len(set(ids)) for name, ids in names.items()} == {"same-drive": 46, "other-drives": 46}
    assert {name.partition("_")[0] for name in names["same-drive"]} == {"0016E5"}
    assert {name.partition("_")[0] for name in names["other-drives"]} == {"0001TP", "0006R0"}


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_tables_are_those_of_the_rows(path: Path) -> None:
    results = STUDIES.parent / "results" / f"{path.stem}.json"
    tables = results.with_suffix(".md")
    assert results.is_file() == tables.is_file()
    if results.is_file():
        rows = read_rows(results)
        # A study of several juniors has no rows that are compared in pairs.
        several = "junior" in load_study(path).compared
        text = f"### {path.stem}\n\n{study_table(rows)}" if several else study_text(rows)
        assert text + "\n" == tables.read_text()  # as printed
