"""A batch of random images, where only the time of a step matters."""

import torch
from torch import Tensor

from segkc_deploy.training.methods.base import Batch
from segkc_deploy.training.recipe import Recipe

CLASSES = 8


def random_batch(recipe: Recipe, views: int, ranks: int = 1) -> Batch:
    """Return one rank's share of a step of `recipe`, with `CLASSES` classes and `views` strong views."""
    generator = torch.Generator().manual_seed(0)

    def images(count: int) -> Tensor:
        made = torch.rand(count, 3, *recipe.crop_size, generator=generator)
        return made.contiguous(memory_format=torch.channels_last)

    labeled, unlabeled = recipe.batch.labeled // ranks, recipe.batch.unlabeled // ranks
    mask = torch.randint(0, CLASSES, (labeled, *recipe.crop_size), generator=generator)
    names = ("weak", *(f"strong_{number + 1}" for number in range(views)))
    ignored = torch.zeros(unlabeled, *recipe.crop_size, dtype=torch.bool)
    return Batch(
        {"image": images(labeled), "mask": mask}, {name: images(unlabeled) for name in names} | {"ignored": ignored}
    )
