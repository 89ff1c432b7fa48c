"""How much each pseudo-label counts: by a fixed threshold, or by how confident the teacher usually is in its class."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segkc_deploy.training.terms.class_sums import class_sums
from segkc_deploy.training.terms.losses import PseudoLabels
from segkc_deploy.training.terms.sum_of_ranks import sum_of_ranks

#: As in SoftMatch's published code, whose Gaussian is twice as narrow as the confidences' own.
_SIGMAS = 2.0


class LabelWeights(nn.Module, ABC):
    """Weighs pseudo-labels by their confidence; where it has `runner_up`, it needs labels with runners-up."""

    runner_up = False

    @abstractmethod
    def forward(self, labels: PseudoLabels) -> Tensor:
        """Return the weights, from 0 to 1, of `labels`, in their shape."""

    @abstractmethod
    def update(self, labels: PseudoLabels, valid: Tensor) -> None:
        """Take in a batch's labels where `valid`, a tensor of their shape; every rank calls it at the same time."""


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

    def forward(self, labels: PseudoLabels) -> Tensor:
        return (labels.confidence >= self.per_class[labels.classes]).to(labels.confidence.dtype)

    def update(self, labels: PseudoLabels, valid: Tensor) -> None:
        """A fixed threshold takes nothing in."""


class SoftWeights(LabelWeights):
    """Labels count by how their confidence compares with the teacher's usual confidence in their class.

    A label with confidence p has the weight exp(-min(p - μ, 0)² / (2 (σ / 2)²)): 1 from μ on, and falling below it. μ
    is the running mean and σ² the running variance of the confidence in the label's class. A class that was not given
    yet has the weight 1; with `runner_up` only where the runner-up was not either. This is SoftMatch (arXiv 2301.10921)
    with statistics per class, an option of its code: classes share the pixels so unevenly that common statistics would
    be those of the most frequent class. Its code too has σ / 2. Unlike there, a batch is weighted before the
    statistics take it in, σ² is the biased variance, and a class that a batch does not give keeps its statistics. [R]

    With `runner_up`, μ and σ are those of the label's class or of the runner-up, of whichever has the lower mean. For
    the teacher is less sure of rare classes: compared with its own class alone, an unsure label of a rare class counts
    and an unsure label of the common class beside it does not, so networks learn to see the rare class where it is
    not. [R]

    Args:
        num_classes: number of classes.
        momentum: of the running statistics. Until a class has been given in 1 / (1 - momentum) batches, they are the
            plain means over those batches.
        runner_up: whether the second most probable class counts too.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, num_classes: int, momentum: float, runner_up: bool = False) -> None:
        super().__init__()
        self.momentum, self.runner_up = momentum, runner_up
        self.register_buffer("mean", torch.zeros(num_classes))
        self.register_buffer("variance", torch.ones(num_classes))
        # In how many batches a class was given.
        self.register_buffer("batches", torch.zeros(num_classes))

    def forward(self, labels: PseudoLabels) -> Tensor:
        reference = labels.classes
        if self.runner_up:
            assert labels.runners_up is not None
            mean = torch.where(self.batches > 0, self.mean, torch.inf)
            reference = torch.where(mean[labels.runners_up] < mean[reference], labels.runners_up, reference)
        # The mean of a class that was not given is 0, which every confidence reaches.
        below = (labels.confidence.float() - self.mean[reference]).clamp(max=0)
        # A class of which all labels had the same confidence has the variance 0.
        variance = self.variance[reference].clamp(min=torch.finfo(torch.float32).eps)
        return torch.exp(-0.5 * _SIGMAS**2 * below.square() / variance)

    @torch.no_grad()
    def update(self, labels: PseudoLabels, valid: Tensor) -> None:
        classes, values = labels.classes, torch.where(valid, labels.confidence.double(), 0)
        # Of all ranks: a mean of their statistics would count those that did not see a class.
        counts, sums = sum_of_ranks(
            torch.stack([class_sums(classes, of_pixels, len(self.mean)) for of_pixels in (valid, values)])
        )
        mean = sums / counts.clamp(min=1)
        deviations = torch.where(valid, (values - mean[classes]).square(), 0)
        squares = sum_of_ranks(class_sums(classes, deviations, len(self.mean)))
        variance = squares / counts.clamp(min=1)
        given = counts > 0
        self.batches += given
        share = (1 / self.batches.clamp(min=1)).clamp(min=1 - self.momentum) * given
        self.mean.lerp_(mean.float(), share)
        self.variance.lerp_(variance.float(), share)


def weights_by(threshold: str | float | Sequence[float], num_classes: int, momentum: float) -> LabelWeights:
    """Return what `confidence_threshold` of a recipe stands for: `soft`, `soft-pair`, or one or several numbers."""
    if isinstance(threshold, str):
        return SoftWeights(num_classes, momentum, runner_up=threshold == "soft-pair")
    return FixedThreshold(threshold, num_classes)
