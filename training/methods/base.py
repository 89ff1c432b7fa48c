"""What a training method is: the online networks, their EMA copies, and the loss terms of one step."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from segkc_deploy.errors import ConfigError
from segkc_deploy.training.files.starting_weights import build_network
from segkc_deploy.training.models.groups import SingleNetwork
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.recipe import Recipe
from segkc_deploy.training.terms.losses import log_softened, negative_log_likelihood, ohem_loss
from segkc_deploy.training.terms.region_losses import dice_loss, lovasz_loss, weighted_cross_entropy


class MethodConfig(BaseModel):
    """The settings under `method:` in a recipe; every method has its own subclass."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str


def single_network(recipe: Recipe, num_classes: int) -> SingleNetwork:
    """Build the one network of a method that trains no senior.

    Raises:
        ConfigError: the recipe has a senior.
    """
    if recipe.senior is not None:
        raise ConfigError(
            f"recipe {recipe.name}: method {recipe.method['name']} trains the junior alone; leave the senior out"
            " (senior=null)"
        )
    return SingleNetwork(build_network(recipe.junior, num_classes))


@dataclass
class Batch:
    """One step's images on the device. Keys and shapes are those of `training.data.datasets`, with a batch axis.

    Images are floats from 0 to 1. `unlabeled` is None for methods that use none.
    """

    labeled: dict[str, Tensor]
    unlabeled: dict[str, Tensor] | None = None


@dataclass
class StepOutput:
    """Loss terms before weighting, their weights, and what else is worth watching (`mask_ratio_…`, from 0 to 1)."""

    terms: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    monitors: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, weight: float, term: Callable[..., Tensor], *arguments: Any) -> None:
        """Add the term `term(*arguments)`, unless its weight is 0: then it is not even computed."""
        if weight > 0:
            self.terms[name] = term(*arguments)
            self.weights[name] = weight

    def total(self) -> Tensor:
        """Return the weighted sum that is minimized."""
        return torch.stack([self.weights[name] * term for name, term in self.terms.items()]).sum()


class Method(nn.Module, ABC):
    """Base of all methods. A subclass sets `Config`, hands over its `online` networks, and computes one step's terms.

    Attributes:
        online: what the optimizer changes, with attributes `junior`, `senior` where there is one, and helpers.
        ema: the exponential moving average of `online`, buffers included; never trained, always in evaluation mode.
        strong_views: strong views wanted of each unlabeled image; 0 for a method that uses no unlabeled images.
    """

    Config: ClassVar[type[MethodConfig]] = MethodConfig
    class_weights: Tensor | None

    def __init__(self, recipe: Recipe, online: nn.Module, ignore_index: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.ignore_index = ignore_index
        self.online = online
        self.ema = copy.deepcopy(self.online).requires_grad_(False).eval()
        self.strong_views = 0
        # Not persistent: it follows from the labeled images, which a resumed run has too.
        self.register_buffer("class_weights", None, persistent=False)

    @classmethod
    @abstractmethod
    def build(cls, recipe: Recipe, config: MethodConfig, num_classes: int, ignore_index: int) -> "Method":
        """Make the method with fresh networks for `num_classes` classes."""

    @abstractmethod
    def forward(self, batch: Batch, step: int) -> StepOutput:
        """Return the loss terms of optimizer step number `step` (0-based)."""

    def teacher_size(self) -> tuple[int, int]:
        """Return the (height, width) at which a network that teaches sees crops: their own, unless a method says so."""
        return self.recipe.crop_size

    def supervised_loss(self, logits: Tensor, mask: Tensor, log_probability: Tensor | None = None) -> Tensor:
        """Return the recipe's loss of logits (N, C, H, W) against true masks (N, H, W).

        A method that has the logits' `log_probability` already hands it over; the loss is the same.
        """
        config = self.recipe.supervision
        loss = self._pixel_loss(logits, mask, log_probability)
        if config.dice > 0:
            loss = loss + config.dice * dice_loss(logits, mask, self.ignore_index)
        if config.lovasz > 0:
            loss = loss + config.lovasz * lovasz_loss(logits, mask, self.ignore_index)
        return loss

    def set_class_weights(self, weights: Tensor) -> None:
        """Weight the pixels of each class in the supervised loss by `weights`, float (C,)."""
        self.class_weights = weights

    def _pixel_loss(self, logits: Tensor, mask: Tensor, log_probability: Tensor | None) -> Tensor:
        config = self.recipe.supervision
        if config.loss == "ohem":
            return ohem_loss(logits, mask, self.ignore_index, config.ohem_threshold, config.ohem_min_pixels)
        if config.loss == "ce" and self.class_weights is None:
            log_probability = log_softened(logits) if log_probability is None else log_probability
            return negative_log_likelihood(log_probability, mask, self.ignore_index)
        weights = logits.new_ones(logits.shape[1]) if self.class_weights is None else self.class_weights
        gamma = config.focal_gamma if config.loss == "focal" else 0.0
        return weighted_cross_entropy(logits, mask, self.ignore_index, weights.float(), gamma)

    def train(self, mode: bool = True) -> "Method":
        super().train(mode)
        self.ema.eval()
        return self

    def networks(self) -> dict[str, Segmenter]:
        """Return the networks that can be scored by name: `junior`, `senior`, `junior_ema`, `senior_ema`."""
        found: dict[str, Segmenter] = {}
        for suffix, modules in (("", self.online), ("_ema", self.ema)):
            for role in ("junior", "senior"):
                network = getattr(modules, role, None)
                if isinstance(network, Segmenter):
                    found[role + suffix] = network
        return found

    @torch.no_grad()
    def update_ema(self, step: int) -> None:
        """Move the EMA networks towards the online networks after optimizer step number `step` (0-based)."""
        decay = min(1 - 1 / (step + 1), self.recipe.ema_decay)
        ema = [*self.ema.parameters(), *self.ema.buffers()]
        online = [*self.online.parameters(), *self.online.buffers()]
        floats = [(old, new) for old, new in zip(ema, online, strict=True) if old.is_floating_point()]
        torch._foreach_lerp_([old for old, _ in floats], [new for _, new in floats], 1 - decay)
        for old, new in zip(ema, online, strict=True):
            if not old.is_floating_point():
                old.copy_(new)
