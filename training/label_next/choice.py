"""Choosing images of a high score that are not all the same picture."""

import numpy as np


def choose(scores: np.ndarray, features: np.ndarray, count: int, diversity: float) -> list[int]:
    """Return the indices of `count` images, the first chosen first.

    Greedy: the next image is the one with the largest score · distance ** diversity, the distance being that of its
    feature from the closest one chosen before (1 for the first). So an image that looks like a chosen one adds little,
    however high its score. `diversity` 0 takes the highest scores. A product needs no common scale: scores or
    distances twice as large choose the same images.

    Of equal ones the higher score comes first, then the smaller index: the same arrays give the same choice.

    Args:
        scores: (N,), 0 or more.
        features: (N, D), unit length each.
        count: at most N.
        diversity: 0 or more.
    """
    assert count <= len(scores)
    distance = np.ones(len(scores))
    left = np.ones(len(scores), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < count:
        gain = np.where(left, scores * distance**diversity, -1.0)
        tied = np.flatnonzero(gain == gain.max())
        best = int(tied[np.argmax(scores[tied])])
        to_best = np.linalg.norm(features - features[best], axis=1)
        distance = np.minimum(distance, to_best) if chosen else to_best
        left[best] = False
        chosen.append(best)
    return chosen
