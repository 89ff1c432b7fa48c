"""Training on several devices, here two processes on the CPU. Each launch loads PyTorch anew, so there are few."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from rank_functions import fail_on_rank_1
from safetensors.torch import load_file
from tiny_data import tiny_recipe, write_recipe, write_tiny_data

from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import DataError
from segkc_deploy.training.distributed import run_on_ranks
from segkc_deploy.training.evaluation.evaluate_run import evaluate_run
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
    # Sums in another order: about 1e-7 of a loss a step, which training then amplifies.
    assert losses(run)[:5] == pytest.approx(losses(alone.path)[:5], rel=1e-5)
    assert losses(run) == pytest.approx(losses(alone.path), rel=1e-3)
    assert result.miou == pytest.approx(alone.miou, abs=1)
    assert result.skipped == alone.skipped
    assert len(result.skipped) == 1
    scored = evaluate_run(run, "junior", load_data_spec(data).resolve(), "cpu").evaluation.scores.miou
    assert scored == pytest.approx(result.miou["junior_ema"])  # of all images, although each rank looked at some
    assert sorted(path.name for path in run.iterdir()) == sorted(path.name for path in alone.path.iterdir())
    expected = load_file(alone.path / "junior.safetensors")
    got = load_file(run / "junior.safetensors")
    assert expected.keys() == got.keys()
    assert max(float((expected[name] - got[name]).abs().max()) for name in expected) < 1e-3


@pytest.mark.timeout(600)
def test_a_mistake_on_one_rank_ends_all_and_is_raised_once(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match=r"^a\.png: cannot be read$"):
        run_on_ranks(partial(fail_on_rank_1, Path("a.png")), 2)
    assert capfd.readouterr() == ("", "")
    assert not {"LOCAL_RANK", "MASTER_PORT"} & os.environ.keys()
