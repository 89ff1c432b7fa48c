"""A disk that is full names the file, loses nothing that was written, and the run resumes when there is room again."""

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command_line import CommandLine
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_data import tiny_recipe, write_recipe

from segkc_deploy import atomic
from segkc_deploy.training.trackers.tensorboard_file import TensorBoardFile
from segkc_deploy.training.train import train_run

RECIPE = tiny_recipe(senior=None, method={"name": "supervised"}, checkpoint_every=1, schedule={"steps": 3})


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "tiny.yaml", RECIPE)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder of four megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("this user may not mount file systems")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def steps(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_on_a_full_disk_resumes_where_it_was(
    data: Path, recipe: Path, tmp_path: Path, small_disk: Path, command: CommandLine
) -> None:
    whole = train_run(data, str(recipe), tmp_path / "whole", device="cpu")
    size = (tmp_path / "whole" / "checkpoints" / "last.safetensors").stat().st_size
    subprocess.run(["mount", "-o", f"remount,size={int(1.5 * size)}", small_disk], check=True)
    run = small_disk / "run"
    told = command("train", "--data", data, "--recipe", recipe, "--out", run, "--device", "cpu")
    assert told.code == 2
    assert told.err.splitlines()[-1] == (
        f"error: {run}/checkpoints/last.safetensors: No space left on device; make room, and continue with:"
        f" segkc-deploy train --out {run} --resume"
    )
    assert "Traceback" not in told.err
    assert not list((run / "checkpoints").glob(".*"))
    subprocess.run(["mount", "-o", f"remount,size={8 * size}", small_disk], check=True)
    resumed = train_run(None, None, run, resume=True, device="cpu")
    assert resumed.miou == whole.miou
    assert steps(run) == steps(whole.path)
    expected, got = (load_file(path / "junior.safetensors") for path in (whole.path, run))
    assert all(torch.equal(expected[name], got[name]) for name in expected)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("name", ["metrics.jsonl", "train.log"])
def test_a_full_disk_names_the_log_that_could_not_be_written(
    data: Path, recipe: Path, tmp_path: Path, command: CommandLine, name: str
) -> None:
    run = tmp_path / "run"
    train_run(data, str(recipe), run, ["validation.every=2"], device="cpu")
    (run / "checkpoints" / "previous.safetensors").replace(run / "checkpoints" / "last.safetensors")  # step 2
    kept = (run / name).read_text()
    (run / name).rename(run / "kept")
    (run / name).symlink_to("/dev/full")
    told = command("train", "--out", run, "--device", "cpu", "--resume")
    assert told.code == 2
    assert told.err.splitlines()[-1].startswith(f"error: {run}/{name}: No space left on device; make room")
    assert "Traceback" not in told.err
    (run / "kept").replace(run / name)
    train_run(None, None, run, resume=True, device="cpu")
    assert (run / name).read_text().startswith(kept[:200])
    assert steps(run) == [1, 2, 2, 3, 3]


def test_a_full_disk_names_the_file_of_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = TensorBoardFile(tmp_path, 0)
    monkeypatch.setattr(file._records, "flush", full)
    with pytest.raises(OSError, match="No space left on device") as raised:
        file.scalars(1, {"loss": 1.0})
    assert raised.value.filename == str(file.path)
    file.close()


def test_tensorboard_reads_what_a_resumed_run_wrote(tmp_path: Path) -> None:
    for first_step, values in ((0, {1: 0.5, 2: 7.0}), (1, {2: 0.25})):
        file = TensorBoardFile(tmp_path, first_step)
        for step, value in values.items():
            file.scalars(step, {"train/loss": value})
        file.picture(2, "validation/0", torch.zeros(4, 6, 3, dtype=torch.uint8).numpy())
        file.close()
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    assert [(event.step, event.value) for event in read.Scalars("train/loss")] == [(1, 0.5), (2, 0.25)]
    assert [(picture.width, picture.height) for picture in read.Images("validation/0")] == [(6, 4)]


def test_a_line_that_was_cut_off_is_ended_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    atomic.append_line(path, "first")
    with path.open("a") as file:
        file.write("torn")
    atomic.append_line(path, "whole")
    atomic.append_line(path, "last")
    assert path.read_text().splitlines() == ["first", "torn", "whole", "last"]
