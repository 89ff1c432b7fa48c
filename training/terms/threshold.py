"""From which confidence on a pseudo-label counts: one threshold, one per class, or per class by what was seen."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Threshold(nn.Module):
    """Tells which pseudo-labels are confident enough.

    With `adaptive`, class c has the threshold τ_c · m_c / max m, where m_c is the running mean confidence of the
    pixels that were given class c: classes that are learned slowly are not kept out (the idea of FlexMatch, arXiv
    2110.08263; for pixels, whose classes are not balanced, we take confidences where it counts samples). A class that
    was not given yet has the lowest factor of the others.

    Args:
        threshold: τ from 0 to 1, or one per class.
        num_classes: number of classes.
        adaptive: whether thresholds follow the running mean confidences.
        momentum: of the running means.
    """

    base: Tensor
    mean_confidence: Tensor

    def __init__(self, threshold: float | Sequence[float], num_classes: int, adaptive: bool, momentum: float) -> None:
        super().__init__()
        self.adaptive, self.momentum = adaptive, momentum
        per_class = [threshold] * num_classes if isinstance(threshold, int | float) else list(threshold)
        self.register_buffer("base", torch.tensor(per_class, dtype=torch.float32), persistent=False)
        # 0 stands for a class that was not given yet: no confidence is as low.
        self.register_buffer("mean_confidence", torch.zeros(num_classes))

    def per_class(self) -> Tensor:
        """Return the threshold of each class, (C,)."""
        if not self.adaptive:
            return self.base
        factors = self.mean_confidence / self.mean_confidence.max().clamp(min=torch.finfo(torch.float32).tiny)
        given = self.mean_confidence > 0
        return self.base * torch.where(given, factors, torch.where(given, factors, 1.0).min())

    def confident(self, labels: Tensor, confidence: Tensor) -> Tensor:
        """Return which of `labels` (N, H, W) reach their class's threshold with their `confidence` (N, H, W)."""
        return confidence >= self.per_class()[labels]

    @torch.no_grad()
    def update(self, labels: Tensor, confidence: Tensor, valid: Tensor) -> None:
        """Move the running means by a batch's labels and confidences where `valid`, all (N, H, W)."""
        if not self.adaptive:
            return
        classes = labels[valid]
        counts = torch.zeros_like(self.mean_confidence).index_add_(0, classes, torch.ones_like(confidence[valid]))
        sums = torch.zeros_like(self.mean_confidence).index_add_(0, classes, confidence[valid])
        now = sums / counts.clamp(min=1)
        moved = torch.where(self.mean_confidence > 0, torch.lerp(now, self.mean_confidence, self.momentum), now)
        self.mean_confidence.copy_(torch.where(counts > 0, moved, self.mean_confidence))
