"""SegKC: a senior and a junior of different backbones teach each other (arXiv 2503.10693, 2025).

The paper specifies crossed pseudo supervision between heterogeneous backbones and consultation in both directions, at
feature and at prediction level. The form of each is our reading, marked [R] where it is set, and has a switch.
"""

from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from segkc_deploy.training.methods.base import Batch, MethodConfig, StepOutput
from segkc_deploy.training.methods.cps import CPS, CPSConfig, two_networks
from segkc_deploy.training.methods.cps import Weights as CPSWeights
from segkc_deploy.training.methods.weak_to_strong import (
    Features,
    Logits,
    LogProbabilities,
    StudentOutput,
    TeacherOutput,
)
from segkc_deploy.training.models.groups import NetworkPair
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.recipe import Recipe
from segkc_deploy.training.terms.consultation import Consultation
from segkc_deploy.training.terms.losses import divergence, prediction_distillation


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
    prediction_target: Literal["online", "ema"] = Field(
        default="online",
        description="whose predictions are distilled: the other network's on the same images, or its average's on the"
        " weak views [R]",
    )
    temperature: float = Field(default=1.0, gt=0, description="of the distillation at prediction level [R]")
    weights: Weights = Weights()

    @model_validator(mode="after")
    def _averages_to_distill(self) -> Self:
        if self.prediction_target == "ema" and not self.labels_from_ema:
            raise ValueError("prediction_target ema needs labels_from_ema: without it no average sees the weak views")
        return self


class ConsultingPair(NetworkPair):
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
        self.fuses_into_senior = config.feature_junior_to_senior

    def logits(self, features: Features, size: torch.Size) -> Logits:
        """Return both networks' logits; the senior decodes with the junior's advice if it gets any."""
        if self.fuses_into_senior:
            fused = self.consultation.fuse_into_senior(features["senior"], features["junior"])
            features = features | {"senior": fused}
        return super().logits(features, size)


class SegKC(CPS):
    """CPS, with the consultation at feature and prediction level, in both directions."""

    Config: ClassVar[type[MethodConfig]] = SegKCConfig
    online: ConsultingPair
    ema: ConsultingPair
    config: SegKCConfig
    weights: Weights

    @classmethod
    def build(cls, recipe: Recipe, config: MethodConfig, num_classes: int, ignore_index: int) -> Self:
        assert isinstance(config, SegKCConfig)
        junior, senior = two_networks(recipe, num_classes)
        online = ConsultingPair(junior, senior, config)
        return cls(recipe, config, config.weights, online, num_classes, ignore_index)

    def add_terms(
        self, output: StepOutput, student_output: StudentOutput, teacher_output: TeacherOutput, batch: Batch, step: int
    ) -> None:
        ramp = self.ramp(step)
        ignored = torch.cat(
            [batch.labeled["mask"] == self.ignore_index, *(view.ignored for view in student_output.views)]
        )
        output.add(
            "feature_senior_to_junior",
            self.weights.feature_senior_to_junior * ramp,
            self.online.consultation.distillation_loss,
            student_output.features["junior"],
            student_output.features["senior"],
            ignored,
        )
        temperature = self.config.temperature
        log_probabilities = student_output.log_probabilities
        if temperature != 1:
            log_probabilities = LogProbabilities(student_output.logits, temperature)
        for source, role in (("senior", "junior"), ("junior", "senior")):
            name = f"prediction_{source}_to_{role}"
            weight = getattr(self.weights, name) * ramp
            if self.config.prediction_target == "ema":
                output.add(name, weight, self._ema_loss, role, source, student_output, teacher_output, ignored)
            else:
                output.add(
                    name,
                    weight,
                    lambda own, target: divergence(
                        log_probabilities[own], log_probabilities[target], temperature, ignored
                    ),
                    role,
                    source,
                )
        for level, gate in enumerate(self.online.consultation.gates.detach()):
            output.monitors[f"gate_{level + 1}"] = gate.abs()

    def _ema_loss(
        self, role: str, source: str, student_output: StudentOutput, teacher_output: TeacherOutput, ignored: Tensor
    ) -> Tensor:
        """Distill what the average of `source` says on the weak views into `role`, on the strong ones."""
        count = student_output.labeled_count
        target = torch.cat([view.apply_mixing(teacher_output.logits[source]) for view in student_output.views])
        return prediction_distillation(
            student_output.logits[role][count:], target, self.config.temperature, ignored[count:]
        )


METHOD = SegKC
