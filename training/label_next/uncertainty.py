"""How unsure the networks are of an image and how far they disagree: pixel by pixel, and as means over the image."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

#: What each score is; all of them from 0 to 1. Those that need two networks come first.
SCORES = {
    "disagreement": "share of the pixels that the junior and the senior give different classes",
    "divergence": "Jensen-Shannon divergence of the two predictions, in bits, mean over the pixels",
    "entropy_mean": "entropy of the mean of the two predictions, over that of a uniform one, mean over the pixels",
    "entropy_senior": "entropy of the senior's prediction, over that of a uniform one, mean over the pixels",
    "entropy_junior": "entropy of the junior's prediction, over that of a uniform one, mean over the pixels",
}

#: What images can be ranked by, from their scores; `both` needs no scale, since it is a product.
RANKINGS = {
    "disagreement": ("disagreement",),
    "entropy": ("entropy_junior",),
    "both": ("disagreement", "entropy_mean"),
}

#: Values that are computed at once.
_VALUES_AT_ONCE = 1 << 24


def pixel_scores(junior: Tensor, senior: Tensor | None) -> dict[str, Tensor]:
    """Return the scores of each pixel by their name in `SCORES`, (H, W) each, 0 to 1.

    With p and q the probabilities of C classes, H their entropy in nats and m = (p + q) / 2: `entropy_junior` is
    H(p) / ln C, `entropy_senior` H(q) / ln C, `entropy_mean` H(m) / ln C, and `divergence`, Jensen-Shannon in bits,
    is (H(m) - (H(p) + H(q)) / 2) / ln 2. `disagreement` is 1 where the two argmaxes differ, else 0.

    Args:
        junior: p, (C, H, W).
        senior: q, of the same shape; None leaves the junior's entropy alone.
    """
    most = math.log(len(junior))
    entropy_junior = _entropy(junior)
    scores = {"entropy_junior": entropy_junior / most}
    if senior is not None:
        entropy_senior, entropy_mean = _entropy(senior), _entropy((junior + senior) / 2)
        scores["entropy_senior"] = entropy_senior / most
        scores["entropy_mean"] = entropy_mean / most
        # Rounding can leave a tiny negative value where the two agree.
        divergence = (entropy_mean - (entropy_junior + entropy_senior) / 2).clamp(min=0)
        scores["divergence"] = divergence / math.log(2)
        scores["disagreement"] = (junior.argmax(dim=0) != senior.argmax(dim=0)).float()
    return scores


def image_scores(junior: Tensor, senior: Tensor | None) -> dict[str, float]:
    """Return the means of `pixel_scores` over an image, by name, in the order of `SCORES`; arguments as there."""
    sums: dict[str, float] = {}
    for scores in _bands(junior, senior):
        for name, values in scores.items():
            sums[name] = sums.get(name, 0.0) + values.sum(dtype=torch.float64).item()
    return {name: sums[name] / junior[0].numel() for name in SCORES if name in sums}


def score_map(junior: Tensor, senior: Tensor | None, name: str) -> np.ndarray:
    """Return one of `pixel_scores`, float32 (H, W), 0 to 1; arguments as there."""
    values: np.ndarray = torch.cat([scores[name] for scores in _bands(junior, senior)]).float().cpu().numpy()
    return values


def ranking_score(scores: Mapping[str, float], by: str) -> float:
    """Return what an image is ranked by, 0 to 1: the product of the scores that `RANKINGS[by]` names."""
    return math.prod(scores[name] for name in RANKINGS[by])


def _bands(junior: Tensor, senior: Tensor | None) -> Iterator[dict[str, Tensor]]:
    """Yield `pixel_scores` of one band of rows after the other: all classes of a whole image can be large."""
    classes, height, width = junior.shape
    rows = max(_VALUES_AT_ONCE // (classes * width), 1)
    for top in range(0, height, rows):
        yield pixel_scores(junior[:, top : top + rows], None if senior is None else senior[:, top : top + rows])


def _entropy(probabilities: Tensor) -> Tensor:
    """Entropy in nats over the first axis."""
    return torch.special.entr(probabilities).sum(dim=0)
