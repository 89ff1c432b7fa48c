"""Knowledge consultation at feature level: what the junior tells the senior, and where the senior's knowledge goes.

The two directions and the level are SegKC's (arXiv 2503.10693); the form, gated addition and projected cosine
distance, is our reading. Nothing here is part of either network: gates, alignments and projections end with training.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from segkc_deploy.training.terms.losses import feature_distillation, resize_like


class Consultation(nn.Module):
    """Both directions of the exchange between four junior and four senior feature maps.

    Args:
        junior_channels, senior_channels: channels of the four maps of each.
        dropout: probability, per image, that the senior gets no advice in training, so that it learns to run alone.
        learned_gates: whether the gates are learned, from 0 on; otherwise they stay 1.
        distance: between the junior's projected and the senior's features.
    """

    gates: Tensor

    def __init__(
        self,
        junior_channels: Sequence[int],
        senior_channels: Sequence[int],
        dropout: float,
        learned_gates: bool = True,
        distance: Literal["cosine", "mse"] = "cosine",
    ) -> None:
        super().__init__()
        pairs = list(zip(junior_channels, senior_channels, strict=True))
        self.alignments = nn.ModuleList(nn.Conv2d(junior, senior, 1) for junior, senior in pairs)
        self.projections = nn.ModuleList(nn.Conv2d(junior, senior, 1) for junior, senior in pairs)
        if learned_gates:
            # Zero: at the start the senior decodes exactly its own features.
            self.gates = nn.Parameter(torch.zeros(len(pairs)))
        else:
            self.register_buffer("gates", torch.ones(len(pairs)))
        self.dropout, self.distance = dropout, distance

    def fuse_into_senior(self, senior: Sequence[Tensor], junior: Sequence[Tensor]) -> list[Tensor]:
        """Return F_S + g · A(sg F_J) level by level; the junior gets no gradient."""
        keep = self._keep(senior[0])
        fused = []
        for level, (own, other) in enumerate(zip(senior, junior, strict=True)):
            advice = resize_like(self.alignments[level](other.detach()), own)
            fused.append(own + self.gates[level] * keep * advice)
        return fused

    def distillation_loss(self, junior: Sequence[Tensor], senior: Sequence[Tensor], ignored: Tensor) -> Tensor:
        """Return Σ_l mean(1 - cos(P_l F_J, sg F_S)), or the squared differences; the senior gets no gradient."""
        projected = [projection(feature) for projection, feature in zip(self.projections, junior, strict=True)]
        return feature_distillation(projected, senior, ignored, self.distance)

    def _keep(self, like: Tensor) -> Tensor:
        if not self.training or self.dropout == 0:
            return like.new_ones(len(like), 1, 1, 1)
        return (torch.rand(len(like), 1, 1, 1, device=like.device) >= self.dropout).to(like.dtype)
