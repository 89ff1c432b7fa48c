"""How the images of one optimizer step are shared out among devices and passes; their total is the recipe's."""

from dataclasses import dataclass

import numpy as np

from segkc_deploy.errors import ConfigError
from segkc_deploy.training.recipe import Recipe


@dataclass(frozen=True)
class BatchSplit:
    """One step: `accumulation` passes, in each of which every one of `ranks` devices takes an equal share.

    `labeled` and `unlabeled` are the images of a whole step; `unlabeled` is 0 for methods that use none.
    """

    labeled: int
    unlabeled: int
    accumulation: int
    ranks: int

    @property
    def parts(self) -> int:
        """Equal parts that a step's images are divided into."""
        return self.ranks * self.accumulation

    def in_words(self) -> str:
        """Say how many images a step, a device and a pass see."""
        per_device = f"{self.labeled // self.parts} + {self.unlabeled // self.parts}"
        devices, passes = (
            _counted(count, noun) for count, noun in ((self.ranks, "device"), (self.accumulation, "pass"))
        )
        return (
            f"batch: {self.labeled} labeled + {self.unlabeled} unlabeled images a step"
            f" = {devices} × {passes} (batch.accumulation) × {per_device}"
        )


def split_batch(recipe: Recipe, ranks: int, uses_unlabeled: bool) -> BatchSplit:
    """Share a recipe's batch out among `ranks` devices.

    Raises:
        ConfigError: it cannot be shared evenly, or CutMix would be left without a second image to take a box from; the
            message names the nearest values that work.
    """
    batch = recipe.batch
    split = BatchSplit(batch.labeled, batch.unlabeled if uses_unlabeled else 0, batch.accumulation, ranks)
    for name, images in (("labeled", split.labeled), ("unlabeled", split.unlabeled)):
        if images % split.parts:
            raise ConfigError(
                f"--devices {ranks}: batch.{name} = {images} cannot be shared evenly by"
                f" {_counted(ranks, 'device')} × {_counted(split.accumulation, 'pass')} (batch.accumulation);"
                f" {_what_fits(split, name, images)}"
            )
    if ranks > 1 and recipe.strong.uses_cutmix and split.unlabeled == split.parts:
        raise ConfigError(
            f"--devices {ranks}: CutMix takes a box from another image on the same device, and each has one unlabeled"
            f" image a pass; use fewer devices, batch.unlabeled={2 * split.parts}, or strong.cutmix_probability=0"
        )
    return split


def random_seed(seed: int, rank: int, step: int) -> int:
    """Return what seeds the random numbers (CutMix, dropout) of one device's 0-based `step`, where there are several.

    A function of these three alone: a run that is resumed goes on with the same numbers.
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
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{count} {noun if count == 1 else plural}"
