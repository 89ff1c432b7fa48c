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


def peak_learning_rate(recipe: Recipe) -> float:
    """Return the backbones' peak learning rate: `optimizer.lr`, scaled linearly to the labeled images of a step.

    As it stands where the recipe does not say for how many images it holds (`optimizer.lr_at_batch`).
    """
    optimizer = recipe.optimizer
    return (
        optimizer.lr if optimizer.lr_at_batch is None else optimizer.lr * recipe.batch.labeled / optimizer.lr_at_batch
    )


def learning_rate_in_words(recipe: Recipe) -> str:
    """Say which learning rates are used, and why."""
    optimizer, used = recipe.optimizer, peak_learning_rate(recipe)
    rates = f"learning rate: {used:.4g} for backbones, {used * optimizer.decoder_lr_multiplier:.4g} for the rest"
    if optimizer.lr_at_batch is None:
        return f"{rates}; the recipe's own, whatever the batch (no optimizer.lr_at_batch)"
    if optimizer.lr_at_batch == recipe.batch.labeled:
        return f"{rates}; the recipe's own, which belongs to {optimizer.lr_at_batch} labeled images a step"
    return (
        f"{rates}; the recipe's {optimizer.lr:.4g} belongs to {optimizer.lr_at_batch} labeled images a step"
        f" (optimizer.lr_at_batch), here are {recipe.batch.labeled}"
    )
