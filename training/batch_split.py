"""How the images of one optimizer step are divided among devices and micro-batches; the recipe sets the total."""

from dataclasses import dataclass

import numpy as np

from segkc_deploy.errors import ConfigError
from segkc_deploy.training.recipe import Recipe


@dataclass(frozen=True)
class BatchSplit:
    """One step: `accumulation` micro-batches, divided evenly among `ranks` devices.

    `labeled` and `unlabeled` are the images of a whole step; `unlabeled` is 0 for methods that use none.
    """

    labeled: int
    unlabeled: int
    accumulation: int
    ranks: int

    @property
    def parts(self) -> int:
        """The number of equal parts that a step's images are divided into."""
        return self.ranks * self.accumulation

    def in_words(self) -> str:
        """Describe how many images each step, device and micro-batch takes."""
        per_device = f"{self.labeled // self.parts} + {self.unlabeled // self.parts}"
        devices, micro_batches = (
            _counted(count, noun) for count, noun in ((self.ranks, "device"), (self.accumulation, "micro-batch"))
        )
        return (
            f"batch: {self.labeled} labeled + {self.unlabeled} unlabeled images a step"
            f" = {devices} × {micro_batches} (batch.accumulation) × {per_device}"
        )


def split_batch(recipe: Recipe, ranks: int, uses_unlabeled: bool) -> BatchSplit:
    """Divide a recipe's batch among `ranks` devices.

    Raises:
        ConfigError: it does not divide evenly, or CutMix would have no second image to take a box from; the message
            names the nearest values that work.
    """
    batch = recipe.batch
    split = BatchSplit(batch.labeled, batch.unlabeled if uses_unlabeled else 0, batch.accumulation, ranks)
    for name, images in (("labeled", split.labeled), ("unlabeled", split.unlabeled)):
        if images % split.parts:
            raise ConfigError(
                f"--devices {ranks}: batch.{name} = {images} cannot be shared evenly by"
                f" {_counted(ranks, 'device')} × {_counted(split.accumulation, 'micro-batch')} (batch.accumulation);"
                f" {_what_fits(split, name, images)}"
            )
    if ranks > 1 and recipe.strong.uses_cutmix and split.unlabeled == split.parts:
        raise ConfigError(
            f"--devices {ranks}: CutMix takes a box from another image on the same device, and each has one unlabeled"
            f" image in a micro-batch; use fewer devices, batch.unlabeled={2 * split.parts}, or"
            " strong.cutmix_probability=0"
        )
    return split


def random_seed(seed: int, rank: int, step: int) -> int:
    """Return the seed of the random numbers (CutMix, dropout) of one device's 0-based `step`, for several devices.

    It depends on these three alone, so a resumed run continues with the same numbers.
    """
    return int(np.random.SeedSequence([seed, rank, step]).generate_state(1, np.uint64)[0])


def _what_fits(split: BatchSplit, name: str, images: int) -> str:
    """Name the nearest numbers of devices and of images that divide."""
    most = split.labeled // split.accumulation
    fitting = [
        count for count in range(1, most + 1) if not any(n % (count * split.accumulation) for n in _images(split))
    ]
    below = [count for count in fitting if count < split.ranks][-1:]
    above = [count for count in fitting if count > split.ranks][:1]
    devices = " or ".join(str(count) for count in below + above)
    fewer = images // split.parts * split.parts
    counts = " or ".join(str(count) for count in (fewer, fewer + split.parts) if count)
    return f"use --devices {devices}, or batch.{name}={counts}"


def _images(split: BatchSplit) -> list[int]:
    return [split.labeled, *([split.unlabeled] if split.unlabeled else [])]


def _counted(count: int, noun: str) -> str:
    plural = noun + ("es" if noun.endswith("ch") else "s")
    return f"{count} {noun if count == 1 else plural}"
