"""Weights that make rare classes count for more in the loss on labeled images."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from segkc_deploy.data.census import Census
from segkc_deploy.errors import ConfigError

#: How weights are given: by a rule, as a list in the order of the classes, or by name (classes not named count 1).
ClassWeights = Literal["none", "inverse", "median-frequency", "log"] | Sequence[float] | Mapping[str, float]


def needs_census(weights: ClassWeights) -> bool:
    """Return whether the rule looks at how often classes occur."""
    return weights in ("inverse", "median-frequency", "log")


def class_weights(weights: ClassWeights, names: Sequence[str], census: Census | None, largest: float) -> np.ndarray:
    """Return a weight for each class, float64 (C,).

    With n the pixels of a class, N those of all C classes and I those of the images that hold it:

    - `inverse`: N / (C · n), so that every class has the same total weight.
    - `median-frequency`: median over the classes of (n / I), divided by the class's own (Eigen and Fergus 2015,
      arXiv 1411.4734, section 4.3).
    - `log`: 1 / ln(1.02 + n / N), divided by the smallest of these weights, so that the most frequent class counts 1
      and the rarest at most 36 (Paszke et al. 2016, arXiv 1606.02147, section 5).

    Classes without a pixel get 1; they do not enter the median. No weight is above `largest`.

    Args:
        weights: the recipe's setting.
        names: the class names.
        census: the labeled images, where `needs_census`.
        largest: the upper limit of weights that come from a rule.

    Raises:
        ConfigError: a list of another length than the classes, or a name that is no class.
    """
    if weights == "none":
        return np.ones(len(names))
    if isinstance(weights, Mapping):
        if unknown := [name for name in weights if name not in names]:
            raise ConfigError(f"supervision.class_weights: {unknown[0]!r} is no class; there are {', '.join(names)}")
        return np.array([float(weights.get(name, 1.0)) for name in names])
    if not isinstance(weights, str):
        if len(weights) != len(names):
            raise ConfigError(f"supervision.class_weights: {len(weights)} weights for {len(names)} classes")
        return np.array(weights, np.float64)
    assert census is not None
    pixels = census.class_pixels.astype(np.float64)
    found = pixels > 0
    chosen = np.ones(len(names))
    if not found.any():
        return chosen
    if weights == "inverse":
        chosen[found] = pixels.sum() / (len(names) * pixels[found])
    elif weights == "log":
        rarity = 1 / np.log(1.02 + pixels[found] / pixels.sum())
        chosen[found] = rarity / rarity.min(initial=np.inf)
    else:
        holding = ((census.pixels > 0) * census.pixels.sum(axis=1, keepdims=True)).sum(axis=0)
        frequency = pixels[found] / holding[found]
        chosen[found] = np.median(frequency) / frequency
    return chosen.clip(max=largest)
