"""Training on several devices, here processes on the CPU. Each launch loads PyTorch anew, so there are few."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from rank_functions import (
    LabeledBatch,
    fail_on_rank_1,
    kill_rank_1,
    pseudo_label_statistics,
    pseudo_label_statistics_of_ranks,
    return_before_the_last_operations_end,
)
from safetensors.torch import load_file
from tiny_data import tiny_recipe, write_recipe, write_tiny_data

from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import DataError, RankDiedError
from segkc_deploy.training import distributed
from segkc_deploy.training.distributed import run_on_ranks
from segkc_deploy.training.evaluation.evaluate_run import evaluate_run
from segkc_deploy.training.files.checkpoint import read_newest_checkpoint
from segkc_deploy.training.files.run_directory import RunDirectory
from segkc_deploy.training.train import train_run

STEPS = 14
#: No batch normalization, which sees other batches; nothing random but in loading; no padding, so that equal shares
#: hold equally many pixels.
RECIPE = {
    "junior": {"backbone": "vit_tiny_patch16_224", "decoder_channels": 8},
    "senior": None,
    "method": {"name": "fixmatch", "strong_views": 1, "confidence_threshold": 0.3},
    "batch": {"labeled": 4, "unlabeled": 4, "accumulation": 1},
    "strong": {"cutmix_probability": 0},
    "weak": {"scale": (1.0, 1.0)},
    "optimizer": {"lr": 1e-4, "decoder_lr_multiplier": 1},
    "schedule": {"steps": STEPS},
    "validation": {"every": 1000},
    "checkpoint_every": 2,
}


def losses(run: Path) -> list[float]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    trained = [record for record in records if record["kind"] == "train"]
    assert [record["step"] for record in trained] == list(range(1, len(trained) + 1))
    return [record["loss"] for record in trained]


def validated(run: Path) -> dict[str, float]:
    """The last validation's scores."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [record for record in records if record["kind"] == "validation"][-1]
    return {name: value for name, value in last.items() if name.startswith("miou_")}


def interrupt_after(text: str, log: Path, command: list[object]) -> tuple[int, str]:
    """Run a command, press Ctrl-C when `text` is in its log, and return its exit code and what it told on stderr."""
    # A test run in the background may ignore Ctrl-C, and what it starts would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        [Path(sys.executable).with_name("segkc-deploy"), *map(str, command)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        signal.signal(signal.SIGINT, before)
        try:
            while not (log.is_file() and text in log.read_text()):
                assert process.poll() is None, process.communicate()
                time.sleep(0.02)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: every process gets it
            told = process.communicate()[1]
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, told


@pytest.mark.timeout(900)  # five processes load PyTorch
def test_two_ranks_train_as_one_and_go_on_after_an_interrupt(tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data")
    (tmp_path / "data" / "images" / "extra" / "001.png").write_bytes(b"damaged")
    recipe = str(write_recipe(tmp_path / "tiny.yaml", tiny_recipe(**RECIPE)))
    run = tmp_path / "shared"
    command = ["train", "--data", data, "--recipe", recipe, "--out", run, "--device", "cpu", "--devices", "2"]
    code, told = interrupt_after(f"step 3/{STEPS}", run / "train.log", command)
    assert code == 75
    assert told.count("stopped by SIGINT") == 1
    assert told.splitlines()[-1].endswith("--devices 2 --resume")
    assert "Traceback" not in told
    assert "Warning" not in told
    log = (run / "train.log").read_text()
    assert "stopped by SIGINT after step" in log
    assert "on 2 × cpu" in log
    assert "4 labeled + 4 unlabeled images a step = 2 devices × 1 micro-batch (batch.accumulation) × 2 + 2" in log

    result = train_run(None, None, run, resume=True, device="cpu", devices=2)
    alone = train_run(data, recipe, tmp_path / "alone", device="cpu")
    assert losses(run) == pytest.approx(losses(alone.path), rel=1e-5)  # sums in another order
    assert result.miou == pytest.approx(alone.miou)
    assert result.skipped == alone.skipped
    assert len(result.skipped) == 1
    scored = evaluate_run(run, "junior", load_data_spec(data).resolve(), "cpu").evaluation.scores.miou
    assert scored == pytest.approx(result.miou["junior_ema"])  # of all images, although each rank looked at some
    assert sorted(path.name for path in run.iterdir()) == sorted(path.name for path in alone.path.iterdir())
    expected = load_file(alone.path / "junior.safetensors")
    got = load_file(run / "junior.safetensors")
    assert expected.keys() == got.keys()
    assert max(float((expected[name] - got[name]).abs().max()) for name in expected) < 1e-3


@pytest.mark.timeout(900)
def test_an_interrupt_between_two_records_stops_all_ranks(tmp_path: Path) -> None:
    """At a step that nothing else would log or save: a rank that did not know of it would go on without the others."""
    data = write_tiny_data(tmp_path / "data")
    rarely = {"log_every": 1000, "checkpoint_every": 1000, "schedule": {"steps": 1000}}
    recipe = write_recipe(tmp_path / "tiny.yaml", tiny_recipe(**RECIPE | rarely))
    run = tmp_path / "run"
    command = ["train", "--data", data, "--recipe", recipe, "--out", run, "--device", "cpu", "--devices", "2"]
    code, told = interrupt_after("validation: ", run / "train.log", command)
    assert code == 75, told
    assert "Traceback" not in told
    (step,) = re.findall(r"stopped by SIGINT after step (\d+), which is saved", told)
    checkpoint, _ = read_newest_checkpoint(RunDirectory(run))
    assert checkpoint.step == int(step) < 1000


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_under_torchrun_train_as_one(tmp_path: Path, ranks: int) -> None:
    """A minute with 2 ranks and two with 4, of two cores. With 2, one is killed on the way and torchrun restarts both.

    The bar: losses to 1e-5 of the single process's, and the same mIoU in the end.
    """
    data = write_tiny_data(tmp_path / "data")
    recipe = str(write_recipe(tmp_path / "tiny.yaml", tiny_recipe(**RECIPE)))
    given = ["--data", data, "--recipe", recipe, "-o", "optimizer.lr=5e-4", "--steps", "30", "--device", "cpu"]
    run, alone = tmp_path / "shared", tmp_path / "alone"
    torchrun = [Path(sys.executable).with_name("torchrun"), "--standalone", "--max-restarts", "1"]
    torchrun += ["--nproc-per-node", ranks, "-m", "segkc_deploy", "train", *given, "--out", run]
    # With PyTorch 2.15.0 restarted ranks would look for each other at the addresses of the first attempt.
    environment = os.environ | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    outputs = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*map(str, torchrun)], env=environment, text=True, **outputs) as job:
        if ranks == 2:
            kill_rank_1_after("step 5/30", run / "train.log", job)
        printed, told = job.communicate()
    assert job.returncode == 0, told
    assert printed.count("finished: ") == 1
    assert told.count("steps from step 0 on") == 1
    if ranks == 2:
        assert re.search(r"error: rank 1 of 2 \(process \d+ on host \S+\) has died, which ends the training", told)
        (resumed_from,) = re.findall(r"30 steps from step ([1-9]\d*) on 2 × cpu", told)
        assert int(resumed_from) >= 4
    result = train_run(data, recipe, alone, ["optimizer.lr=5e-4", "schedule.steps=30"], device="cpu")
    assert losses(run) == pytest.approx(losses(result.path), rel=1e-5)
    assert validated(run) == pytest.approx(validated(result.path), abs=1e-9)


def kill_rank_1_after(text: str, log: Path, job: subprocess.Popen[str]) -> None:
    """Wait until `text` is in `log` and kill the rank 1 of a torchrun."""
    while not (log.is_file() and text in log.read_text()):
        assert job.poll() is None, job.communicate()
        time.sleep(0.02)
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    (rank_1,) = [child for child in children if b"\0RANK=1\0" in Path(f"/proc/{child}/environ").read_bytes()]
    os.kill(int(rank_1), signal.SIGKILL)


@pytest.mark.timeout(600)
def test_statistics_of_pseudo_labels_are_those_of_all_ranks_images() -> None:
    """Of four classes the last but one is seen by rank 1 alone, the last by none; once rank 0 has padding alone."""
    generator, classes = torch.Generator().manual_seed(5), 4
    batches = []
    for number in range(8):
        logits = torch.randn(4, classes, 6, 7, generator=generator) + torch.tensor([1.0, 0, -50, -50])[:, None, None]
        if number == 2:
            logits[3, 2, :2] += 55
        masks = torch.randint(0, 2, (4, 6, 7), generator=generator)
        masks[3, 0] = 2
        valid = torch.rand(4, 6, 7, generator=generator) < 0.8
        valid[:2] &= number != 4
        batches.append(LabeledBatch(masks, logits, valid))
    alone = pseudo_label_statistics(batches, classes)
    assert alone["batches"] == [8, 8, 1, 0]
    of_ranks = run_on_ranks(partial(pseudo_label_statistics_of_ranks, batches, classes), 2)
    assert of_ranks[0] == of_ranks[1]  # so that averaging the ranks' buffers changes nothing
    for name, expected in alone.items():
        assert of_ranks[0][name] == pytest.approx(expected, rel=1e-5, abs=1e-7), name


@pytest.mark.timeout(600)
def test_ranks_end_in_order_while_operations_still_run() -> None:
    assert run_on_ranks(return_before_the_last_operations_end, 2) == "done"


@pytest.mark.parametrize(("backend", "kept"), [("nccl", True), ("gloo", False)])
def test_only_nccl_leaves_its_group_as_it_is_after_an_error(
    monkeypatch: pytest.MonkeyPatch, backend: str, kept: bool
) -> None:
    unregistered: list[object] = []
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: backend)
    monkeypatch.setattr(distributed.atexit, "unregister", unregistered.append)
    distributed.keep_process_group()
    assert unregistered == ([distributed._leave_process_group] if kept else [])


@pytest.mark.timeout(600)
def test_a_killed_rank_ends_the_others_and_is_named() -> None:
    started = time.monotonic()
    with pytest.raises(RankDiedError, match=r"^rank 1 of 2 \(process \d+\) was ended by SIGKILL$"):
        run_on_ranks(kill_rank_1, 2)
    assert time.monotonic() - started < 300  # most of it loads PyTorch twice; without the end rank 0 waits for an hour


@pytest.mark.timeout(600)
def test_a_mistake_on_one_rank_ends_all_and_is_raised_once(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match=r"^a\.png: cannot be read$"):
        run_on_ranks(partial(fail_on_rank_1, Path("a.png")), 2)
    assert capfd.readouterr() == ("", "")
    assert not {"LOCAL_RANK", "MASTER_PORT"} & os.environ.keys()
