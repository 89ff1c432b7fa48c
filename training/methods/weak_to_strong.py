"""What all methods with unlabeled images share: labels from the weak view teach the networks on strong views.

FixMatch (arXiv 2001.07685) brought the scheme; UniMatch (arXiv 2208.09910) and its second version (arXiv 2410.10777)
made it the base of semi-supervised segmentation. A method says which networks learn, which one's labels each learns
(`teacher_of`), and may perturb features and add terms of its own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from segkc_deploy.errors import ConfigError
from segkc_deploy.training.data.entropymix import prediction_entropy
from segkc_deploy.training.data.views import View, mixed_views
from segkc_deploy.training.methods.base import Batch, Method, MethodConfig, StepOutput
from segkc_deploy.training.models.groups import NetworkPair, SingleNetwork
from segkc_deploy.training.recipe import Recipe
from segkc_deploy.training.terms.alignment import DistributionAlignment
from segkc_deploy.training.terms.losses import PseudoLabels, log_softened, pseudo_label_loss, pseudo_labels
from segkc_deploy.training.terms.relation import relation_loss
from segkc_deploy.training.terms.threshold import LabelWeights, weights_by

#: What each network has, by role (`junior`, `senior`): feature maps, or logits.
Features = dict[str, list[Tensor]]
Logits = dict[str, Tensor]

_Threshold = Annotated[float, Field(ge=0, lt=1)]


class TermWeights(BaseModel):
    """Weight of each term in the total; a term of weight 0 is not computed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _some_term(self) -> Self:
        if not any(weight > 0 for _, weight in self):
            raise ValueError("every weight is 0, so nothing would learn")
        return self


class WeakToStrongConfig(MethodConfig):
    """Settings that all methods with unlabeled images have."""

    strong_views: int = Field(default=2, ge=1, le=2)
    confidence_threshold: Literal["soft", "soft-pair"] | _Threshold | list[_Threshold] = Field(
        default="soft",
        description="which pseudo-labels count. soft: each by a weight from 0 to 1 that follows the teacher's usual"
        " confidence in its class; soft-pair: in its class or the next probable one, whichever is lower; a number, or"
        " one per class: those of at least this confidence",
    )
    labels_from_ema: bool = Field(default=True, description="take pseudo-labels from the EMA networks")
    teacher_scale: float = Field(
        default=1.0,
        ge=1,
        le=4,
        description="the teachers see the weak views enlarged by this factor; pseudo-labels keep the views' size [R]",
    )
    align_distribution: bool = Field(
        default=False, description="pseudo-labels give each class the share of the pixels that it has in the labels"
    )
    pseudo_label_average: Literal["valid", "confident"] = Field(
        default="valid", description="over which pixels the loss on pseudo-labels is averaged"
    )
    unlabeled_ramp_steps: int = Field(default=0, ge=0, description="steps over which terms of pseudo-labels grow")
    ramp_steps: int | None = Field(
        default=None,
        ge=0,
        description="steps over which relation and consultation terms grow, where there are any; by default a tenth of"
        " the schedule's steps, and 0 for a schedule in epochs",
    )


@dataclass(frozen=True)
class TeacherOutput:
    """What the teachers say about the weak views, without gradient.

    `labels`, and `weights`, how much each label counts from 0 to 1, are (N, H, W), by the teacher's role.
    """

    features: Features
    logits: Logits
    labels: dict[str, PseudoLabels]
    weights: dict[str, Tensor]


class LogProbabilities(dict[str, Tensor]):
    """The `log_softened` logits by role, each computed once, when the first term asks for it.

    Args:
        logits: by role.
        temperature: by which they are softened.
    """

    def __init__(self, logits: Logits, temperature: float = 1.0) -> None:
        super().__init__()
        self.logits, self.temperature = logits, temperature

    def __missing__(self, role: str) -> Tensor:
        self[role] = log_softened(self.logits[role], self.temperature)
        return self[role]


@dataclass(frozen=True)
class StudentOutput:
    """The online networks on the labeled images followed by every view, in this order along the batch axis."""

    features: Features
    logits: Logits
    log_probabilities: LogProbabilities
    views: list[View]
    labeled_count: int

    def labeled(self, tensor: Tensor) -> Tensor:
        """Return the labeled images' part."""
        return tensor[: self.labeled_count]

    def of_views(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Return each view's part."""
        return tensor[self.labeled_count :].chunk(len(self.views))


class WeakToStrong(Method):
    """Base of the methods with unlabeled images.

    A subclass sets `teacher_of` (by role, whose labels it learns) and `unlabeled_term` (what its loss on pseudo-labels
    is called in metrics and under `weights`), and builds its online networks.
    """

    Config: ClassVar[type[MethodConfig]] = WeakToStrongConfig
    online: SingleNetwork | NetworkPair
    ema: SingleNetwork | NetworkPair
    teacher_of: ClassVar[dict[str, str]]
    unlabeled_term: ClassVar[str]

    def __init__(
        self,
        recipe: Recipe,
        config: WeakToStrongConfig,
        weights: TermWeights,
        online: SingleNetwork | NetworkPair,
        num_classes: int,
        ignore_index: int,
    ) -> None:
        super().__init__(recipe, online, ignore_index)
        self.config, self.weights = config, weights
        self.strong_views = config.strong_views
        self._multiple = math.lcm(*(getattr(online, role).size_multiple for role in self.teacher_of))
        self._check_mixing(recipe)
        threshold = config.confidence_threshold
        if isinstance(threshold, list) and len(threshold) != num_classes:
            raise ConfigError(
                f"recipe {recipe.name}: method.confidence_threshold has {len(threshold)} values, not one for each of"
                f" the {num_classes} classes"
            )
        self.label_weights = nn.ModuleDict(
            {teacher: weights_by(threshold, num_classes, recipe.ema_decay) for teacher in self.teacher_of.values()}
        )

        if config.align_distribution and recipe.weak.rare_class_crops > 0:
            raise ConfigError(
                f"recipe {recipe.name}: weak.rare_class_crops gives labeled crops other shares of the classes than"
                " unlabeled ones have; leave it or method.align_distribution out"
            )
        self.alignments = nn.ModuleDict(
            {
                teacher: DistributionAlignment(num_classes, recipe.ema_decay)
                for teacher in self.teacher_of.values()
                if config.align_distribution
            }
        )

    def _check_mixing(self, recipe: Recipe) -> None:
        if recipe.strong.entropymix.mode != "off" and self.strong_views < 2:
            raise ConfigError(f"recipe {recipe.name}: entropymix mixes two strong views; set method.strong_views=2")
        if recipe.strong.uses_cutmix and recipe.batch.unlabeled // recipe.batch.accumulation < 2:
            raise ConfigError(
                f"recipe {recipe.name}: CutMix needs 2 unlabeled images in a micro-batch; raise batch.unlabeled, lower"
                " batch.accumulation, or set strong.cutmix_probability=0"
            )

    def forward(self, batch: Batch, step: int) -> StepOutput:
        assert batch.unlabeled is not None
        unlabeled = batch.unlabeled
        teacher_output = self._teacher_output(unlabeled["weak"])
        views = mixed_views(unlabeled, self.strong_views, self.recipe.strong, self._entropy)
        images = torch.cat([batch.labeled["image"], *(view.image for view in views)])
        features = self.online.features(images)
        count = len(batch.labeled["image"])
        logits = self.online.logits(self.perturbed(features, count, len(views)), images.shape[2:])
        student_output = StudentOutput(features, logits, LogProbabilities(logits), views, count)

        output = StepOutput()
        for role in self.teacher_of:
            self._add_supervised(output, role, student_output, batch.labeled["mask"])
        for role in self.teacher_of:
            self._add_unlabeled(output, role, student_output, teacher_output, step)
        for role in self.teacher_of:
            self._add_relation(output, role, student_output, teacher_output, step)
        self.add_terms(output, student_output, teacher_output, batch, step)
        self._monitor(output, teacher_output, ~unlabeled["ignored"])
        for teacher, module in self.alignments.items():
            assert isinstance(module, DistributionAlignment)
            module.update(batch.labeled["mask"], teacher_output.logits[teacher], ~unlabeled["ignored"])
        return output

    def perturbed(self, features: Features, labeled_count: int, views: int) -> Features:
        """Return the features to decode; a method that perturbs those of its views overrides this."""
        return features

    def add_terms(
        self, output: StepOutput, student_output: StudentOutput, teacher_output: TeacherOutput, batch: Batch, step: int
    ) -> None:
        """Add a method's own terms to `output`."""

    def ramp(self, step: int) -> float:
        """Return how much of their weight consultation and relation terms have at a step."""
        steps = self.config.ramp_steps
        return _ramp(step, (self.recipe.schedule.steps or 0) // 10 if steps is None else steps)

    @property
    def _teachers(self) -> SingleNetwork | NetworkPair:
        return self.ema if self.config.labels_from_ema else self.online

    @torch.no_grad()
    def _teacher_forward(self, images: Tensor) -> tuple[Features, Logits]:
        """What the teachers see and say, in evaluation mode: to teach moves no running mean and drops no advice."""
        teachers, was_training = self._teachers, self._teachers.training
        teachers.eval()
        features = teachers.features(self._enlarged(images))
        logits = teachers.logits(features, images.shape[2:])
        teachers.train(was_training)
        return features, logits

    def teacher_size(self) -> tuple[int, int]:
        return self._size_for_teachers(self.recipe.crop_size)

    def _size_for_teachers(self, size: tuple[int, ...]) -> tuple[int, int]:
        """Return (height, width) enlarged by `teacher_scale`, each side to what every network takes."""
        scale, multiple = self.config.teacher_scale, self._multiple
        height, width = (max(round(side * scale / multiple), 1) * multiple for side in size) if scale > 1 else size
        return height, width

    def _enlarged(self, images: Tensor) -> Tensor:
        """Return images (N, 3, H, W) at the size at which teachers see them."""
        size = self._size_for_teachers(images.shape[2:])
        return images if size == images.shape[2:] else F.interpolate(images, size, mode="bilinear")

    def _teacher_output(self, weak: Tensor) -> TeacherOutput:
        features, logits = self._teacher_forward(weak)
        labels, weights = {}, {}
        for role in self.teacher_of:
            rule = self.label_weights[role]
            assert isinstance(rule, LabelWeights)
            aligned = self.alignments[role](logits[role]) if role in self.alignments else logits[role]
            labels[role] = pseudo_labels(aligned, rule.runner_up)
            weights[role] = rule(labels[role])
        return TeacherOutput(features, logits, labels, weights)

    def _entropy(self, images: Tensor) -> Tensor:
        """The entropy of the teachers' predictions, their mean where there are two."""
        _, logits = self._teacher_forward(images)
        return torch.stack([prediction_entropy(logits[role]) for role in self.teacher_of]).mean(dim=0)

    def _add_supervised(self, output: StepOutput, role: str, student_output: StudentOutput, mask: Tensor) -> None:
        name = f"supervised_{role}"
        labeled = student_output.labeled
        output.add(
            name,
            getattr(self.weights, name),
            lambda: self.supervised_loss(
                labeled(student_output.logits[role]), mask, labeled(student_output.log_probabilities[role])
            ),
        )

    def _add_unlabeled(
        self, output: StepOutput, role: str, student_output: StudentOutput, teacher_output: TeacherOutput, step: int
    ) -> None:
        name = f"{self.unlabeled_term}_{role}"
        weight = getattr(self.weights, name) * _ramp(step, self.config.unlabeled_ramp_steps)
        output.add(name, weight, self._unlabeled_loss, student_output, teacher_output, role)

    def _unlabeled_loss(self, student_output: StudentOutput, teacher_output: TeacherOutput, role: str) -> Tensor:
        """Mean over the views of the loss against the teacher's pseudo-labels."""
        teacher = self.teacher_of[role]
        weights = teacher_output.weights[teacher]
        terms = [
            pseudo_label_loss(
                own,
                view.apply_mixing(teacher_output.labels[teacher].classes),
                view.apply_mixing(weights),
                view.ignored,
                self.config.pseudo_label_average,
            )
            for own, view in zip(
                student_output.of_views(student_output.log_probabilities[role]), student_output.views, strict=True
            )
        ]
        return torch.stack(terms).mean()

    def _add_relation(
        self, output: StepOutput, role: str, student_output: StudentOutput, teacher_output: TeacherOutput, step: int
    ) -> None:
        """SPEED's relation distillation, of each network with itself on the weak view: deepest features, and logits."""
        config, ramp = self.recipe.relation, self.ramp(step)
        features = student_output.of_views(student_output.features[role][-1])
        output.add(
            f"relation_feature_{role}",
            config.feature * ramp,
            self._relation_loss,
            features,
            teacher_output.features[role][-1],
            student_output.views,
        )
        output.add(
            f"relation_logit_{role}",
            config.logit * ramp,
            lambda: self._relation_loss(
                [logits.float().softmax(dim=1) for logits in student_output.of_views(student_output.logits[role])],
                teacher_output.logits[role].float().softmax(dim=1),
                student_output.views,
            ),
        )

    def _relation_loss(self, values: Sequence[Tensor], weak: Tensor, views: Sequence[View]) -> Tensor:
        terms = [
            relation_loss(own, view.apply_mixing(weak), view.ignored, self.recipe.relation.grid)
            for own, view in zip(values, views, strict=True)
        ]
        return torch.stack(terms).mean()

    def _monitor(self, output: StepOutput, teacher_output: TeacherOutput, valid: Tensor) -> None:
        """The mean weight of the valid pixels' labels, by who learns them; then the statistics take them in."""
        for role, teacher in self.teacher_of.items():
            output.monitors[f"mask_ratio_{role}"] = (teacher_output.weights[teacher] * valid).sum() / valid.sum().clamp(
                min=1
            )
        for teacher, module in self.label_weights.items():
            assert isinstance(module, LabelWeights)
            module.update(teacher_output.labels[teacher], valid)


def _ramp(step: int, steps: int) -> float:
    return min((step + 1) / steps, 1.0) if steps else 1.0
