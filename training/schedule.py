"""How long a training is and how its learning rate goes."""

from segkc_deploy.data.samples import ImageSets
from segkc_deploy.training.recipe import Recipe


def total_steps(recipe: Recipe, sets: ImageSets) -> int:
    """Return the optimizer steps of the whole run.

    An epoch is one pass over the unlabeled set, so that every method of a comparison takes the same number of steps;
    without unlabeled images it is one pass over the labeled set.
    """
    if recipe.schedule.steps is not None:
        return recipe.schedule.steps
    assert recipe.schedule.epochs is not None
    images, batch = (
        (len(sets.unlabeled), recipe.batch.unlabeled) if sets.unlabeled else (len(sets.labeled), recipe.batch.labeled)
    )
    return recipe.schedule.epochs * max(images // batch, 1)


def learning_rate_factor(step: int, steps: int, warmup_steps: int, power: float) -> float:
    """Return the factor on every learning rate at 0-based `step`: linear warm-up, then (1 - step / steps) ** power."""
    warmup = min((step + 1) / warmup_steps, 1.0) if warmup_steps else 1.0
    return warmup * (1 - step / steps) ** power
