"""SegKC: a senior and a junior of different backbones teach each other (arXiv 2503.10693, 2025).

Public are the crossed pseudo supervision between heterogeneous backbones and the consultation in both directions at
feature and at prediction level. How each looks is our reading, marked [R] where it is set, and has a switch.
"""

from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from segkc_deploy.errors import ConfigError

from ..data.cutmix import cutmix_boxes, paste
from ..models.segmenter import Segmenter
from ..recipe import Recipe
from .base import Batch, Method, MethodConfig, StepOutput
from .consultation import Consultation
from .losses import prediction_distillation, pseudo_label_loss, pseudo_labels, supervised_loss


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


class SegKC(Method):
    """One step: both networks on labeled and strong views, crossed pseudo-labels from the weak view, consultation."""

    Config = SegKCConfig

    def __init__(
        self, recipe: Recipe, config: SegKCConfig, junior: Segmenter, senior: Segmenter, ignore_index: int
    ) -> None:
        consultation = Consultation(junior.backbone.channels, senior.backbone.channels, config.consultation_dropout)
        learners = {"junior": junior, "senior": senior, "consultation": consultation}
        super().__init__(recipe, config, learners, ignore_index)
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
        logits, feature_distance = self._co_forward(images)

        output = StepOutput({}, {})
        for role, teacher in (("junior", "senior"), ("senior", "junior")):
            own = logits[role]
            self._add(
                output,
                f"supervised_{role}",
                supervised_loss(own[: len(labeled["image"])], labeled["mask"], self.ignore_index),
            )
            self._add(output, f"cps_{role}", self._cps(own[len(labeled["image"]) :], views, teacher))
            confident = confidences[teacher] >= self.config.confidence_threshold
            output.monitors[f"mask_ratio_{role}"] = _share(confident, ~unlabeled["ignored"])
        ramp = self._ramp(step)
        if feature_distance is not None:
            self._add(output, "feature_senior_to_junior", feature_distance, ramp)
        for source, target in (("senior", "junior"), ("junior", "senior")):
            name = f"prediction_{source}_to_{target}"
            if getattr(self.config.weights, name) > 0:
                term = prediction_distillation(logits[target], logits[source], self.config.temperature, ignored)
                self._add(output, name, term, ramp)
        for level, gate in enumerate(self.learners["consultation"].gates.detach()):
            output.monitors[f"gate_{level + 1}"] = gate.abs()
        return output

    def _co_forward(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """Both networks on the same images: logits by role, and the junior's distance to the senior's features."""
        junior, senior = self.learners["junior"], self.learners["senior"]
        consultation = self.learners["consultation"]
        junior_features, senior_features = junior.features(images), senior.features(images)
        distance = None
        if self.config.weights.feature_senior_to_junior > 0:
            distance = consultation.junior_distance(junior_features, senior_features)
        if self.config.feature_junior_to_senior:
            senior_features = consultation.advise_senior(senior_features, junior_features)
        size = images.shape[2:]
        return {"junior": junior.decode(junior_features, size), "senior": senior.decode(senior_features, size)}, distance

    @torch.no_grad()
    def _crossed_labels(self, weak: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Each network's classes and confidences on the weak view, by role."""
        teachers = self.averaged if self.config.labels_from_ema else self.learners
        junior_features = teachers["junior"].features(weak)
        senior_features = teachers["senior"].features(weak)
        if self.config.feature_junior_to_senior:
            senior_features = teachers["consultation"].advise_senior(senior_features, junior_features)
        labels, confidences = {}, {}
        for role, features in (("junior", junior_features), ("senior", senior_features)):
            labels[role], confidences[role] = pseudo_labels(teachers[role].decode(features, weak.shape[2:]))
        return labels, confidences

    def _mixed_view(
        self, strong: Tensor, ignored: Tensor, labels: dict[str, Tensor], confidences: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """CutMix one strong view; labels, confidences and padding follow the same boxes."""
        boxes = cutmix_boxes(len(strong), (strong.shape[2], strong.shape[3]), self.recipe.strong).to(strong.device)
        view = {"image": paste(strong, boxes), "ignored": paste(ignored, boxes)}
        for role in ("junior", "senior"):
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

    def _add(self, output: StepOutput, name: str, term: Tensor, factor: float = 1.0) -> None:
        weight = getattr(self.config.weights, name)
        if weight > 0:
            output.terms[name] = term
            output.weights[name] = weight * factor

    def _ramp(self, step: int) -> float:
        return min((step + 1) / self.config.ramp_steps, 1.0) if self.config.ramp_steps else 1.0


def _share(chosen: Tensor, of: Tensor) -> Tensor:
    return (chosen & of).sum() / of.sum().clamp(min=1)


METHOD = SegKC
