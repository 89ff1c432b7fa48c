"""The batches of a training on its device, from any step on."""

from collections.abc import Iterator
from itertools import repeat

import torch
from torch import Tensor

from segkc_deploy.data.census import Census
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.errors import UserError
from segkc_deploy.machine import available_cores
from segkc_deploy.training.batch_split import BatchSplit
from segkc_deploy.training.data.augment_batch import DRAW_DTYPE, make_strong_views
from segkc_deploy.training.data.datasets import Draws, LabeledDataset, Loaded, UnlabeledDataset, draw_loader
from segkc_deploy.training.data.skipped_files import SkippedFiles
from segkc_deploy.training.evaluation.prediction import to_float_images
from segkc_deploy.training.launched_ranks import launched_ranks
from segkc_deploy.training.methods.base import Batch
from segkc_deploy.training.recipe import Recipe

_MOST_WORKERS = 16


def batches(
    recipe: Recipe,
    sets: ImageSets,
    census: Census | None,
    strong_views: int,
    split: BatchSplit,
    rank: int,
    steps: range,
    device: torch.device,
    skipped: SkippedFiles,
) -> Iterator[Batch]:
    """Yield the share of `rank` in each micro-batch of the 0-based `steps`, `split.accumulation` micro-batches a step.

    The shares of all ranks together are the images that one rank alone would get. Files that could not be read are
    added to `skipped` with the batch that was to hold them, not earlier, when they are loaded.

    Raises:
        UserError: a mask cannot be used, or too many files cannot be read.
    """
    micro_batches = range(steps.start * split.accumulation, steps.stop * split.accumulation)
    workers = _workers(recipe, split.ranks)
    # Unlabeled images have more views; where there is one worker, it is theirs.
    labeled_workers = workers // 2 if strong_views else workers
    pin_memory = device.type == "cuda"
    labeled = draw_loader(
        LabeledDataset(sets, recipe, census),
        Draws(split.labeled // split.accumulation, micro_batches, rank, split.ranks),
        labeled_workers,
        pin_memory,
    )
    unlabeled: Iterator[Loaded | None] = repeat(None)
    if strong_views:
        draws = Draws(split.unlabeled // split.accumulation, micro_batches, rank, split.ranks)
        dataset = UnlabeledDataset(sets, recipe, strong_views, draws_only=device.type == "cuda")
        unlabeled = iter(draw_loader(dataset, draws, workers - labeled_workers, pin_memory))
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    for labeled_part, unlabeled_part in zip(labeled, unlabeled, strict=False):
        parts = [part for part in (labeled_part, unlabeled_part) if part is not None]
        for part in parts:
            skipped.add(part.skipped)
        yield Batch(*(_on_device(part, device, stream) for part in parts))


def _workers(recipe: Recipe, ranks: int) -> int:
    """Return the loading processes of one rank: an equal share of its machine's, at least one where any is wanted."""
    launched = launched_ranks()
    here = launched.ranks_on_node if launched else ranks
    if recipe.workers is None and launched and launched.has_own_cores:
        here = 1
    total = min(available_cores() - 1, _MOST_WORKERS * here) if recipe.workers is None else recipe.workers
    return max(total // here, min(total, 1))


def _on_device(loaded: Loaded, device: torch.device, stream: torch.cuda.Stream | None) -> dict[str, Tensor]:
    """Copy what was loaded to the device, on a GPU by a stream of its own.

    A batch is asked for when the host has enqueued the step before it, on which the GPU still works: copies and
    conversions of the side stream run beside it.
    """
    if isinstance(loaded.tensors, UserError):
        raise loaded.tensors
    if stream is None:
        return prepared(loaded.tensors, device)
    with torch.cuda.stream(stream):
        tensors = prepared(loaded.tensors, device)
    step_stream = torch.cuda.current_stream(device)
    step_stream.wait_stream(stream)
    for tensor in tensors.values():
        tensor.record_stream(step_stream)  # its memory belongs to the side stream, which must not take it back too soon
    return tensors


def prepared(loaded: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Return a batch on the device.

    Images (N, H, W, bands) become channels-last floats (N, bands, H, W) and masks int64; booleans stay. Strong views
    that were only drawn are made of the weak views.
    """
    drawn = {name: tensor for name, tensor in loaded.items() if tensor.dtype == DRAW_DTYPE}
    moved = {name: tensor.to(device, non_blocking=True) for name, tensor in loaded.items() if name not in drawn}
    made = {name: make_strong_views(moved["weak"], draws) for name, draws in drawn.items()}
    return {name: _prepared(tensor) for name, tensor in moved.items()} | {
        name: views.contiguous(memory_format=torch.channels_last) for name, views in made.items()
    }


def _prepared(tensor: Tensor) -> Tensor:
    if tensor.ndim == 4:
        return to_float_images(tensor.permute(0, 3, 1, 2)).contiguous(memory_format=torch.channels_last)
    return tensor.long() if tensor.dtype == torch.uint8 else tensor
