"""How unsure the networks are of an image and how far they disagree: pixel by pixel, and as means over the image."""

import math
from collections.abc import Mapping

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


def pixel_scores(junior: Tensor, senior: Tensor | None) -> dict[str, Tensor]:
    """Return the scores of each pixel by their name in `SCORES`, (H, W) each, 0 to 1.

    With p and q the probabilities of C classes, H their entropy in nats and m = (p + q) / 2: `entropy_junior` is
    H(p) / ln C, `entropy_senior` H(q) / ln C, `entropy_mean` H(m) / ln C, and `divergence`, Jensen-Shannon in bits,
    is (H(m) - (H(p) + H(q)) / 2) / ln 2. `disagreement` is 1 where the two argmaxes differ, else 0.

    Args:
        junior: p, (C, H, W), of a part of an image.
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


class ImageScores:
    """The means of `pixel_scores` over an image that comes in parts."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._pixels = 0

    def add(self, junior: Tensor, senior: Tensor | None) -> None:
        """Take in a part; arguments as of `pixel_scores`."""
        for name, values in pixel_scores(junior, senior).items():
            self._sums[name] = self._sums.get(name, 0.0) + values.sum(dtype=torch.float64).item()
        self._pixels += junior[0].numel()

    def means(self) -> dict[str, float]:
        """Return the means by name, in the order of `SCORES`."""
        return {name: self._sums[name] / self._pixels for name in SCORES if name in self._sums}


def ranking_score(scores: Mapping[str, float], by: str) -> float:
    """Return what an image is ranked by, 0 to 1: the product of the scores that `RANKINGS[by]` names."""
    return math.prod(scores[name] for name in RANKINGS[by])


def _entropy(probabilities: Tensor) -> Tensor:
    """Entropy in nats over the first axis."""
    return torch.special.entr(probabilities).sum(dim=0)
