"""FixMatch for segmentation: one network learns, on strong views, what its average says about the weak one.

Sohn et al. 2020 (arXiv 2001.07685), with the EMA teacher with which UniMatch V2 (arXiv 2410.10777) reproduces it
for segmentation.
"""

from typing import ClassVar, Self

from pydantic import Field

from segkc_deploy.training.methods.base import MethodConfig, single_network
from segkc_deploy.training.methods.weak_to_strong import TermWeights, WeakToStrong, WeakToStrongConfig
from segkc_deploy.training.recipe import Recipe


class Weights(TermWeights):
    """As published: the mean of the loss on labels and the loss on pseudo-labels."""

    supervised_junior: float = Field(default=0.5, ge=0)
    pseudo_label_junior: float = Field(default=0.5, ge=0)


class FixMatchConfig(WeakToStrongConfig):
    """Settings of FixMatch."""

    strong_views: int = Field(default=1, ge=1, le=2)
    weights: Weights = Weights()


class FixMatch(WeakToStrong):
    """The network is its own teacher, from the weak to the strong view."""

    Config: ClassVar[type[MethodConfig]] = FixMatchConfig
    teacher_of: ClassVar = {"junior": "junior"}
    unlabeled_term = "pseudo_label"

    @classmethod
    def build(cls, recipe: Recipe, config: MethodConfig, num_classes: int, ignore_index: int) -> Self:
        assert isinstance(config, FixMatchConfig)
        return cls(recipe, config, config.weights, single_network(recipe, num_classes), num_classes, ignore_index)


METHOD = FixMatch
