"""The junior alone on the labeled images: what every other method has to beat at the same schedule."""

from typing import Self

from ..models.segmenter import Segmenter
from ..recipe import Recipe
from .base import Batch, Method, MethodConfig, StepOutput
from .losses import supervised_loss


class Supervised(Method):
    """Cross-entropy on weakly augmented labeled images; unlabeled images are not used."""

    @classmethod
    def build(cls, recipe: Recipe, config: MethodConfig, num_classes: int, ignore_index: int) -> Self:
        return cls(recipe, config, {"junior": Segmenter(recipe.junior, num_classes)}, ignore_index)

    def forward(self, batch: Batch, step: int) -> StepOutput:
        logits = self.learners["junior"](batch.labeled["image"])
        loss = supervised_loss(logits, batch.labeled["mask"], self.ignore_index)
        return StepOutput({"supervised_junior": loss}, {"supervised_junior": 1.0})


METHOD = Supervised
