"""Choosing images of a high score that are not all the same picture."""

import math

import numpy as np

from segkc_deploy.errors import ConfigError


def choose(scores: np.ndarray, features: np.ndarray, count: int, diversity: float) -> list[int]:
    """Return the indices of `count` images, the first chosen first.

    Greedy: the next image is the one with the largest score · distance ** diversity, the distance being that of its
    feature from the closest one chosen before (1 for the first). So an image that looks like a chosen one adds little,
    however high its score. `diversity` 0 takes the highest scores. A product needs no common scale: scores or
    distances twice as large choose the same images.

    Of equal ones the higher score comes first, then the smaller index: the same arrays give the same choice. Where the
    product is 0 for all that are left, such as without any score, the most distant one comes before these.

    Args:
        scores: (N,), 0 or more.
        features: (N, D), unit length each.
        count: at most N.
        diversity: 0 or more.

    Raises:
        ConfigError: `diversity` is negative or not finite, or a score or a feature is not finite.
    """
    assert count <= len(scores)
    require_diversity(diversity)
    finite = np.isfinite(scores) & np.isfinite(features).all(axis=1)
    if not finite.all():
        raise ConfigError(
            f"the networks give no finite score to {np.count_nonzero(~finite)} of {len(scores)} images: their weights"
            " are NaN or infinite, or they overflow; rank with another run"
        )
    distance = np.ones(len(scores))
    left = np.ones(len(scores), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < count:
        gain = np.where(left, scores * distance**diversity, -1.0)
        tied = np.flatnonzero(gain == gain.max())
        if diversity > 0 and gain.max() == 0:
            tied = tied[distance[tied] == distance[tied].max()]
        best = int(tied[np.argmax(scores[tied])])
        to_best = np.linalg.norm(features - features[best], axis=1)
        distance = np.minimum(distance, to_best) if chosen else to_best
        left[best] = False
        chosen.append(best)
    return chosen


def require_diversity(diversity: float) -> None:
    """Raise a ConfigError unless `choose` takes this diversity: a finite number of 0 or more."""
    if not (math.isfinite(diversity) and diversity >= 0):
        raise ConfigError(f"--diversity {diversity}: should be a number of 0 or more")
