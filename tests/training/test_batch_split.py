"""How a step's images are shared out, and what the learning rate follows from."""

import pytest
import torch
from timm.layers.norm_act import convert_sync_batchnorm
from tiny_data import tiny_recipe
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from segkc_deploy.errors import ConfigError, NonFiniteLossError
from segkc_deploy.training.batch_split import random_seed, split_batch
from segkc_deploy.training.loop import parameter_groups
from segkc_deploy.training.methods.base import StepOutput
from segkc_deploy.training.methods.registry import build_method
from segkc_deploy.training.metric_accumulator import MetricAccumulator
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.models.spec import NetworkSpec
from segkc_deploy.training.schedule import learning_rate_in_words, peak_learning_rate


def test_the_total_is_kept_and_told() -> None:
    recipe = tiny_recipe(batch={"labeled": 16, "unlabeled": 32, "accumulation": 2})
    assert split_batch(recipe, 4, uses_unlabeled=True).in_words() == (
        "batch: 16 labeled + 32 unlabeled images a step = 4 devices × 2 micro-batches (batch.accumulation) × 2 + 4"
    )
    assert split_batch(recipe, 1, uses_unlabeled=False).in_words() == (
        "batch: 16 labeled + 0 unlabeled images a step = 1 device × 2 micro-batches (batch.accumulation) × 8 + 0"
    )


@pytest.mark.parametrize(
    ("batch", "ranks", "message"),
    [
        (
            {"labeled": 16, "unlabeled": 16},
            3,
            r"16 .*3 devices × 1 micro-batch .*--devices 2 or 4, or batch\.labeled=15 or 18$",
        ),
        ({"labeled": 8, "unlabeled": 12}, 8, r"batch\.unlabeled = 12 .*--devices 4, or batch\.unlabeled=8 or 16"),
        ({"labeled": 2, "unlabeled": 2}, 4, r"--devices 2, or batch\.labeled=4"),
        ({"labeled": 8, "unlabeled": 8, "accumulation": 4}, 4, r"4 devices × 4 micro-batches .*--devices 2, or .*=16"),
    ],
)
def test_a_batch_that_cannot_be_shared_names_what_can(batch: dict[str, int], ranks: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        split_batch(tiny_recipe(batch=batch), ranks, uses_unlabeled=True)


def test_cutmix_needs_two_images_on_a_device() -> None:
    batch = {"labeled": 4, "unlabeled": 4}
    with pytest.raises(
        ConfigError, match=r"one unlabeled image in a micro-batch; use fewer dev.*, batch\.unlabeled=8, or"
    ):
        split_batch(tiny_recipe(batch=batch), 4, uses_unlabeled=True)
    split_batch(tiny_recipe(batch=batch), 2, uses_unlabeled=True)
    split_batch(tiny_recipe(batch=batch), 4, uses_unlabeled=False)
    split_batch(tiny_recipe(batch=batch, strong={"cutmix_probability": 0}), 4, uses_unlabeled=True)


def test_random_numbers_differ_by_seed_rank_and_step_alone() -> None:
    arguments = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 1, 1)]
    seeds = [random_seed(*argument) for argument in arguments]
    assert len(set(seeds)) == len(seeds)
    assert seeds == [random_seed(*argument) for argument in arguments]
    torch.Generator().manual_seed(max(seeds))  # torch takes numbers of 64 bits


@pytest.mark.parametrize(
    ("lr_at_batch", "labeled", "expected"), [(None, 4, 1e-3), (16, 16, 1e-3), (16, 4, 2.5e-4), (8, 24, 3e-3)]
)
def test_the_learning_rate_belongs_to_the_total_batch(lr_at_batch: int | None, labeled: int, expected: float) -> None:
    recipe = tiny_recipe(
        optimizer={"lr": 1e-3, "lr_at_batch": lr_at_batch, "decoder_lr_multiplier": 40},
        batch={"labeled": labeled, "unlabeled": 4},
    )
    assert peak_learning_rate(recipe) == pytest.approx(expected)
    groups = parameter_groups(build_method(recipe, 3, 255), recipe)
    assert [group["peak_lr"] for group in groups] == pytest.approx([expected, 40 * expected])
    told = learning_rate_in_words(recipe)
    assert f"{expected:.4g} for backbones, {40 * expected:.4g} for the rest" in told
    assert ("belongs to 16 labeled images a step (optimizer.lr_at_batch), here are 4" in told) == (expected == 2.5e-4)


def window_of(*losses: tuple[float, float]) -> MetricAccumulator:
    window = MetricAccumulator()
    for step, (first, second) in enumerate(losses, start=1):
        output = StepOutput({"first": torch.tensor(first), "second": torch.tensor(second)}, {"first": 1, "second": 1})
        window.add(step, output, output.total())
    return window


def test_losses_are_means_over_all_ranks() -> None:
    def with_another_rank(own: Tensor) -> Tensor:
        return torch.stack([own, own + 2])

    means = window_of((1.0, 5.0), (2.0, 7.0)).flush(lambda: "none yet", with_another_rank)
    assert means == {"loss": 8.5, "first": 2.5, "second": 7.0}


def test_a_loss_that_is_nan_on_another_rank_stops_this_one_too() -> None:
    def with_a_bad_rank(own: Tensor) -> Tensor:
        other = own.clone()
        other[1, [0, 2]] = float("nan")
        return torch.stack([own, other])

    with pytest.raises(NonFiniteLossError, match=r"step 2: the loss term second is nan; last good checkpoint: here"):
        window_of((1.0, 5.0), (2.0, 7.0), (3.0, 9.0)).flush(lambda: "here", with_a_bad_rank)


def test_synchronized_normalization_is_the_same_network() -> None:
    """On GPUs alone it synchronizes; activations that timm keeps in its normalization layers stay."""
    network = Segmenter(NetworkSpec(backbone="mobilenetv4_conv_small_035", decoder_channels=8), 3).eval()
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(images)
        names = list(network.state_dict())
        parameters = set(network.parameters())
        converted = convert_sync_batchnorm(network)
        assert torch.equal(converted(images), expected)
    assert list(converted.state_dict()) == names
    assert set(converted.parameters()) == parameters  # what the optimizer holds
    normalizations = [module for module in converted.modules() if isinstance(module, _BatchNorm)]
    assert normalizations
    assert all(isinstance(module, torch.nn.SyncBatchNorm) for module in normalizations)
