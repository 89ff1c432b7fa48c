"""A run directory belongs to one process at a time, and what a killed one leaves behind is cleaned up."""

import json
import multiprocessing
import os
import signal
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_data import tiny_recipe

from segkc_deploy.errors import RunDirectoryError
from segkc_deploy.folder_lock import LOCK_NAME, folder_lock
from segkc_deploy.training.files.checkpoint import Checkpoint, CheckpointWriter, read_newest_checkpoint
from segkc_deploy.training.files.run_directory import RunDirectory, create_run, remove_temporaries
from segkc_deploy.training.files.tensor_file import read_tensors, write_tensors


def hold(run: Path, held: Event) -> None:
    with folder_lock(run):
        held.set()
        signal.pause()


def test_a_run_in_use_is_refused_and_a_dead_process_locks_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=hold, args=(tmp_path, held), daemon=True)
    process.start()
    assert held.wait(120)
    refusal = rf"in use by process {process.pid} on host \S+ since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d; wait"
    with pytest.raises(RunDirectoryError, match=refusal), folder_lock(tmp_path):
        pass
    process.kill()
    process.join()
    assert (tmp_path / LOCK_NAME).exists()
    with folder_lock(tmp_path):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_one_process_does_not_lock_a_run_twice(tmp_path: Path) -> None:
    with folder_lock(tmp_path), pytest.raises(RunDirectoryError, match="in use by this process"), folder_lock(tmp_path):
        pass
    with folder_lock(tmp_path):
        pass


def test_unfinished_files_of_a_killed_process_are_removed_and_no_others(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.checkpoint.parent.mkdir()
    unfinished = [
        tmp_path / ".junior-abcd_123.safetensors",
        tmp_path / ".config-00000000.yaml",
        run.checkpoint.parent / ".last-zzzzzzzz.safetensors",
    ]
    others = [tmp_path / ".junior-fp32-abcd1234.onnx", tmp_path / "junior.safetensors", tmp_path / ".notes"]
    for path in [*unfinished, *others]:
        path.write_bytes(b"")
    remove_temporaries(run)
    assert not any(path.exists() for path in unfinished)
    assert all(path.exists() for path in others)


def test_an_empty_run_with_only_its_lock_can_be_created(tmp_path: Path) -> None:
    with folder_lock(tmp_path / "run"):
        run = create_run(tmp_path / "run", tiny_recipe(), None, overwrite=False)
    assert [path.name for path in run.path.iterdir()] == ["config.yaml"]


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_tensors(path, {"a": torch.arange(6).reshape(2, 3), "b": torch.tensor(1.5, dtype=torch.bfloat16)}, {"k": "v"})
    tensors, metadata = read_tensors(path)
    assert metadata == {"k": "v"}
    assert torch.equal(tensors["a"], torch.arange(6).reshape(2, 3))
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    assert load_file(path).keys() == {"a", "b"}  # which safetensors itself does not notice
    with pytest.raises(RunDirectoryError, match=r"weights\.safetensors: damaged: its content does not match"):
        read_tensors(path)


def checkpoint(step: int, value: float | None = None) -> Checkpoint:
    return Checkpoint(step, {"w": torch.full((4,), float(step) if value is None else value)}, {})


def test_the_last_two_checkpoints_are_kept_and_a_damaged_one_is_passed_over(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    writer = CheckpointWriter(run)
    for saved in (checkpoint(2), checkpoint(4), checkpoint(6, 0.0), checkpoint(6)):  # the last one again, with scores
        writer.save(saved)
    writer.close()
    assert writer.step == 6
    assert [path.name for path in run.existing_checkpoints()] == ["last.safetensors", "previous.safetensors"]
    newest, remark = read_newest_checkpoint(run)
    assert (newest.step, newest.tensors["w"][0].item(), remark) == (6, 6.0, "")

    run.checkpoint.write_bytes(run.checkpoint.read_bytes()[:-1])
    older, remark = read_newest_checkpoint(run)
    assert older.step == 4
    assert "last.safetensors: damaged" in remark
    assert "previous.safetensors (step 4) instead" in remark
    run.previous_checkpoint.write_bytes(b"")
    with pytest.raises(RunDirectoryError, match=r"last\.safetensors: .*; .*previous\.safetensors: .*start anew"):
        read_newest_checkpoint(run)


def test_a_checkpoint_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    writer = CheckpointWriter(RunDirectory(tmp_path))
    writer.save(checkpoint(2))
    with pytest.raises(OSError, match="checkpoints"):
        writer.close()
    assert writer.step == 0
