"""Draws: what a draw number gives depends on nothing but the seed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_data import tiny_recipe, write_tiny_data

from segkc_deploy.data.samples import ImageSets
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.training.data.datasets import Draws, LabeledDataset, UnlabeledDataset, draw_loader, epoch_order


@pytest.fixture
def sets(tmp_path: Path) -> ImageSets:
    return load_data_spec(write_tiny_data(tmp_path)).resolve()


def test_every_epoch_takes_every_image_once_in_a_new_order(sets: ImageSets) -> None:
    dataset = UnlabeledDataset(sets, tiny_recipe(), 1)
    epochs = [[dataset.sample_of(draw).id for draw in range(start, start + 6)] for start in (0, 6, 12)]
    assert all(sorted(epoch) == sorted(sample.id for sample in sets.unlabeled) for epoch in epochs)
    assert epochs[0] != epochs[1] or epochs[1] != epochs[2]


def test_an_epochs_order_is_drawn_once_and_is_what_it_always_was(sets: ImageSets) -> None:
    dataset = UnlabeledDataset(sets, tiny_recipe(seed=5), 1)
    # Another test of this process may have drawn the same orders.
    epoch_order.cache_clear()
    for draw in range(18):
        epoch, position = divmod(draw, 6)
        # A run that began with an earlier version resumes with these images.
        order = np.random.default_rng([5, 1, 0, epoch]).permutation(6)
        assert dataset.sample_of(draw) == sets.unlabeled[order[position]]
        assert dataset.sample_of(draw, attempt=4) == sets.unlabeled[order[(position + 4) % 6]]
    assert epoch_order.cache_info().misses == 3
    assert epoch_order.cache_info().maxsize == 4


def test_the_smaller_set_is_oversampled(sets: ImageSets) -> None:
    dataset = LabeledDataset(sets, tiny_recipe())
    counts = np.unique([dataset.sample_of(draw).id for draw in range(3 * len(sets.labeled))], return_counts=True)[1]
    assert (counts == 3).all()


def test_seeds_give_other_orders_and_augmentations(sets: ImageSets) -> None:
    first, second = (LabeledDataset(sets, tiny_recipe(seed=seed)) for seed in (0, 1))
    assert not all(torch.equal(first.example(draw)["image"], second.example(draw)["image"]) for draw in range(4))


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_and_starting_points_change_nothing(sets: ImageSets, workers: int) -> None:
    dataset = UnlabeledDataset(sets, tiny_recipe(), 2)
    alone = [dataset.example(draw) for draw in range(4, 8)]
    loader = draw_loader(dataset, Draws(2, range(2, 4)), workers=workers, pin_memory=False)
    got = list(loader)
    assert len(got) == 2
    for name in ("weak", "strong_1", "strong_2", "ignored"):
        expected = torch.stack([example[name] for example in alone])
        assert torch.equal(torch.cat([batch.tensors[name] for batch in got]), expected)


def test_views_share_one_geometry(sets: ImageSets) -> None:
    recipe = tiny_recipe(strong={"jitter_probability": 0, "grayscale_probability": 0, "blur_probability": 0})
    example = UnlabeledDataset(sets, recipe, 2).example(3)
    assert torch.equal(example["weak"], example["strong_1"])
    assert torch.equal(example["weak"], example["strong_2"])


def test_loading_leaves_the_global_random_state_alone(sets: ImageSets) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    list(draw_loader(LabeledDataset(sets, tiny_recipe()), Draws(2, range(3)), 0, False))
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_are_consecutive_draws() -> None:
    assert list(Draws(3, range(2, 4))) == [[6, 7, 8], [9, 10, 11]]


def test_ranks_share_the_draws_of_one() -> None:
    alone = list(Draws(6, range(3, 5)))
    shares = [list(Draws(6, range(3, 5), rank, 3)) for rank in range(3)]
    assert [[draw for part in parts for draw in part] for parts in zip(*shares, strict=True)] == alone
    assert all(len(part) == 2 for share in shares for part in share)
