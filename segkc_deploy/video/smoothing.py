"""Masks that follow each other: how much they flicker, and smoothing over time."""

import cv2
import numpy as np

from segkc_deploy.errors import ConfigError
from segkc_deploy.predictor import Predictor


class Flicker:
    """The share of pixels whose class changes from one frame to the next (0-1), averaged over a video.

    What really moves changes classes too; the figure is for comparing masks of the same video.
    """

    def __init__(self) -> None:
        self._before: np.ndarray | None = None
        self._sum = 0.0
        self._steps = 0

    def add(self, mask: np.ndarray) -> None:
        """Compare a mask, uint8 (H, W), with the one before, where it has the same size."""
        if self._before is not None and self._before.shape == mask.shape:
            self._sum += cv2.countNonZero(cv2.compare(self._before, mask, cv2.CMP_NE)) / mask.size
            self._steps += 1
        self._before = mask

    @property
    def mean(self) -> float | None:
        """The average so far; None before the second frame."""
        return self._sum / self._steps if self._steps else None


class LogitAverage:
    """An exponential moving average of logits over the frames of a video.

    Args:
        predictor: what predicts; its artifact gives `logits`.
        decay: the weight of the frames before, from 0 (none) to below 1.

    Raises:
        ConfigError: the artifact gives no logits.
    """

    def __init__(self, predictor: Predictor, decay: float) -> None:
        if not any(output.name == "logits" for output in predictor.contract.outputs):
            name = predictor.manifest.artifact if predictor.manifest else "the network"
            raise ConfigError(f"{name}: gives no logits, which --smooth averages; export it with --outputs logits")
        self._predictor = predictor
        self._decay = decay
        self._average: np.ndarray | None = None

    def mask(self, logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Add a frame's logits, float32 (h, w, C), and return the mask, uint8 `size`, of the average."""
        if self._average is None or self._average.shape != logits.shape:
            self._average = logits.copy()
        else:
            self._average *= self._decay
            self._average += (1 - self._decay) * logits
        return self._predictor.postprocess({"logits": self._average[None]}, [size])[0]
