"""How much each pseudo-label counts: by a fixed threshold, or by how confident the teacher usually is in its class."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

#: As in SoftMatch's published code, whose Gaussian is twice as narrow as the confidences' own.
_SIGMAS = 2.0


class LabelWeights(nn.Module, ABC):
    """Weighs pseudo-labels by their confidence."""

    @abstractmethod
    def forward(self, labels: Tensor, confidence: Tensor) -> Tensor:
        """Return the weights (N, H, W), from 0 to 1, of `labels` (N, H, W) that have `confidence` (N, H, W)."""

    @abstractmethod
    def update(self, labels: Tensor, confidence: Tensor, valid: Tensor) -> None:
        """Take in a batch's labels and confidences where `valid`, all (N, H, W)."""


class FixedThreshold(LabelWeights):
    """A label counts where its confidence reaches the threshold (FixMatch, arXiv 2001.07685).

    Args:
        threshold: from 0 to 1, or one per class.
        num_classes: number of classes.
    """

    per_class: Tensor

    def __init__(self, threshold: float | Sequence[float], num_classes: int) -> None:
        super().__init__()
        per_class = [threshold] * num_classes if isinstance(threshold, int | float) else list(threshold)
        self.register_buffer("per_class", torch.tensor(per_class, dtype=torch.float32), persistent=False)

    def forward(self, labels: Tensor, confidence: Tensor) -> Tensor:
        return (confidence >= self.per_class[labels]).to(confidence.dtype)

    def update(self, labels: Tensor, confidence: Tensor, valid: Tensor) -> None:
        """A fixed threshold takes nothing in."""


class SoftWeights(LabelWeights):
    """Labels count by how their confidence compares with the teacher's usual confidence in their class.

    A label of class c with confidence p has the weight exp(-min(p - μ_c, 0)² / (2 (σ_c / 2)²)): 1 from the class's
    running mean μ_c on, and falling below it by the class's running standard deviation σ_c. A class that was not given
    yet has the weight 1. This is SoftMatch (arXiv 2301.10921) with statistics per class, an option of its code: classes
    share the pixels so unevenly that common statistics would be those of the most frequent class.

    Args:
        num_classes: number of classes.
        momentum: of the running statistics. Until a class has been given in 1 / (1 - momentum) batches, they are the
            plain means over those batches.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, num_classes: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(num_classes))
        self.register_buffer("variance", torch.ones(num_classes))
        # In how many batches a class was given.
        self.register_buffer("batches", torch.zeros(num_classes))

    def forward(self, labels: Tensor, confidence: Tensor) -> Tensor:
        below = (confidence.float() - self.mean[labels]).clamp(max=0)
        # A class of which all labels had the same confidence has the variance 0.
        variance = self.variance[labels].clamp(min=torch.finfo(torch.float32).eps)
        return torch.exp(-0.5 * _SIGMAS**2 * below.square() / variance)

    @torch.no_grad()
    def update(self, labels: Tensor, confidence: Tensor, valid: Tensor) -> None:
        classes, values = labels[valid], confidence[valid].float()
        zeros = torch.zeros_like(self.mean)
        counts = zeros.index_add(0, classes, torch.ones_like(values))
        mean = zeros.index_add(0, classes, values) / counts.clamp(min=1)
        variance = zeros.index_add(0, classes, (values - mean[classes]).square()) / counts.clamp(min=1)
        given = counts > 0
        self.batches += given
        share = (1 / self.batches.clamp(min=1)).clamp(min=1 - self.momentum) * given
        self.mean.lerp_(mean, share)
        self.variance.lerp_(variance, share)


def weights_by(threshold: str | float | Sequence[float], num_classes: int, momentum: float) -> LabelWeights:
    """Return what `confidence_threshold` of a recipe stands for: `soft`, or one or several numbers."""
    if isinstance(threshold, str):
        return SoftWeights(num_classes, momentum)
    return FixedThreshold(threshold, num_classes)
