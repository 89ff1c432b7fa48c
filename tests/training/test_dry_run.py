"""What a training would take, before it starts; and what running out of memory says."""

import re
from pathlib import Path

import pytest
import torch
from command_line import CommandLine
from tiny_data import tiny_recipe, write_recipe

from segkc_deploy.errors import ConfigError
from segkc_deploy.training.batch_split import split_batch
from segkc_deploy.training.dry_run import MemoryLine
from segkc_deploy.training.files.starting_weights import build_network
from segkc_deploy.training.loop import Trainer
from segkc_deploy.training.methods.registry import build_method, with_method_defaults
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.models.spec import NetworkSpec
from segkc_deploy.training.out_of_memory import smaller_steps
from segkc_deploy.training.recipe import without_pretrained
from segkc_deploy.training.recipe_file import load_recipe
from segkc_deploy.training.train import estimate_run, train_run

HOST_MEMORY = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"
    " 68719476736 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "tiny.yaml", tiny_recipe(batch={"labeled": 2, "unlabeled": 4}))


def test_a_dry_run_prints_what_a_step_takes_and_writes_nothing(
    data: Path, recipe: Path, tmp_path: Path, command: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    told = command("train", "--data", data, "--recipe", recipe, "--device", "cpu", "--dry-run")
    assert told.code == 0, told.err
    assert sorted(tmp_path.rglob("*")) == before
    lines = told.out.splitlines()
    for role, spec in (("junior", tiny_recipe().junior), ("senior", tiny_recipe().senior)):
        assert spec is not None
        count = sum(parameter.numel() for parameter in build_network(spec, 3).parameters())
        assert f"{role} {count / 1e6:.2f} M" in lines[0]
    assert lines[1].startswith("one forward pass of a 64x32 crop")
    assert "with 2 + 4 images" in lines[3]
    assert lines[3].endswith("with 4 + 8")
    assert lines[4].startswith("largest micro-batch for 90% of the")
    assert "estimate" in lines[4]
    assert "on a CPU" in lines[5]


def test_the_largest_batch_lies_on_the_line_through_both_measurements() -> None:
    line = MemoryLine(unit=(1, 2), smaller=2, smaller_peak=3000, larger=4, larger_peak=4000)
    assert line.largest(10_000) == (14, 28)  # 2000 + 500 a unit: 9000 bytes are 14 units
    assert line.largest(2_500) == (0, 0)
    assert MemoryLine((1, 1), 2, 3000, 4, None).largest(10_000) == (2, 2)


def test_a_batch_that_does_not_fit_names_what_to_change(
    data: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_much(*arguments: object) -> None:
        raise RuntimeError(HOST_MEMORY)

    monkeypatch.setattr(Trainer, "try_step", too_much)
    told = estimate_run(data, str(recipe), device="cpu")
    assert told[-1].startswith("a step of 2 + 4 images does not fit into the")
    assert "-o batch.accumulation=2" in told[-1]


@pytest.mark.parametrize(
    ("overrides", "micro_batches"),
    [([], None), (["batch.unlabeled=16"], 8), (["strong.cutmix_probability=0"], 8)],
)
def test_what_is_advised_where_memory_is_short_is_accepted(overrides: list[str], micro_batches: int | None) -> None:
    """Of 8 + 8 images in 4 micro-batches each has 2 unlabeled ones, the fewest that CutMix takes."""
    recipe = load_recipe("own-data-8gb", overrides)
    advice = smaller_steps(recipe, split_batch(recipe, 1, uses_unlabeled=True))
    options = re.findall(r"-o (\S+)", advice)
    named = [option for option in options if option.startswith("batch.accumulation=")]
    assert named == ([f"batch.accumulation={micro_batches}"] if micro_batches else [])
    assert "activation_checkpointing=true" in options
    for option in options:
        advised = without_pretrained(with_method_defaults(load_recipe("own-data-8gb", [*overrides, option])))
        with torch.device("meta"):  # the networks are large, and their weights do not matter
            build_method(advised, num_classes=3, ignore_index=255)
        split_batch(advised, 1, uses_unlabeled=True)


def test_a_machine_without_enough_memory_ends_in_one_line(
    data: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(reason: str) -> None:
        def step(*arguments: object) -> int:
            raise RuntimeError(reason)

        monkeypatch.setattr(Trainer, "_train_step", step)

    failing(HOST_MEMORY)
    with pytest.raises(ConfigError, match=r"memory does not hold .*accumulation=2 .*--size") as told:
        train_run(data, str(recipe), tmp_path / "run", device="cpu")
    assert "activation_checkpointing" not in str(told.value)  # its networks are no plain ViTs
    for name, reason in (("gpu", "CUDA error: out of memory"), ("cublas", "CUBLAS_STATUS_ALLOC_FAILED when calling")):
        failing(reason)
        with pytest.raises(ConfigError, match=r"memory does not hold .*accumulation=2"):
            train_run(data, str(recipe), tmp_path / name, device="cpu")
    failing("DataLoader worker (pid(s) 17) exited unexpectedly")
    with pytest.raises(
        ConfigError, match=r"loading images ran out of memory.*--shm-size\); start anew .*fewer --workers"
    ):
        train_run(data, str(recipe), tmp_path / "loader", device="cpu")
    failing("Caught RuntimeError in DataLoader worker process 0.")
    with pytest.raises(RuntimeError, match="Caught RuntimeError"):
        train_run(data, str(recipe), tmp_path / "bug", device="cpu")
    failing("shapes differ")
    with pytest.raises(RuntimeError, match="shapes differ"):
        train_run(data, str(recipe), tmp_path / "other", device="cpu")


def test_checkpointed_activations_give_the_same_gradients() -> None:
    torch.manual_seed(0)
    network = Segmenter(NetworkSpec(backbone="vit_tiny_patch16_224", decoder_channels=8), 3)
    images = torch.rand(1, 3, 32, 48)

    def gradients() -> list[torch.Tensor]:
        network.zero_grad()
        network(images).square().mean().backward()
        return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]

    expected = gradients()
    network.backbone.checkpoint_activations()
    assert all(torch.equal(old, new) for old, new in zip(expected, gradients(), strict=True))
    with pytest.raises(ConfigError, match="activation_checkpointing is for plain ViTs"):
        Segmenter(NetworkSpec(backbone="resnet10t", decoder_channels=8), 3).backbone.checkpoint_activations()
