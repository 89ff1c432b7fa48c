"""Whole trainings, tiny: determinism, bit-exact resume, what a run directory holds, and how errors are reported."""

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from command_line import CommandLine
from safetensors.torch import load_file, save_file
from tiny_data import tiny_recipe, write_recipe, write_tiny_data

from segkc_deploy.errors import (
    ConfigError,
    DataError,
    NonFiniteLossError,
    RunDirectoryError,
    TrainingStoppedError,
    UserError,
)
from segkc_deploy.training.files.checkpoint import read_newest_checkpoint
from segkc_deploy.training.files.network_file import load_network, read_metadata
from segkc_deploy.training.files.run_directory import RunDirectory, create_run, is_trained_here, read_config
from segkc_deploy.training.job import _check_precision
from segkc_deploy.training.loop import Trainer
from segkc_deploy.training.run_log import RunLog
from segkc_deploy.training.summary import RunResult
from segkc_deploy.training.train import train_run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_recipe(tmp_path_factory.mktemp("recipe") / "tiny.yaml", tiny_recipe()))


@pytest.fixture(scope="module")
def finished(data: Path, recipe: str, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return train_run(data, recipe, tmp_path_factory.mktemp("runs") / "whole", device="cpu")


def interrupt_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make training die at the start of 0-based step `steps`, as a killed process would."""
    step = Trainer._train_step

    def dying(self: Trainer, number: int, *arguments: object) -> int:
        if number == steps:
            raise KeyboardInterrupt
        return step(self, number, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_train_step", dying)


def metrics(run: Path, *without: str) -> list[dict[str, object]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key not in without} for record in records]


def test_a_run_holds_everything(finished: RunResult) -> None:
    names = {path.name for path in finished.path.iterdir()}
    assert {"config.yaml", "train.log", "metrics.jsonl", "tensorboard", "checkpoints"} <= names
    assert {"junior.safetensors", "senior.safetensors"} <= names
    assert set(finished.miou) == {"junior", "senior", "junior_ema", "senior_ema"}
    metadata = read_metadata(finished.path / "junior.safetensors")
    assert (metadata.role, metadata.step, metadata.method, metadata.ema) == ("junior", 4, "segkc", True)
    assert metadata.input_size == (64, 64)  # 48x64 images, multiples of 32: 48 is as close to 64 as to 32
    assert metadata.scores == {name: finished.miou[name] for name in ("junior", "junior_ema")}
    assert any(finished.path.glob("tensorboard/events*"))


def test_the_exported_file_holds_the_junior_alone(finished: RunResult) -> None:
    junior = load_file(finished.path / "junior.safetensors")
    assert all(name.startswith(("backbone.", "decoder.")) for name in junior)
    network, _ = load_network(finished.path / "junior.safetensors")
    assert set(junior) == set(network.state_dict())


def test_metrics_are_recorded_by_step(finished: RunResult) -> None:
    records = metrics(finished.path)
    assert [record["step"] for record in records if record["kind"] == "train"] == [1, 2, 3, 4]
    assert [record["step"] for record in records if record["kind"] == "validation"] == [2, 4]
    assert {"loss", "supervised_junior", "cps_senior", "mask_ratio_junior", "lr", "images_per_s"} <= set(records[0])


@pytest.mark.parametrize("killed_at", [2, 3])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_by_bit(
    finished: RunResult, data: Path, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(killed_at, patch)
        train_run(data, recipe, tmp_path / "run", device="cpu")
    torch.manual_seed(999)  # a new process starts with another random state
    resumed = train_run(None, None, tmp_path / "run", resume=True, device="cpu")
    for name in ("checkpoints/last.safetensors", "junior.safetensors", "senior.safetensors"):
        expected, got = load_file(finished.path / name), load_file(tmp_path / "run" / name)
        assert expected.keys() == got.keys()
        assert all(torch.equal(expected[key], got[key]) for key in expected), name
    timing = ("images_per_s", "memory_mib")
    assert metrics(resumed.path, *timing) == metrics(finished.path, *timing)
    assert resumed.miou == finished.miou


def test_a_signal_between_two_lines_of_a_step_waits_for_a_step_that_is_saved(
    data: Path, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It arrives while step 1 is logged, when it is decided already that this step is not saved."""
    log = RunLog.training

    def interrupted(self: RunLog, step: int, values: dict[str, float]) -> None:
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        log(self, step, values)

    monkeypatch.setattr(RunLog, "training", interrupted)
    with pytest.raises(TrainingStoppedError, match="stopped by SIGTERM after step 2, which is saved"):
        train_run(data, recipe, tmp_path / "run", ["checkpoint_every=100", "validation.every=100"], device="cpu")
    checkpoint, _ = read_newest_checkpoint(RunDirectory(tmp_path / "run"))
    assert checkpoint.step == 2


def test_the_checkpoint_holds_optimizer_average_and_random_state(finished: RunResult) -> None:
    names = load_file(finished.path / "checkpoints" / "last.safetensors").keys()
    for prefix in ("module.online.junior.", "module.ema.senior.", "optimizer.0.exp_avg_sq", "random.cpu"):
        assert any(name.startswith(prefix) for name in names), prefix


def test_accumulation_takes_the_same_draws(data: Path, tmp_path: Path) -> None:
    """Two passes of half the batch see the images of one whole pass: the first step has the same loss and gradient.

    Batch normalization sees other batches, so a network without it is taken.
    """
    networks = {"junior": {"backbone": "vit_tiny_patch16_224", "decoder_channels": 8}, "senior": None}
    first_steps = []
    for passes in (1, 2):
        recipe = tiny_recipe(
            **networks,
            method={"name": "supervised"},
            batch={"labeled": 2, "unlabeled": 2, "accumulation": passes},
            schedule={"steps": 1},
            weak={"scale": (1.0, 1.0)},  # no padding: both passes count the same number of pixels
        )
        path = write_recipe(tmp_path / f"{passes}.yaml", recipe)
        run = train_run(data, str(path), tmp_path / f"run{passes}", device="cpu")
        first_steps.append({name: metrics(run.path)[0][name] for name in ("loss", "gradient_norm")})
    assert first_steps[0] == pytest.approx(first_steps[1], rel=1e-5)


def test_the_log_begins_with_batch_and_learning_rate(finished: RunResult) -> None:
    lines = (finished.path / "train.log").read_text().splitlines()
    batch = "2 labeled + 2 unlabeled images a step = 1 device × 1 micro-batch (batch.accumulation) × 2 + 2"
    assert lines[1].endswith(batch)
    assert "learning rate: 0.001 for backbones, 0.001 for the rest" in lines[2]


def test_the_optimizer_is_the_recipes_at_every_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, seen = Trainer._train_step, []

    def watched(self: Trainer, number: int, *arguments: object) -> int:
        images = step(self, number, *arguments)  # type: ignore[arg-type]
        names = {id(parameter): name for name, parameter in self.method.online.named_parameters()}
        groups = self.optimizer.param_groups
        assert [{"backbone" in names[id(one)] for one in group["params"]} for group in groups] == [{True}, {False}]
        assert sum(len(group["params"]) for group in groups) == len(names)
        assert {(group["betas"], group["weight_decay"]) for group in groups} == {((0.8, 0.95), 0.3)}
        seen.append([group["lr"] for group in groups])
        return images

    monkeypatch.setattr(Trainer, "_train_step", watched)
    recipe = tiny_recipe(
        senior=None,
        method={"name": "supervised"},
        optimizer={"lr": 1e-3, "decoder_lr_multiplier": 5, "betas": (0.8, 0.95), "weight_decay": 0.3},
        schedule={"steps": 4, "warmup_steps": 2, "poly_power": 0.5},
        validation={"every": 4},
    )
    run = train_run(data, str(write_recipe(tmp_path / "r.yaml", recipe)), tmp_path / "run", device="cpu")
    rates = [1e-3 * min((number + 1) / 2, 1) * (1 - number / 4) ** 0.5 for number in range(4)]
    np.testing.assert_allclose(seen, [(rate, 5 * rate) for rate in rates])
    assert [record["lr"] for record in metrics(run.path) if "lr" in record] == pytest.approx(rates)


def test_validations_are_no_part_of_the_training_speed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("segkc_deploy.training.loop.time", SimpleNamespace(perf_counter=lambda: clock.now))
    for name, seconds in (("_train_step", 1), ("_validate", 100)):
        inner = getattr(Trainer, name)

        def lasting(self: Trainer, *arguments: object, inner: Any = inner, seconds: int = seconds) -> Any:
            clock.now += seconds
            return inner(self, *arguments)

        monkeypatch.setattr(Trainer, name, lasting)
    recipe = tiny_recipe(senior=None, method={"name": "supervised"})
    run = train_run(data, str(write_recipe(tmp_path / "r.yaml", recipe)), tmp_path / "run", device="cpu")
    speeds = [record["images_per_s"] for record in metrics(run.path) if record["kind"] == "train"]
    assert speeds == [2, 2, 2, 2]


def test_eval_scores_a_run_as_its_training_did(
    data: Path, recipe: str, tmp_path: Path, command: CommandLine, finished: RunResult
) -> None:
    overrides = ["validation.window=[32, 32]", "validation.stride=[16, 20]", "schedule.steps=2"]
    windowed = train_run(data, recipe, tmp_path / "run", overrides, device="cpu")
    protocols = [
        (finished, "each image's own size, sides to the nearest multiple of 32 (bilinear); logits resized to the"),
        (
            windowed,
            "sliding window of 32×32 (width × height) at a stride of 20×16, the last one at the border; softmax",
        ),
    ]
    for run, protocol in protocols:
        file = tmp_path / "scores.json"
        told = command("eval", run.path, "--data", data, "--device", "cpu", "--json", file)
        assert f"protocol: {protocol}" in told.out
        assert json.loads(file.read_text())["miou"] == run.miou["junior_ema"]


def test_weights_that_are_shipped_without_their_average_are_scored_as_eval_scores_them(
    command: CommandLine, data: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(senior=None, method={"name": "supervised"}, ship="raw")
    run = train_run(data, str(write_recipe(tmp_path / "r.yaml", recipe)), tmp_path / "run", device="cpu")
    assert not read_metadata(run.path / "junior.safetensors").ema
    told = command("eval", run.path, "--data", data, "--device", "cpu", "--json", tmp_path / "scores.json")
    assert told.code == 0, told.err
    assert json.loads((tmp_path / "scores.json").read_text())["miou"] == run.miou["junior"]
    assert run.miou["junior"] != run.miou["junior_ema"]


def test_short_memory_is_told_with_what_helps(
    data: Path, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_much(*arguments: object) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    step = Trainer._train_step

    def later_too_much(self: Trainer, number: int, *arguments: object) -> int:
        return too_much() if number == 3 else step(self, number, *arguments)  # type: ignore[arg-type]

    fitting = ["batch.unlabeled=4"]  # two micro-batches then have 2 unlabeled images each, which CutMix needs
    helps = r"-o batch\.accumulation=2 \(each step keeps its images.*--size \(crop_size\), or -o precision=bf16$"
    monkeypatch.setattr(Trainer, "_train_step", later_too_much)
    with pytest.raises(ConfigError, match=r"last checkpoint is kept: --resume .*" + helps) as raised:
        train_run(data, recipe, tmp_path / "run", fitting, device="cpu")
    assert "\n" not in str(raised.value)
    assert (tmp_path / "run" / "checkpoints" / "last.safetensors").is_file()
    # Also where the networks alone are too much.
    for name in ("_train_step", "resume"):
        monkeypatch.setattr(Trainer, name, too_much)
    with pytest.raises(ConfigError, match="last checkpoint is kept"):
        train_run(None, None, tmp_path / "run", resume=True, device="cpu")
    with pytest.raises(ConfigError, match=r"hold this training; start anew \(--overwrite\) with " + helps):
        train_run(data, recipe, tmp_path / "other", fitting, device="cpu")


def test_supervised_needs_neither_senior_nor_unlabeled(data: Path, tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "s.yaml", tiny_recipe(senior=None, method={"name": "supervised"}))
    result = train_run(data, str(path), tmp_path / "run", ["schedule.steps=1"], device="cpu")
    assert set(result.miou) == {"junior", "junior_ema"}
    assert not (tmp_path / "run" / "senior.safetensors").exists()


def test_bf16_trains(data: Path, recipe: str, tmp_path: Path) -> None:
    overrides = ["precision=bf16", "schedule.steps=1", "optimizer.clip_norm=1.0"]
    result = train_run(data, recipe, tmp_path / "run", overrides, device="cpu")
    assert result.steps == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_trains_on_a_gpu(data: Path, recipe: str, tmp_path: Path, precision: str) -> None:
    result = train_run(data, recipe, tmp_path / "run", [f"precision={precision}"], device="cuda")
    assert result.steps == 4


def test_a_loss_that_is_not_finite_names_step_term_and_checkpoint(
    data: Path, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segkc_deploy.training.methods import weak_to_strong

    calls = iter(range(100))

    def poisoned(*arguments: torch.Tensor) -> torch.Tensor:
        return arguments[0].mean() * (float("nan") if next(calls) == 2 else 0.0)

    # Junior and senior a step: the third is step 2's.
    monkeypatch.setattr(weak_to_strong, "pseudo_label_loss", poisoned)
    with pytest.raises(
        NonFiniteLossError, match=r"step 2: the loss term cps_junior is nan; last good checkpoint: none"
    ):
        train_run(data, recipe, tmp_path / "run", device="cpu")


def test_a_folder_with_content_is_refused(finished: RunResult, data: Path, recipe: str, tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="--resume"):
        train_run(data, recipe, finished.path, device="cpu")
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "config.yaml").write_text("my: project")
    with pytest.raises(RunDirectoryError, match=r"thesis\.tex.*not overwritten"):
        train_run(data, recipe, tmp_path, overwrite=True, device="cpu")
    assert (tmp_path / "thesis.tex").exists()
    assert (tmp_path / "config.yaml").exists()


def test_overwriting_begins_a_new_run(data: Path, recipe: str, tmp_path: Path) -> None:
    train_run(data, recipe, tmp_path / "run", ["schedule.steps=2", "seed=1"], device="cpu")
    (tmp_path / "run" / "junior-fp32.onnx").write_bytes(b"exported from the old run")
    backup = tmp_path / "run" / "junior-old.safetensors"
    backup.write_bytes(b"a copy of the weights")
    with pytest.raises(RunDirectoryError, match=r"junior-old\.safetensors.*not overwritten"):
        train_run(data, recipe, tmp_path / "run", overwrite=True, device="cpu")
    assert (tmp_path / "run" / "junior-fp32.onnx").exists()
    backup.unlink()
    train_run(data, recipe, tmp_path / "run", ["schedule.steps=1"], overwrite=True, device="cpu")
    assert [record["step"] for record in metrics(tmp_path / "run")] == [1, 1]
    assert not (tmp_path / "run" / "junior-fp32.onnx").exists()


def test_a_full_folder_is_noticed_before_the_data_is_read(recipe: str, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunDirectoryError, match="not empty"):
        train_run(Path("there is none.yaml"), recipe, tmp_path, device="cpu")


def test_a_resumed_run_knows_where_its_data_went_and_tells_of_other_validation_images(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_tiny_data(tmp_path / "before")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(3, patch)
        train_run(data, recipe, tmp_path / "run", device="cpu")
    (tmp_path / "before").rename(tmp_path / "after")
    moved = tmp_path / "after" / data.name
    key = RunDirectory(tmp_path / "run").key
    (removed, *_) = sorted((tmp_path / "after" / "images" / "val").iterdir())
    removed.unlink()
    train_run(moved, None, tmp_path / "run", resume=True, device="cpu")
    assert read_config(RunDirectory(tmp_path / "run"))[1] == moved
    assert RunDirectory(tmp_path / "run").key == key
    log = (tmp_path / "run" / "train.log").read_text()
    assert log.count("warning: the validation images have changed") == 1
    assert "the masks of the labeled images" not in log
    train_run(None, None, tmp_path / "run", resume=True, device="cpu")  # finds them


def test_what_teaches_or_scores_nothing_is_told(recipe: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = write_tiny_data(tmp_path / "data")
    content = yaml.safe_load(data.read_text())
    data.write_text(yaml.safe_dump(content | {"val": content["labeled"]}))
    train_run(data, recipe, tmp_path / "same", ["schedule.steps=1"], device="cpu")
    assert "validation images are also labeled images, so that the scores are too good" in capfd.readouterr().err
    data.write_text(yaml.safe_dump(content | {"label_mapping": dict.fromkeys(range(10), 255), "val": None}))
    train_run(data, recipe, tmp_path / "ignored", ["schedule.steps=2"], device="cpu")
    log = (tmp_path / "ignored" / "train.log").read_text()
    assert log.count("warning: the labeled crops until step 1 had no labeled pixel") == 1
    assert "warning" not in capfd.readouterr().err.replace("warning: the labeled crops", "")


def test_validation_masks_without_a_labeled_pixel_are_refused_before_training(recipe: str, tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data")
    data.write_text(yaml.safe_dump(yaml.safe_load(data.read_text()) | {"label_mapping": dict.fromkeys(range(10), 255)}))
    with pytest.raises(DataError, match=r"masks.*: like every validation mask it holds ignored pixels alone"):
        train_run(data, recipe, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_gpu_without_bf16_is_told_of_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    recipe = tiny_recipe(precision="bf16")
    with pytest.raises(ConfigError, match=r"Tesla T4 computes in fp32 and fp16, not in bf16; add -o precision=fp16"):
        _check_precision(recipe, "cuda", resume=False)
    _check_precision(recipe, "cuda", resume=True)
    _check_precision(recipe, "cpu", resume=False)


def test_resume_refuses_another_recipe_or_other_images(finished: RunResult, data: Path, recipe: str) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.lr = 0\.001, not 0\.5"):
        train_run(data, recipe, finished.path, ["optimizer.lr=0.5"], resume=True)
    extra = data.parent / "images" / "extra" / "000.png"
    moved = extra.rename(extra.with_suffix(".hidden"))
    try:
        with pytest.raises(
            ConfigError, match=r"1 unlabeled image was removed \(such as .*\) since the checkpoint; restore"
        ):
            train_run(None, None, finished.path, resume=True)
    finally:
        moved.rename(extra)


def test_resume_refuses_other_classes(finished: RunResult, data: Path) -> None:
    text = data.read_text()
    data.write_text(text.replace("- box", "- crate"))
    try:
        with pytest.raises(
            ConfigError, match="class 'crate' was added and class 'box' was removed since the checkpoint"
        ):
            train_run(None, None, finished.path, resume=True)
        data.write_text(text.replace("- disk", "- disk\n- rod"))
        with pytest.raises(
            ConfigError, match=r"class 'rod' was added .* know 3 classes and not 4; .*pretrained=.*whole"
        ):
            train_run(None, None, finished.path, resume=True)
    finally:
        data.write_text(text)


def test_a_resumed_run_may_have_other_workers_and_nothing_else(finished: RunResult) -> None:
    result = train_run(None, None, finished.path, ["workers=1"], resume=True, device="cpu")
    assert result.miou == finished.miou
    with pytest.raises(ConfigError, match="only -o workers=…, -o cache"):
        train_run(None, None, finished.path, ["seed=3"], resume=True)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--steps", "20"], "schedule.steps=20 (--steps)"),
        (["--epochs", "3"], "schedule.epochs=3 (--epochs)"),
        (["--workers", "1", "--size", "64"], "crop_size=[64, 64] (--size)"),
        (["-o", "optimizer.lr=1"], "-o optimizer.lr=1"),
    ],
)
def test_a_value_that_a_resumed_run_cannot_take_is_named_with_the_way_on(
    command: CommandLine, finished: RunResult, options: list[str], named: str
) -> None:
    line = command.refused("train", "--out", finished.path, "--resume", *options)
    assert f"the values it began with, so leave out {named}; only -o workers=…," in line
    assert line.endswith(f"start a new run from its weights: -o junior.pretrained={finished.path}")


def test_a_resumed_run_may_be_given_its_recipe_and_other_workers(finished: RunResult, recipe: str) -> None:
    result = train_run(None, recipe, finished.path, ["workers=1"], resume=True, device="cpu")
    assert result.miou == finished.miou
    with pytest.raises(ConfigError, match="began with seed = 0, not 3"):
        train_run(None, recipe, finished.path, ["workers=1", "seed=3"], resume=True)


def test_a_resumed_run_is_scored_later_as_it_scores_itself(
    data: Path, recipe: str, tmp_path: Path, command: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(3, patch)
        train_run(data, recipe, tmp_path / "run", device="cpu")
    run = RunDirectory(tmp_path / "run")
    key, before = run.key, read_config(run)[0]
    overrides = ["validation.most_pixels=4096", "workers=1"]
    resumed = train_run(None, None, run.path, overrides, resume=True, device="cpu")
    changed = before.validation.model_copy(update={"most_pixels": 4096})
    # Workers are this session's alone.
    assert read_config(run)[0] == before.model_copy(update={"validation": changed})
    assert run.key == key and is_trained_here(run)
    file = tmp_path / "scores.json"
    told = command("eval", run.path, "--data", data, "--device", "cpu", "--json", file)
    assert "images of more than 4,096 pixels in a sliding window" in told.out
    assert json.loads(file.read_text())["miou"] == resumed.miou["junior_ema"]
    train_run(None, None, run.path, ["validation.most_pixels=5000"], resume=True, device="cpu")
    assert run.key == key
    assert create_run(run.path, before, data, overwrite=True).key != key


def test_weights_that_an_update_made_nan_are_never_checkpointed(
    data: Path, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of step 4 is fine; its update is not, and no later loss would see it."""
    step = Trainer._train_step

    def poisoned(self: Trainer, number: int, *arguments: object) -> int:
        images = step(self, number, *arguments)  # type: ignore[arg-type]
        if number == 3:
            next(self.method.online.parameters()).data.fill_(float("nan"))
        return images

    monkeypatch.setattr(Trainer, "_train_step", poisoned)
    with pytest.raises(NonFiniteLossError, match=r"step 4: the update made weights NaN.*\(step 2\)"):
        train_run(data, recipe, tmp_path / "run", device="cpu")
    checkpoint = load_file(tmp_path / "run" / "checkpoints" / "last.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in checkpoint.values() if tensor.is_floating_point())


def test_a_bad_validation_image_loses_no_training(recipe: str, tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data")
    image = tmp_path / "data" / "images" / "val" / "002.png"
    content = image.read_bytes()
    image.write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"002\.png"):
        train_run(data, recipe, tmp_path / "run", ["validation.every=4"], device="cpu")
    assert (tmp_path / "run" / "junior.safetensors").is_file()
    image.write_bytes(content)
    resumed = train_run(None, None, tmp_path / "run", resume=True, device="cpu")
    assert set(resumed.miou) == {"junior", "senior", "junior_ema", "senior_ema"}
    assert read_metadata(tmp_path / "run" / "junior.safetensors").scores["junior"] == resumed.miou["junior"]


def test_a_run_holds_every_setting_of_its_method(finished: RunResult) -> None:
    config = (finished.path / "config.yaml").read_text()
    for setting in ("consultation_dropout", "temperature", "prediction_junior_to_senior"):
        assert setting in config


def test_resume_of_nothing_and_of_a_damaged_checkpoint(data: Path, recipe: str, tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="not a run directory"):
        train_run(None, None, tmp_path / "none", resume=True)
    train_run(data, recipe, tmp_path / "run", ["schedule.steps=1"], device="cpu")
    checkpoint = tmp_path / "run" / "checkpoints" / "last.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(RunDirectoryError, match=r"last\.safetensors: damaged or not a safetensors file"):
        train_run(None, None, tmp_path / "run", resume=True)


def test_mistakes_are_told_before_anything_is_written(data: Path, recipe: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    cases: list[tuple[list[str], str]] = [
        (["optimizer.learning_rate=1"], "optimizer: unknown key 'learning_rate'"),
        (["junior.backbone=resnet_10t"], "did you mean"),
        (["crop_size=[33, 64]"], "multiples of 32"),
        (["schedule.epochs=3"], "either steps or epochs"),
        (["precision=fp16"], "fp16 needs a CUDA device"),
        (["lr"], "key=value"),
        (["weak.scale=[2, 0.5]"], "the smaller one first"),
        (["optimizer.betas=[0.9, 1]"], "less than 1"),
        (["validation.window=[33, 64]"], r"validation\.window: .*multiples of 32; the closest is 32x64"),
        (["junior.backbone=swin_tiny_patch4_window7_224"], "cannot take crops of 32x64"),
        (["junior.backbone=resnet18.nope"], "timm has no weights 'nope'"),
        (["activation_checkpointing=true"], "activation_checkpointing is for plain ViTs"),
        (["validation.size=[-5, 100]"], r"validation\.size\[0\]: .*greater than or equal to 1"),
        (["seed=18446744073709551616"], "less than 9223372036854775808"),
        (["supervision.class_weights=[0, 0, 0]"], "every weight is 0"),
        (["method.prediction_target=[1]"], r"prediction_target"),
        (["junior.input={bands: 1, bits: 8, mean: [0.5], std: [0.2]}"], r"junior\.input takes 1 band of 8 bits"),
    ]
    for overrides, message in cases:
        if "fp16" in message and torch.cuda.is_available():
            continue
        with pytest.raises(UserError, match=message):
            train_run(data, recipe, out, overrides)
        assert not out.exists()
    with pytest.raises(ConfigError, match=r"--devices 3: batch\.labeled = 2 .* use --devices 2, or batch\.labeled=3"):
        train_run(data, recipe, out, device="cpu", devices=3)
    with pytest.raises(ConfigError, match="did you mean 'segkc-dinov2-s'"):
        train_run(data, "segkc-dino", out)


def test_unlabeled_images_are_asked_for(recipe: str, tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path, unlabeled=0)
    data.write_text(data.read_text().replace("- images/extra", "").replace("images: \n", "images: []\n"))
    with pytest.raises((DataError, ConfigError), match="unlabeled"):
        train_run(data, recipe, tmp_path / "run")


def test_damaged_network_files_are_named(finished: RunResult, tmp_path: Path) -> None:
    good = finished.path / "junior.safetensors"
    with pytest.raises(RunDirectoryError, match="no such file"):
        read_metadata(tmp_path / "junior.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(good.read_bytes()[:500])
    with pytest.raises(RunDirectoryError, match="damaged or not a safetensors file"):
        load_network(cut)
    anonymous = tmp_path / "anonymous.safetensors"
    save_file({"a": torch.zeros(1)}, anonymous)
    with pytest.raises(RunDirectoryError, match="without a description"):
        load_network(anonymous)


def test_a_run_without_a_checkpoint_is_not_resumed(data: Path, recipe: str, tmp_path: Path) -> None:
    train_run(data, recipe, tmp_path / "run", ["schedule.steps=1"], device="cpu")
    (tmp_path / "run" / "checkpoints" / "last.safetensors").unlink()
    with pytest.raises(RunDirectoryError, match=r"run: no checkpoint to resume from.*junior\.pretrained=RUN"):
        train_run(None, None, tmp_path / "run", resume=True, device="cpu")
