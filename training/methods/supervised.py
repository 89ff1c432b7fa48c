"""The junior alone on the labeled images: what every other method has to beat at the same schedule."""

from typing import Self

from torch import nn

from segkc_deploy.training.methods.base import Batch, Method, MethodConfig, StepOutput
from segkc_deploy.training.methods.losses import supervised_loss
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.recipe import Recipe


class Alone(nn.Module):
    """The one network that learns."""

    def __init__(self, junior: Segmenter) -> None:
        super().__init__()
        self.junior = junior


class Supervised(Method):
    """Cross-entropy on weakly augmented labeled images; unlabeled images are not used."""

    learners: Alone

    @classmethod
    def build(cls, recipe: Recipe, config: MethodConfig, num_classes: int, ignore_index: int) -> Self:
        return cls(recipe, Alone(Segmenter(recipe.junior, num_classes)), ignore_index)

    def forward(self, batch: Batch, step: int) -> StepOutput:
        logits = self.learners.junior(batch.labeled["image"])
        output = StepOutput()
        output.add("supervised_junior", 1.0, supervised_loss, logits, batch.labeled["mask"], self.ignore_index)
        return output


METHOD = Supervised
