"""The scores of `label-next` by their formulas, in float64."""

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=0))
    return exponentials / exponentials.sum(axis=0)


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.where(p > 0, p * np.log(np.where(p > 0, p / q, 1)), 0).sum(axis=0)


def expected_scores(p: np.ndarray, q: np.ndarray) -> dict[str, np.ndarray]:
    """Per pixel, in float64, the divergence from its definition by two Kullback-Leibler divergences."""
    mean = (p + q) / 2
    uniform = np.log(len(p))
    return {
        "disagreement": (p.argmax(axis=0) != q.argmax(axis=0)).astype(float),
        "divergence": (kl(p, mean) + kl(q, mean)) / 2 / np.log(2),
        "entropy_mean": -(mean * np.log(mean)).sum(axis=0) / uniform,
        "entropy_senior": -(q * np.log(q)).sum(axis=0) / uniform,
        "entropy_junior": -(p * np.log(p)).sum(axis=0) / uniform,
    }
