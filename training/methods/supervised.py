"""The junior alone on the labeled images: what every other method has to beat at the same schedule."""

from typing import Self

from segkc_deploy.errors import ConfigError
from segkc_deploy.training.methods.base import Batch, Method, MethodConfig, StepOutput, single_network
from segkc_deploy.training.models.groups import SingleNetwork
from segkc_deploy.training.recipe import Recipe


class Supervised(Method):
    """The loss on weakly augmented labeled images; unlabeled images are not used."""

    online: SingleNetwork

    @classmethod
    def build(cls, recipe: Recipe, config: MethodConfig, num_classes: int, ignore_index: int) -> Self:
        if recipe.relation.is_on or recipe.strong.entropymix.mode != "off":
            raise ConfigError(
                f"recipe {recipe.name}: relation and entropymix work on unlabeled images, which method supervised does"
                " not use; take fixmatch, unimatch-v2, cps or segkc"
            )
        return cls(recipe, single_network(recipe, num_classes), ignore_index)

    def forward(self, batch: Batch, step: int) -> StepOutput:
        logits = self.online.junior(batch.labeled["image"])
        output = StepOutput()
        output.add("supervised_junior", 1.0, self.supervised_loss, logits, batch.labeled["mask"])
        return output


METHOD = Supervised
