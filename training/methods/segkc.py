"""SegKC: a senior and a junior of different backbones teach each other (arXiv 2503.10693, 2025).

Public are the crossed pseudo supervision between heterogeneous backbones and the consultation in both directions at
feature and at prediction level. How each looks is our reading, marked [R] where it is set, and has a switch.
"""

from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from segkc_deploy.errors import ConfigError
from segkc_deploy.training.data.cutmix import cutmix_boxes, paste
from segkc_deploy.training.methods.base import Batch, Method, MethodConfig, StepOutput
from segkc_deploy.training.methods.consultation import Consultation
from segkc_deploy.training.methods.losses import (
    prediction_distillation,
    pseudo_label_loss,
    pseudo_labels,
    supervised_loss,
)
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.recipe import Recipe

ROLES = ("junior", "senior")
OTHER = {"junior": "senior", "senior": "junior"}


class Weights(BaseModel):
    """Weight of each term in the total; a term of weight 0 is not computed. [R]"""

    model_config = ConfigDict(extra="forbid", frozen=True)

    supervised_junior: float = Field(default=0.5, ge=0)
    supervised_senior: float = Field(default=0.5, ge=0)
    cps_junior: float = Field(default=0.5, ge=0, description="junior learns the senior's pseudo-labels")
    cps_senior: float = Field(default=0.5, ge=0, description="senior learns the junior's pseudo-labels")
    feature_senior_to_junior: float = Field(default=0.1, ge=0)
    prediction_senior_to_junior: float = Field(default=0.5, ge=0)
    prediction_junior_to_senior: float = Field(default=0.1, ge=0)

    @model_validator(mode="after")
    def _some_term(self) -> Self:
        if not any(weight > 0 for _, weight in self):
            raise ValueError("every weight is 0, so nothing would learn")
        return self


class SegKCConfig(MethodConfig):
    """Settings of SegKC; every [R] of the method is one of them."""

    strong_views: int = Field(default=2, ge=1, le=2)
    confidence_threshold: float = Field(default=0.95, ge=0, lt=1)
    labels_from_ema: bool = Field(default=True, description="pseudo-labels from the averaged networks [R]")
    feature_junior_to_senior: bool = Field(default=True, description="the senior decodes with the junior's advice")
    consultation_dropout: float = Field(
        default=0.5, ge=0, le=1, description="share of images for which the senior gets no advice [R]"
    )
    temperature: float = Field(default=1.0, gt=0, description="of the distillation at prediction level [R]")
    ramp_steps: int = Field(default=0, ge=0, description="steps over which feature and prediction terms grow [R]")
    weights: Weights = Weights()


class Pair(nn.Module):
    """A junior, a senior, and what they exchange."""

    def __init__(self, junior: Segmenter, senior: Segmenter, config: SegKCConfig) -> None:
        super().__init__()
        self.junior = junior
        self.senior = senior
        self.consultation = Consultation(
            junior.backbone.channels, senior.backbone.channels, config.consultation_dropout
        )
        self.senior_is_advised = config.feature_junior_to_senior

    def features(self, images: Tensor) -> dict[str, list[Tensor]]:
        """Both networks' feature maps, by role."""
        return {"junior": self.junior.features(images), "senior": self.senior.features(images)}

    def logits(self, features: dict[str, list[Tensor]], size: torch.Size) -> dict[str, Tensor]:
        """Both networks' logits (N, C, *size), by role; the senior decodes with the junior's advice if it gets any."""
        senior_features = features["senior"]
        if self.senior_is_advised:
            senior_features = self.consultation.advise_senior(senior_features, features["junior"])
        return {
            "junior": self.junior.decode(features["junior"], size),
            "senior": self.senior.decode(senior_features, size),
        }


class SegKC(Method):
    """One step: both networks on labeled and strong views, crossed pseudo-labels from the weak view, consultation."""

    Config = SegKCConfig
    learners: Pair
    averaged: Pair

    def __init__(
        self, recipe: Recipe, config: SegKCConfig, junior: Segmenter, senior: Segmenter, ignore_index: int
    ) -> None:
        super().__init__(recipe, Pair(junior, senior, config), ignore_index)
        self.config = config
        self.strong_views = config.strong_views

    @classmethod
    def build(cls, recipe: Recipe, config: MethodConfig, num_classes: int, ignore_index: int) -> Self:
        assert isinstance(config, SegKCConfig)
        if recipe.senior is None:
            raise ConfigError(f"recipe {recipe.name}: method segkc trains two networks; add a section `senior:`")
        junior, senior = Segmenter(recipe.junior, num_classes), Segmenter(recipe.senior, num_classes)
        return cls(recipe, config, junior, senior, ignore_index)

    def forward(self, batch: Batch, step: int) -> StepOutput:
        assert batch.unlabeled is not None
        labeled, unlabeled = batch.labeled, batch.unlabeled
        labels, confidences = self._crossed_labels(unlabeled["weak"])
        views = [
            self._mixed_view(unlabeled[f"strong_{view}"], unlabeled["ignored"], labels, confidences)
            for view in range(1, self.strong_views + 1)
        ]
        images = torch.cat([labeled["image"], *(view["image"] for view in views)])
        ignored = torch.cat([labeled["mask"] == self.ignore_index, *(view["ignored"] for view in views)])
        features = self.learners.features(images)
        logits = self.learners.logits(features, images.shape[2:])

        output, weights, ramp = StepOutput(), self.config.weights, self._ramp(step)
        of_labels, of_views = slice(None, len(labeled["image"])), slice(len(labeled["image"]), None)
        for role, weight in (("junior", weights.supervised_junior), ("senior", weights.supervised_senior)):
            output.add(
                f"supervised_{role}",
                weight,
                supervised_loss,
                logits[role][of_labels],
                labeled["mask"],
                self.ignore_index,
            )
        for role, weight in (("junior", weights.cps_junior), ("senior", weights.cps_senior)):
            output.add(f"cps_{role}", weight, self._cps, logits[role][of_views], views, OTHER[role])
        output.add(
            "feature_senior_to_junior",
            weights.feature_senior_to_junior * ramp,
            self.learners.consultation.junior_distance,
            features["junior"],
            features["senior"],
        )
        for role, weight in (
            ("junior", weights.prediction_senior_to_junior),
            ("senior", weights.prediction_junior_to_senior),
        ):
            name = f"prediction_{OTHER[role]}_to_{role}"
            arguments = (logits[role], logits[OTHER[role]], self.config.temperature, ignored)
            output.add(name, weight * ramp, prediction_distillation, *arguments)
        output.monitors = self._monitors(confidences, ~unlabeled["ignored"])
        return output

    @torch.no_grad()
    def _crossed_labels(self, weak: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Each network's classes and confidences on the weak view, by role."""
        teachers = self.averaged if self.config.labels_from_ema else self.learners
        labels, confidences = {}, {}
        for role, logits in teachers.logits(teachers.features(weak), weak.shape[2:]).items():
            labels[role], confidences[role] = pseudo_labels(logits)
        return labels, confidences

    def _mixed_view(
        self, strong: Tensor, ignored: Tensor, labels: dict[str, Tensor], confidences: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """CutMix one strong view; labels, confidences and padding follow the same boxes."""
        boxes = cutmix_boxes(len(strong), (strong.shape[2], strong.shape[3]), self.recipe.strong).to(strong.device)
        view = {"image": paste(strong, boxes), "ignored": paste(ignored, boxes)}
        for role in ROLES:
            view[f"labels_{role}"] = paste(labels[role], boxes)
            view[f"confidence_{role}"] = paste(confidences[role], boxes)
        return view

    def _cps(self, logits: Tensor, views: list[dict[str, Tensor]], teacher: str) -> Tensor:
        """Mean over the strong views of the loss against the other network's pseudo-labels."""
        terms = []
        for own, view in zip(logits.chunk(len(views)), views, strict=True):
            confident = view[f"confidence_{teacher}"] >= self.config.confidence_threshold
            terms.append(pseudo_label_loss(own, view[f"labels_{teacher}"], confident, view["ignored"]))
        return torch.stack(terms).mean()

    def _monitors(self, confidences: dict[str, Tensor], valid: Tensor) -> dict[str, Tensor]:
        """Share of valid pixels that each network learns from the other, and how far each gate has opened."""
        monitors = {}
        for role in ROLES:
            confident = confidences[OTHER[role]] >= self.config.confidence_threshold
            monitors[f"mask_ratio_{role}"] = (confident & valid).sum() / valid.sum().clamp(min=1)
        for level, gate in enumerate(self.learners.consultation.gates.detach()):
            monitors[f"gate_{level + 1}"] = gate.abs()
        return monitors

    def _ramp(self, step: int) -> float:
        return min((step + 1) / self.config.ramp_steps, 1.0) if self.config.ramp_steps else 1.0


METHOD = SegKC
