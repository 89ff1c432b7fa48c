"""Ranks that torchrun or SLURM has started: how they are found, how they end together, and how they start again."""

import multiprocessing
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from tiny_data import tiny_recipe, write_recipe, write_tiny_data
from watched_rank import PRELOADED, run_rank

from segkc_deploy.errors import ConfigError, RunDirectoryError
from segkc_deploy.training.files.run_directory import RunDirectory, create_run
from segkc_deploy.training.launched_ranks import LaunchedRanks, launched_job, launched_ranks
from segkc_deploy.training.methods.registry import with_method_defaults
from segkc_deploy.training.resuming import Beginning, beginning, how_to_resume
from segkc_deploy.training.train import train_run

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "8", "RANK": "5", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
SLURM = {"SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4", "SLURM_PROCID": "5", "SLURM_JOB_NAME": "train"}


def set_environment(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(("launcher", "variables"), [("torchrun", TORCHRUN), ("SLURM", SLURM)])
def test_a_launcher_is_found_by_its_variables(
    monkeypatch: pytest.MonkeyPatch, launcher: str, variables: dict[str, str]
) -> None:
    set_environment(monkeypatch, variables)
    found = launched_ranks()
    assert found == LaunchedRanks(launcher, rank=5, ranks=8, ranks_on_node=4)
    assert found.nodes == 2
    assert how_to_resume(Path("runs/a"), 8).endswith(f"--out runs/a --resume, started by {launcher} as before")
    with pytest.raises(ConfigError, match=rf"--devices 2: leave it out, {launcher} has started 8 ranks"):
        train_run(None, None, Path("a"), device="cpu", devices=2)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        TORCHRUN | {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_WORLD_SIZE": "1"},
        {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
        SLURM | {"SLURM_JOB_NAME": "interactive"},
    ],
)
def test_one_process_is_no_rank(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    set_environment(monkeypatch, variables)
    assert launched_ranks() is None
    assert how_to_resume(Path("runs/a"), 2) == "segkc-deploy train --out runs/a --devices 2 --resume"
    assert how_to_resume(Path("my runs/a"), 1) == "segkc-deploy train --out 'my runs/a' --resume"


def test_slurm_has_to_say_how_many_tasks_a_node_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, {"SLURM_NTASKS": "8", "SLURM_PROCID": "0"})
    with pytest.raises(ConfigError, match=r"replace --ntasks=8 by --nodes=N --ntasks-per-node=M"):
        launched_ranks()


def begin_again(run: Path, recipe: Path, *overrides: str, overwrite: bool = False) -> Beginning:
    return beginning(RunDirectory(run), Path("data.yaml"), str(recipe), overrides, False, overwrite)


@pytest.mark.parametrize("count", ["TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"])
def test_a_restarted_job_resumes_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: str) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", tiny_recipe())
    monkeypatch.setenv(count, "1")
    first = begin_again(tmp_path / "run", recipe)
    assert not first.resume and not first.overwrite

    run = create_run(tmp_path / "run", with_method_defaults(tiny_recipe()), Path("data.yaml"), overwrite=False)
    anew = begin_again(run.path, recipe)  # it died before its first checkpoint
    assert anew.overwrite and not anew.resume
    with pytest.raises(ConfigError, match="this run began with seed = 0, not 1"):
        begin_again(run.path, recipe, "seed=1")  # somebody else's run is not deleted

    run.checkpoint.parent.mkdir()
    run.checkpoint.write_bytes(b"")
    resumed = begin_again(run.path, recipe, overwrite=True)
    assert resumed.resume and not resumed.overwrite
    with pytest.raises(ConfigError, match="this run began with seed = 0, not 1"):
        begin_again(run.path, recipe, "seed=1")

    fewer = begin_again(run.path, recipe, "workers=1", "cache={size_gib: 2}")  # whatever its first start was given
    assert (fewer.recipe.workers, fewer.recipe.cache.size_gib) == (1, 2)
    assert fewer.recipe.model_copy(update={"workers": 0, "cache": resumed.recipe.cache}) == resumed.recipe
    edited = write_recipe(tmp_path / "edited.yaml", tiny_recipe(workers=3))
    assert begin_again(run.path, edited).recipe == resumed.recipe

    monkeypatch.setenv(count, "0")
    assert begin_again(run.path, recipe, overwrite=True).overwrite


@pytest.mark.parametrize(
    ("count", "name", "label"),
    [
        ("TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_RUN_ID", "torchrun"),
        ("SLURM_RESTART_COUNT", "SLURM_JOB_ID", "SLURM"),
    ],
)
def test_a_restarted_job_does_not_resume_the_run_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: str, name: str, label: str
) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", tiny_recipe())
    recipe_read, origin = with_method_defaults(tiny_recipe()), {"job": f"{label} 7"}
    run = create_run(tmp_path / "run", recipe_read, Path("data.yaml"), False, origin)
    run.checkpoint.parent.mkdir()
    run.checkpoint.write_bytes(b"")
    set_environment(monkeypatch, {count: "1", name: "7"})
    assert begin_again(run.path, recipe, overwrite=True).resume
    # It died while it read its data: the run of the job before is still there.
    set_environment(monkeypatch, {count: "1", name: "8"})
    begun = begin_again(run.path, recipe, overwrite=True)
    assert begun.overwrite and not begun.resume
    # A launcher that tells its jobs apart by nothing.
    set_environment(monkeypatch, {count: "1", "TORCHELASTIC_RUN_ID": "none"})
    assert begin_again(run.path, recipe, overwrite=True).resume is False


def test_a_job_is_known_by_what_a_requeue_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    set_environment(monkeypatch, {"TORCHELASTIC_RUN_ID": "none"})
    assert launched_job() is None
    set_environment(monkeypatch, {"TORCHELASTIC_RUN_ID": "a"})
    assert launched_job() == "torchrun a"
    set_environment(monkeypatch, {"SLURM_JOB_ID": "7"})
    assert launched_job() == "SLURM 7"


def test_a_run_records_its_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, {"SLURM_JOB_ID": "7"})
    data, recipe = write_tiny_data(tmp_path / "data"), write_recipe(tmp_path / "tiny.yaml", tiny_recipe())
    train_run(data, str(recipe), tmp_path / "run", ["schedule.steps=1"], device="cpu")
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["job"] == "SLURM 7"


def test_an_imported_run_is_not_taken_for_the_restarted_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", tiny_recipe())
    run = create_run(tmp_path / "run", with_method_defaults(tiny_recipe()), None, False, {"imported": {"file": "a"}})
    assert yaml.safe_load(run.config.read_text())["imported"] == {"file": "a"}
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    begun = begin_again(run.path, recipe)
    assert not begun.overwrite and not begun.resume
    with pytest.raises(RunDirectoryError, match="not empty"):
        create_run(run.path, begun.recipe, begun.data, begun.overwrite)


@pytest.mark.parametrize(
    ("ending", "codes", "printed"),
    [
        ("both", (0, 0), ("", "")),
        ("killed 1", (1, -signal.SIGKILL), ("error: rank 1 of 2 (process {1} on host {host}) has died\n", "")),
        ("killed 0", (-signal.SIGKILL, 1), ("", "error: rank 0 of 2 (process {0} on host {host}) has died\n")),
        # As a rank behind a dead network or in a collective operation of NCCL: nothing but its silence tells.
        ("hanging 1", (1, None), ("error: rank 1 of 2 (process {1} on host {host}) has died\n", "")),
        ("stopped 0", (75, 75), ("error: stopped by SIGUSR1\n", "")),
        ("mistaken 1", (2, 2), ("error: a.png: cannot be read\n", "error: a.png: cannot be read\n")),
    ],
)
def test_all_ranks_end_when_one_does(
    tmp_path: Path, ending: str, codes: tuple[int | None, int | None], printed: tuple[str, str]
) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    logs = [tmp_path / "rank 0.log", tmp_path / "rank 1.log"]
    ranks = [context.Process(target=run_rank, args=(rank, port, ending, logs[rank])) for rank in range(2)]
    for process in ranks:
        process.start()
    try:
        deadline = time.monotonic() + 120
        for process, code in zip(ranks, codes, strict=True):
            if code is not None:
                process.join(deadline - time.monotonic())
        assert tuple(process.exitcode for process in ranks) == codes
    finally:
        for process in ranks:
            process.kill()
            process.join()
    host = socket.gethostname()
    expected = [text.format(ranks[0].pid, ranks[1].pid, host=host) for text in printed]
    # PyTorch itself prints pages about a store that is gone.
    lines = [log.read_text().splitlines(keepends=True) for log in logs]
    errors = ["".join(line for line in of_rank if line.startswith("error:")) for of_rank in lines]
    assert errors == expected


@pytest.mark.parametrize(("code", "requeued"), [(0, ""), (1, ""), (75, "requeue 17\n")])
def test_the_slurm_script_requeues_a_job_that_was_stopped(tmp_path: Path, code: int, requeued: str) -> None:
    commands = {"srun": f"echo $* > {tmp_path}/srun.txt; exit {code}", "scontrol": f"echo $* > {tmp_path}/scontrol.txt"}
    for name, line in commands.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    script = Path(__file__).parents[2] / "docs/examples/slurm.sh"
    variables = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}
    command = [script, "data.yaml", "segkc-dinov2-s-voc", "runs/a", "--steps", "9"]
    assert subprocess.run(command, env=variables).returncode == code
    given = (tmp_path / "srun.txt").read_text()
    options = "train --data data.yaml --recipe segkc-dinov2-s-voc --out runs/a --steps 9"
    assert given == f"--kill-on-bad-exit=0 segkc-deploy {options}\n"
    asked = tmp_path / "scontrol.txt"
    assert (asked.read_text() if asked.exists() else "") == requeued
