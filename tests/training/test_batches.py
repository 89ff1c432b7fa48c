"""The batches of a training: the same on every device."""

from pathlib import Path

import pytest
import torch
from tiny_data import tiny_recipe

from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.training.batch_split import split_batch
from segkc_deploy.training.batches import _workers, batches
from segkc_deploy.training.data.skipped_files import SkippedFiles
from segkc_deploy.training.methods.base import Batch


def first_batches(data: Path, device: str) -> list[Batch]:
    recipe, sets = tiny_recipe(), load_data_spec(data).resolve()
    split = split_batch(recipe, 1, uses_unlabeled=True)
    made = batches(recipe, sets, None, 1, split, 0, range(3), torch.device(device), SkippedFiles(0))
    return list(made)


def test_images_are_floats_masks_are_classes_and_padding_is_boolean(data: Path) -> None:
    for batch in first_batches(data, "cpu"):
        assert batch.unlabeled is not None
        image, mask = batch.labeled["image"], batch.labeled["mask"]
        assert image.shape == (2, 3, 32, 64) and image.is_contiguous(memory_format=torch.channels_last)
        assert 0 <= float(image.min()) < float(image.max()) <= 1
        assert mask.dtype == torch.int64 and mask.shape == (2, 32, 64)
        assert batch.unlabeled["ignored"].dtype == torch.bool
        assert batch.unlabeled.keys() == {"weak", "strong_1", "ignored"}


def test_later_steps_and_several_ranks_get_the_micro_batches_of_one_whole_training(data: Path) -> None:
    recipe, sets = tiny_recipe(batch={"labeled": 4, "unlabeled": 8, "accumulation": 2}), load_data_spec(data).resolve()

    def tensors(steps: range, rank: int = 0, ranks: int = 1) -> list[dict[str, torch.Tensor]]:
        split = split_batch(recipe, ranks, uses_unlabeled=True)
        made = batches(recipe, sets, None, 1, split, rank, steps, torch.device("cpu"), SkippedFiles(0))
        return [batch.labeled | (batch.unlabeled or {}) for batch in made]

    whole = tensors(range(3))
    shares = zip(*(tensors(range(1, 3), rank, 2) for rank in (0, 1)), strict=True)
    joined = [{name: torch.cat([one[name] for one in ranks]) for name in ranks[0]} for ranks in shares]
    for later in (tensors(range(1, 3)), joined):
        assert len(later) == 4
        for expected, found in zip(whole[2:], later, strict=True):
            assert all(torch.equal(expected[name], found[name]) for name in expected)


TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "16", "RANK": "9", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "8"}
SLURM = {"SLURM_NTASKS": "16", "SLURM_NTASKS_PER_NODE": "8", "SLURM_PROCID": "9", "SLURM_JOB_NAME": "train"}


@pytest.mark.parametrize(
    ("variables", "cores", "workers", "of_rank"),
    [
        ({}, 64, None, 3),  # --devices 16 on one machine
        (TORCHRUN, 64, None, 7),
        (SLURM, 64, None, 7),
        (SLURM | {"SLURM_CPUS_PER_TASK": "12"}, 12, None, 11),
        (TORCHRUN, 64, 16, 2),
        (SLURM | {"SLURM_CPUS_PER_TASK": "12"}, 12, 16, 2),
        (TORCHRUN, 64, 0, 0),
    ],
)
def test_loading_processes_are_shared_by_the_ranks_of_a_machine(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], cores: int, workers: int | None, of_rank: int
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for module in ("batches", "launched_ranks"):
        monkeypatch.setattr(f"segkc_deploy.training.{module}.available_cores", lambda: cores)
    assert _workers(tiny_recipe(workers=workers), 16) == of_rank


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
def test_a_gpu_gets_the_same_batches_while_it_works(data: Path) -> None:
    busy = torch.rand(2048, 2048, device="cuda")
    expected, found = first_batches(data, "cpu"), []
    recipe, sets = tiny_recipe(), load_data_spec(data).resolve()
    split = split_batch(recipe, 1, uses_unlabeled=True)
    for batch in batches(recipe, sets, None, 1, split, 0, range(3), torch.device("cuda"), SkippedFiles(0)):
        assert batch.unlabeled is not None
        found.append({name: tensor.clone() for name, tensor in (batch.labeled | batch.unlabeled).items()})
        for _ in range(50):
            busy = busy @ busy / busy.norm()
    for own, batch in zip(found, expected, strict=True):
        assert batch.unlabeled is not None
        for name, tensor in (batch.labeled | batch.unlabeled).items():
            if name.startswith("strong_"):  # made on the GPU, see test_augment_batch
                assert 255 * (own[name].cpu() - tensor).abs().mean() < 1
            else:
                torch.testing.assert_close(own[name].cpu(), tensor)
