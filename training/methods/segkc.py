"""SegKC: a senior and a junior of different backbones teach each other (arXiv 2503.10693, 2025).

Public are the crossed pseudo supervision between heterogeneous backbones and the consultation in both directions at
feature and at prediction level. How each looks is our reading, marked [R] where it is set, and has a switch.
"""

from typing import ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from segkc_deploy.training.methods.base import Batch, MethodConfig, StepOutput
from segkc_deploy.training.methods.cps import CPS, CPSConfig, two_networks
from segkc_deploy.training.methods.cps import Weights as CPSWeights
from segkc_deploy.training.methods.weak_to_strong import Features, Guidance, Logits, Pass
from segkc_deploy.training.models.groups import Pair
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.recipe import Recipe
from segkc_deploy.training.terms.consultation import Consultation
from segkc_deploy.training.terms.losses import prediction_distillation


class Weights(CPSWeights):
    """Weight of each term in the total; a term of weight 0 is not computed. [R]"""

    feature_senior_to_junior: float = Field(default=0.1, ge=0)
    prediction_senior_to_junior: float = Field(default=0.5, ge=0)
    prediction_junior_to_senior: float = Field(default=0.1, ge=0)


class SegKCConfig(CPSConfig):
    """Settings of SegKC: those of CPS and of the consultation. Every [R] of the method is one of them."""

    feature_junior_to_senior: bool = Field(default=True, description="the senior decodes with the junior's advice")
    gate: Literal["learned", "none"] = Field(
        default="learned", description="of the advice: learned from zero on, or always open [R]"
    )
    consultation_dropout: float = Field(
        default=0.5, ge=0, le=1, description="share of images for which the senior gets no advice [R]"
    )
    feature_distance: Literal["cosine", "mse"] = Field(
        default="cosine", description="between the junior's projected and the senior's features [R]"
    )
    prediction_target: Literal["learners", "averaged"] = Field(
        default="learners",
        description="whose predictions are distilled: the other network's on the same images, or its average's on the"
        " weak views [R]",
    )
    temperature: float = Field(default=1.0, gt=0, description="of the distillation at prediction level [R]")
    weights: Weights = Weights()


class ConsultingPair(Pair):
    """A junior, a senior, and what they exchange at feature level."""

    def __init__(self, junior: Segmenter, senior: Segmenter, config: SegKCConfig) -> None:
        super().__init__(junior, senior)
        self.consultation = Consultation(
            junior.backbone.channels,
            senior.backbone.channels,
            config.consultation_dropout,
            learned_gates=config.gate == "learned",
            distance=config.feature_distance,
        )
        self.senior_is_advised = config.feature_junior_to_senior

    def logits(self, features: Features, size: torch.Size) -> Logits:
        """Return both networks' logits; the senior decodes with the junior's advice if it gets any."""
        if self.senior_is_advised:
            advised = self.consultation.advise_senior(features["senior"], features["junior"])
            features = features | {"senior": advised}
        return super().logits(features, size)


class SegKC(CPS):
    """CPS, with the consultation at feature and prediction level, in both directions."""

    Config: ClassVar[type[MethodConfig]] = SegKCConfig
    learners: ConsultingPair
    averaged: ConsultingPair
    config: SegKCConfig
    weights: Weights

    @classmethod
    def build(cls, recipe: Recipe, config: MethodConfig, num_classes: int, ignore_index: int) -> Self:
        assert isinstance(config, SegKCConfig)
        junior, senior = two_networks(recipe, num_classes)
        learners = ConsultingPair(junior, senior, config)
        return cls(recipe, config, config.weights, learners, num_classes, ignore_index)

    def add_terms(self, output: StepOutput, done: Pass, guidance: Guidance, batch: Batch, step: int) -> None:
        ramp = self.ramp(step)
        ignored = torch.cat([batch.labeled["mask"] == self.ignore_index, *(view.ignored for view in done.views)])
        output.add(
            "feature_senior_to_junior",
            self.weights.feature_senior_to_junior * ramp,
            self.learners.consultation.junior_distance,
            done.features["junior"],
            done.features["senior"],
            ignored,
        )
        for source, role in (("senior", "junior"), ("junior", "senior")):
            name = f"prediction_{source}_to_{role}"
            weight = getattr(self.weights, name) * ramp
            output.add(name, weight, self._prediction_distance, role, source, done, guidance, ignored)
        for level, gate in enumerate(self.learners.consultation.gates.detach()):
            output.monitors[f"gate_{level + 1}"] = gate.abs()

    def _prediction_distance(self, role: str, source: str, done: Pass, guidance: Guidance, ignored: Tensor) -> Tensor:
        """What the logits of `role` lack of those of `source`, over all images or, with averaged ones, the views."""
        own, target = done.logits[role], done.logits[source]
        if self.config.prediction_target == "averaged":
            own, ignored = own[done.labeled_count :], ignored[done.labeled_count :]
            target = torch.cat([view.follow(guidance.logits[source]) for view in done.views])
        return prediction_distillation(own, target, self.config.temperature, ignored)


METHOD = SegKC
