"""UniMatch V2: FixMatch with two strong views that keep complementary halves of the feature channels.

Yang et al. 2024 (arXiv 2410.10777): image-level and feature-level perturbation in one stream.
"""

from typing import ClassVar, Literal, Self

import torch

from segkc_deploy.errors import ConfigError
from segkc_deploy.training.methods.base import MethodConfig
from segkc_deploy.training.methods.fixmatch import FixMatch, FixMatchConfig
from segkc_deploy.training.methods.weak_to_strong import Features
from segkc_deploy.training.recipe import Recipe
from segkc_deploy.training.terms.complementary_dropout import complementary_dropout


class UniMatchV2Config(FixMatchConfig):
    """Settings of UniMatch V2; both views are what it is about."""

    strong_views: Literal[2] = 2


class UniMatchV2(FixMatch):
    """Two strong views under complementary dropout; labeled images, and a view that EntropyMix adds, stay whole."""

    Config: ClassVar[type[MethodConfig]] = UniMatchV2Config

    @classmethod
    def build(cls, recipe: Recipe, config: MethodConfig, num_classes: int, ignore_index: int) -> Self:
        entropymix = recipe.strong.entropymix
        if entropymix.mode != "off" and not entropymix.keep_views:
            raise ConfigError(
                f"recipe {recipe.name}: unimatch-v2 drops channels of its two views, so it has to keep them; set"
                " strong.entropymix.keep_views=true"
            )
        return super().build(recipe, config, num_classes, ignore_index)

    def perturbed(self, features: Features, labeled_count: int, views: int) -> Features:
        unlabeled_count = (len(features["junior"][0]) - labeled_count) // views
        sizes = [labeled_count, unlabeled_count, unlabeled_count, unlabeled_count * (views - 2)]
        labeled, first, second, rest = zip(*(feature.split(sizes) for feature in features["junior"]), strict=True)
        halves = complementary_dropout(first, second)
        return {"junior": [torch.cat(parts) for parts in zip(labeled, *halves, rest, strict=True)]}


METHOD = UniMatchV2
