"""Cross pseudo supervision: two networks learn each other's labels (Chen et al. 2021, arXiv 2106.01226).

Published are two networks of one architecture, labels of every pixel from the networks themselves, and CutMix; here
labels come from the weak view and are learned on strong ones, as in every method of this package. With two different
networks in a recipe it is the control to SegKC: heterogeneous, without consultation.
"""

from typing import ClassVar, Self

from pydantic import Field

from segkc_deploy.errors import ConfigError
from segkc_deploy.training.files.starting_weights import build_network
from segkc_deploy.training.methods.base import MethodConfig
from segkc_deploy.training.methods.weak_to_strong import TermWeights, WeakToStrong, WeakToStrongConfig
from segkc_deploy.training.models.groups import NetworkPair
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.recipe import Recipe


class Weights(TermWeights):
    """Weight of each network's loss on labels and on the other's pseudo-labels."""

    supervised_junior: float = Field(default=0.5, ge=0)
    supervised_senior: float = Field(default=0.5, ge=0)
    cps_junior: float = Field(default=0.5, ge=0, description="junior learns the senior's pseudo-labels")
    cps_senior: float = Field(default=0.5, ge=0, description="senior learns the junior's pseudo-labels")


class CPSConfig(WeakToStrongConfig):
    """Settings of CPS; threshold 0 and labels from the networks themselves are the published ones."""

    weights: Weights = Weights()


class CPS(WeakToStrong):
    """Two networks on labeled and strong views, pseudo-labels of the weak view crossed."""

    Config: ClassVar[type[MethodConfig]] = CPSConfig
    teacher_of: ClassVar = {"junior": "senior", "senior": "junior"}
    unlabeled_term = "cps"

    @classmethod
    def build(cls, recipe: Recipe, config: MethodConfig, num_classes: int, ignore_index: int) -> Self:
        assert isinstance(config, CPSConfig)
        junior, senior = two_networks(recipe, num_classes)
        return cls(recipe, config, config.weights, NetworkPair(junior, senior), num_classes, ignore_index)


def two_networks(recipe: Recipe, num_classes: int) -> tuple[Segmenter, Segmenter]:
    """Build the junior and the senior.

    Raises:
        ConfigError: the recipe has no senior.
    """
    if recipe.senior is None:
        raise ConfigError(
            f"recipe {recipe.name}: method {recipe.method['name']} trains two networks; add a section `senior:`"
        )
    return build_network(recipe.junior, num_classes), build_network(recipe.senior, num_classes)


METHOD = CPS
