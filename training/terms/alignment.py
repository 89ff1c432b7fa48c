"""Distribution alignment: pseudo-labels give each class the share of the pixels that it has in the labeled images."""

import math

import torch
from torch import Tensor, nn

from segkc_deploy.training.terms.class_sums import class_sums
from segkc_deploy.training.terms.sum_of_ranks import sum_of_ranks

#: No class gets more likely, or less, than by this factor: few labeled images tell shares of rare classes badly.
_MOST = 2.0


class DistributionAlignment(nn.Module):
    """Multiplies a teacher's probabilities by the labeled images' class shares over those that it predicts.

    With p the teacher's probabilities, π the running mean of the classes' shares of the labeled pixels and q that of p
    over the weak views' pixels, pseudo-labels are made from p · π / q, normalized (ReMixMatch, arXiv 1911.09785,
    section 3.1), with π / q between 1/2 and 2 [R]. Labeled and unlabeled crops are drawn alike, so π and q are of the
    same kind. Without it, a class that the teacher overlooks gets rarer with every label that it learns.

    Args:
        num_classes: number of classes.
        momentum: of the running means, which are plain means over the first 1 / (1 - momentum) batches.
    """

    labeled: Tensor
    predicted: Tensor
    labeled_batches: Tensor
    predicted_batches: Tensor

    def __init__(self, num_classes: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("labeled", torch.full((num_classes,), 1 / num_classes))
        self.register_buffer("predicted", torch.full((num_classes,), 1 / num_classes))
        # How many batches had labeled pixels, and pixels of weak views, that count.
        self.register_buffer("labeled_batches", torch.zeros(()))
        self.register_buffer("predicted_batches", torch.zeros(()))

    def forward(self, logits: Tensor) -> Tensor:
        """Return logits (N, C, H, W) of the aligned probabilities, in float32: BF16 rounds small changes away."""
        tiny = torch.finfo(torch.float32).tiny
        ratio = self.labeled.clamp(min=tiny).log() - self.predicted.clamp(min=tiny).log()
        return logits.float() + ratio.clamp(-math.log(_MOST), math.log(_MOST)).view(1, -1, 1, 1)

    @torch.no_grad()
    def update(self, masks: Tensor, logits: Tensor, valid: Tensor) -> None:
        """Take in a batch, of which every rank has its part; all call it at the same time.

        Args:
            masks: (N, H, W) of the labeled images; what is no class id does not count.
            logits: (N, C, H, W), not aligned, of the weak views.
            valid: (N, H, W), which of their pixels count.
        """
        classes = len(self.labeled)
        counts = class_sums(masks.clamp(0, classes - 1), (masks >= 0) & (masks < classes), classes)
        sums = (logits.float().softmax(dim=1) * valid[:, None]).sum(dim=(0, 2, 3))
        counts, sums = sum_of_ranks(torch.stack([counts, sums.double()]))
        self._take_in(self.labeled, self.labeled_batches, counts)
        self._take_in(self.predicted, self.predicted_batches, sums)

    def _take_in(self, mean: Tensor, batches: Tensor, sums: Tensor) -> None:
        """Move `mean` towards the shares of `sums`; a batch without a pixel that counts changes nothing."""
        total = sums.sum()
        given = (total > 0).to(mean)
        batches += given
        share = (1 / batches.clamp(min=1)).clamp(min=1 - self.momentum) * given
        mean.lerp_((sums / total.clamp(min=torch.finfo(sums.dtype).tiny)).float(), share)
