"""Training images, each a pure function of (seed, stream, draw number).

Neither worker processes nor the sampler hold state of their own: draw number n of a stream is the same image with the
same augmentation in every run, whatever the number of workers, so a run resumes at a draw number.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from segkc_deploy.data.census import Census
from segkc_deploy.data.images import has_half_size, read_half_size, read_image
from segkc_deploy.data.masks import read_mask, require_size_of_image
from segkc_deploy.data.samples import ImageSets, Sample
from segkc_deploy.errors import DataError, UnreadableFileError, UserError
from segkc_deploy.training.data.augment import draw_strong_view, strong_view, weak_view
from segkc_deploy.training.data.augment_batch import packed
from segkc_deploy.training.data.decoded_cache import DecodedCache
from segkc_deploy.training.recipe import Recipe

#: Streams of random numbers; their values enter every seed, so they never change.
LABELED_STREAM, UNLABELED_STREAM = 0, 1
_ORDER, _AUGMENTATION, _RARE = 0, 1, 2

#: From this factor down a JPEG is decoded at half its size. Where a resized pixel spans four of the half's along each
#: side, values differ by less than a gray level on average, in sharp photographs too; from 1/4 to 1/2 it would be two.
_HALVED_BELOW = 1 / 8


class Loaded(NamedTuple):
    """One example or batch, as worker processes hand it over.

    Attributes:
        tensors: by name; or the user's mistake that kept them from being made.
        skipped: for each file that could not be read and was replaced, the message that names it.
    """

    tensors: dict[str, Tensor] | UserError
    skipped: tuple[str, ...] = ()


class DrawDataset(Dataset[Loaded]):
    """Maps a draw number to an augmented training example.

    Where a file cannot be read, the image that comes next in the epoch's order takes its place, with the random numbers
    of the draw: which one that is depends on the seed, the draw number and the files alone, so a resumed run replaces
    it by the same one.

    Any other mistake of the user's (a mask with unknown ids) is returned, not raised: raised in a worker process it
    would arrive as a traceback of that process.

    The draws run through the samples in a new random order every epoch, endlessly. A set of fewer samples than another
    is thereby oversampled.
    """

    def __init__(self, samples: tuple[Sample, ...], sets: ImageSets, recipe: Recipe, stream: int) -> None:
        assert samples, "an empty set has no draws"
        self.cache = DecodedCache.of(recipe.cache)
        self.samples = samples
        self.sets = sets
        self.recipe = recipe
        self.stream = stream

    def __getitem__(self, draw: int) -> Loaded:
        skipped: list[str] = []
        while not skipped or len(skipped) < self.most_attempts(draw):
            try:
                return Loaded(self.example(draw, attempt=len(skipped)), tuple(skipped))
            except UnreadableFileError as error:
                skipped.append(str(error))
            except UserError as error:
                return Loaded(error, tuple(skipped))
        return Loaded(DataError(f"{skipped[-1]}; no image can take its place"), tuple(skipped))

    def example(self, draw: int, attempt: int = 0) -> dict[str, Tensor]:
        """Make the example of draw number `draw`; `attempt` counts the images of it that could not be read."""
        raise NotImplementedError

    def most_attempts(self, draw: int) -> int:
        """Return how many samples draw number `draw` tries."""
        # One more than the limit is enough for the training to stop; it also ends the search in a small set.
        return min(self.recipe.unreadable_files + 1, len(self.samples))

    def sample_of(self, draw: int, attempt: int = 0) -> Sample:
        """Return the sample that draw number `draw` takes after `attempt` unreadable ones."""
        epoch, position = divmod(draw, len(self.samples))
        order = epoch_order(self.recipe.seed, self.stream, epoch, len(self.samples))
        return self.samples[order[(position + attempt) % len(self.samples)]]

    def generator(self, draw: int) -> np.random.Generator:
        """Return the random numbers of draw number `draw`."""
        return np.random.default_rng([self.recipe.seed, self.stream, _AUGMENTATION, draw])

    def image(self, path: Path, draw: int) -> tuple[np.ndarray, tuple[int, int]]:
        """Return an image and its (height, width), or the image at half that size where the draw shrinks it a lot."""
        # The first number that `weak_view` draws.
        factor = self.generator(draw).uniform(*self.recipe.weak.scale)
        if factor <= _HALVED_BELOW and self.sets.pixels.is_rgb and has_half_size(path):
            half = self.cache.half_size_image(path) if self.cache else read_half_size(path)
            return half, (2 * half.shape[0], 2 * half.shape[1])
        pixels = self.sets.pixels
        image = self.cache.image(path, pixels) if self.cache else read_image(path, pixels)
        return image, (image.shape[0], image.shape[1])


# A batch may end one epoch and begin the next, and a process without workers loads both streams.
@lru_cache(maxsize=4)
def epoch_order(seed: int, stream: int, epoch: int, count: int) -> np.ndarray:
    """Return the order in which a stream's `epoch` takes its `count` samples, int64 (count,), read-only."""
    order = np.random.default_rng([seed, stream, _ORDER, epoch]).permutation(count)
    order.setflags(write=False)
    return order


class LabeledDataset(DrawDataset):
    """`image` uint8 (H, W, 3) and `mask` uint8 (H, W), weakly augmented.

    With `weak.rare_class_crops` that share of the draws takes a rare class, one as often as the other, an image that
    holds it, and a crop that holds one of its pixels. `census` counts the labeled images' classes; only these draws
    need it.
    """

    def __init__(self, sets: ImageSets, recipe: Recipe, census: Census | None = None) -> None:
        super().__init__(sets.labeled, sets, recipe, LABELED_STREAM)
        self.holders: dict[int, np.ndarray] = {}
        if recipe.weak.rare_class_crops > 0:
            assert census is not None
            rare = census.rare(recipe.weak.rare_class_share)
            self.holders = {index: np.flatnonzero(census.pixels[:, index]) for index in rare}

    def example(self, draw: int, attempt: int = 0) -> dict[str, Tensor]:
        sample, wanted = self._choose(draw) if attempt == 0 else (self.sample_of(draw, attempt), None)
        image, size = self.image(sample.image, draw)
        coding = self.sets.coding
        mask = self.cache.mask(sample, coding) if self.cache else read_mask(sample, coding)
        require_size_of_image(sample, size, mask)
        image, mask = weak_view(
            image,
            mask,
            self.recipe.crop_size,
            self.sets.labels.ignore_index,
            self.recipe.weak,
            self.generator(draw),
            wanted,
        )
        return {"image": torch.from_numpy(image), "mask": torch.from_numpy(mask)}

    def most_attempts(self, draw: int) -> int:
        """Return how many samples draw number `draw` tries: beside the one chosen for a class, those of any draw."""
        return super().most_attempts(draw) + (self._choose(draw)[1] is not None)

    def _choose(self, draw: int) -> tuple[Sample, int | None]:
        """Return the sample of draw number `draw`, and the class that its crop is to hold."""
        rng = np.random.default_rng([self.recipe.seed, self.stream, _RARE, draw])
        if not self.holders or rng.random() >= self.recipe.weak.rare_class_crops:
            return self.sample_of(draw), None
        wanted = list(self.holders)[int(rng.integers(len(self.holders)))]
        return self.samples[int(rng.choice(self.holders[wanted]))], wanted


class UnlabeledDataset(DrawDataset):
    """`weak` and `strong_1` … `strong_n`, uint8 (H, W, 3) or as the data's pixels are, of one geometry.

    `ignored` is bool (H, W), true on padding. With `draws_only` the strong views of RGB images are what
    `augment_batch.packed` makes of their draws, for `augment_batch.make_strong_views`.
    """

    def __init__(self, sets: ImageSets, recipe: Recipe, strong_views: int, draws_only: bool = False) -> None:
        super().__init__(sets.unlabeled, sets, recipe, UNLABELED_STREAM)
        self.strong_views = strong_views
        self.draws_only = draws_only and sets.pixels.is_rgb

    def example(self, draw: int, attempt: int = 0) -> dict[str, Tensor]:
        image, size = self.image(self.sample_of(draw, attempt).image, draw)
        rng = self.generator(draw)
        valid = np.zeros(size, dtype=np.uint8)
        weak, padding = weak_view(image, valid, self.recipe.crop_size, 255, self.recipe.weak, rng)
        example = {"weak": torch.from_numpy(weak), "ignored": torch.from_numpy(padding == 255)}
        for view in range(1, self.strong_views + 1):
            if self.draws_only:
                example[f"strong_{view}"] = packed(draw_strong_view(self.recipe.strong, rng))
            else:
                example[f"strong_{view}"] = torch.from_numpy(strong_view(weak, self.recipe.strong, rng))
        return example


@dataclass(frozen=True)
class Draws:
    """Which draw numbers a rank loads: of the `batches`, `batch_size` consecutive draws each, its equal share."""

    batch_size: int
    batches: range
    rank: int = 0
    ranks: int = 1

    def __iter__(self) -> Iterator[list[int]]:
        share = self.batch_size // self.ranks
        for batch in self.batches:
            start = batch * self.batch_size + self.rank * share
            yield list(range(start, start + share))

    def __len__(self) -> int:
        return len(self.batches)


def draw_loader(dataset: DrawDataset, draws: Draws, workers: int, pin_memory: bool) -> DataLoader[Loaded]:
    """Load the `draws` of `dataset`, a batch at a time."""
    return DataLoader(
        dataset,
        batch_sampler=draws,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        worker_init_fn=_one_thread if workers else None,
        # Iterating draws a seed for the workers; from the global generator it would shift every later random number.
        generator=torch.Generator(),
    )


def _collate(examples: list[Loaded]) -> Loaded:
    skipped = tuple(message for example in examples for message in example.skipped)
    for example in examples:
        if isinstance(example.tensors, UserError):
            return Loaded(example.tensors, skipped)
    return Loaded(default_collate([example.tensors for example in examples]), skipped)


def _one_thread(worker: int) -> None:
    # Each worker is one of several processes; OpenCV's own threads would fight over the same cores.
    cv2.setNumThreads(0)
