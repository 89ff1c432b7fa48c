"""A recipe: everything that one training is, besides the images. Shipped ones are in `recipes/`."""

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from segkc_deploy.errors import ConfigError
from segkc_deploy.training.models.spec import NetworkSpec
from segkc_deploy.validation import load_yaml, validate


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _ascending(values: tuple[float, float]) -> tuple[float, float]:
    low, high = values
    if not 0 < low <= high:
        raise ValueError(f"give two positive numbers, the smaller one first, not {low:g} and {high:g}")
    return values


#: The ends of a range of positive numbers.
Range = Annotated[tuple[float, float], AfterValidator(_ascending)]


class BatchConfig(_Section):
    """Images per optimizer step, in all; `accumulation` splits a step into that many passes."""

    labeled: int = Field(default=16, ge=1)
    unlabeled: int = Field(default=16, ge=1)
    accumulation: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.labeled % self.accumulation or self.unlabeled % self.accumulation:
            raise ValueError(f"labeled and unlabeled have to be multiples of accumulation ({self.accumulation})")
        return self


class ScheduleConfig(_Section):
    """How long, in optimizer steps or in epochs over the unlabeled set; give one of the two."""

    steps: int | None = Field(default=None, ge=1)
    epochs: int | None = Field(default=None, ge=1)
    warmup_steps: int = Field(default=0, ge=0, description="steps of linear warm-up of the learning rate")
    poly_power: float = Field(default=0.9, gt=0, description="lr falls as (1 - step / steps) ** poly_power")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        return self


Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(_Section):
    """AdamW; `lr` is the backbones', everything else learns `decoder_lr_multiplier` times as fast."""

    lr: float = Field(default=5e-6, gt=0)
    decoder_lr_multiplier: float = Field(default=40.0, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    clip_norm: float | None = Field(default=None, gt=0, description="largest gradient norm over all networks")


class WeakAugmentation(_Section):
    """Random scale (of the long side), pad right and bottom, random crop, flip."""

    scale: Range = (0.5, 2.0)
    flip: float = Field(default=0.5, ge=0, le=1)


class StrongAugmentation(_Section):
    """Color jitter, grayscale and blur on the weak view, then CutMix between unlabeled images."""

    brightness: float = Field(default=0.5, ge=0)
    contrast: float = Field(default=0.5, ge=0)
    saturation: float = Field(default=0.5, ge=0)
    hue: float = Field(default=0.25, ge=0, le=0.5)
    jitter_probability: float = Field(default=0.8, ge=0, le=1)
    grayscale_probability: float = Field(default=0.2, ge=0, le=1)
    blur_probability: float = Field(default=0.5, ge=0, le=1)
    blur_sigma: Range = (0.1, 2.0)
    cutmix_probability: float = Field(default=0.5, ge=0, le=1)
    cutmix_area: Range = (0.02, 0.4)
    cutmix_ratio: Range = (0.3, 1 / 0.3)


class EMAConfig(_Section):
    """Averaged copies of the weights: decay = min(1 - 1 / (step + 1), decay); buffers too."""

    decay: float = Field(default=0.996, ge=0, lt=1)


class ValidationConfig(_Section):
    """Scores on the validation set: each image at its own size, sides to the nearest multiple the networks take."""

    every: int = Field(default=1000, ge=1, description="steps between validations; the last step is always scored")
    size: tuple[int, int] | None = Field(default=None, description="height, width; by default each image's own")


class Recipe(_Section):
    """Networks, method, optimizer, augmentation, schedule and evaluation protocol of one training."""

    name: str
    summary: str = ""
    junior: NetworkSpec
    senior: NetworkSpec | None = None
    method: dict[str, Any] = Field(description="name: a file of training/methods/, and that method's own settings")
    crop_size: tuple[int, int] = Field(description="height, width of a training crop")
    batch: BatchConfig = BatchConfig()
    schedule: ScheduleConfig
    optimizer: OptimizerConfig = OptimizerConfig()
    weak: WeakAugmentation = WeakAugmentation()
    strong: StrongAugmentation = StrongAugmentation()
    ema: EMAConfig = EMAConfig()
    validation: ValidationConfig = ValidationConfig()
    ship: Literal["ema", "raw"] = Field(default="ema", description="which copy of the weights a run hands to export")
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = Field(default=False, description="torch.compile the networks; pays after some hundred steps")
    seed: int = Field(default=0, ge=0)
    workers: int | None = Field(default=None, ge=0, description="data loading processes; by default the cores - 1")
    log_every: int = Field(default=10, ge=1, description="steps between lines of metrics.jsonl")
    checkpoint_every: int = Field(default=500, ge=1, description="steps between checkpoints")


def shipped_recipes() -> list[str]:
    """Return the names of the recipes that come with the package."""
    folder = resources.files("segkc_deploy.training") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_recipe(name_or_path: str, overrides: list[str] | None = None) -> Recipe:
    """Read a shipped recipe by name or a file by path, apply `overrides` (`optimizer.lr=1e-4`), and validate.

    Raises:
        ConfigError: no such recipe, an unknown key, or a value out of range; the message names the closest key.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        if name_or_path not in shipped_recipes():
            raise ConfigError(
                f"recipe {name_or_path!r}: no such recipe; shipped are {', '.join(shipped_recipes())},"
                " or give the path of a .yaml file"
            )
        path = Path(str(resources.files("segkc_deploy.training") / "recipes" / f"{name_or_path}.yaml"))
    return _validated(load_yaml(path), overrides or [], str(path))


def with_overrides(recipe: Recipe, overrides: list[str], where: str) -> Recipe:
    """Return `recipe` with values changed (`workers=2`); `where` is the file that an error names.

    Raises:
        ConfigError: an unknown key, or a value out of range.
    """
    return _validated(recipe.model_dump(mode="json"), overrides, where)


def _validated(data: dict[str, Any], overrides: list[str], where: str) -> Recipe:
    for override in overrides:
        _override(data, override)
    return validate(Recipe, data, where)


def without_pretrained(recipe: Recipe) -> Recipe:
    """Return `recipe` with networks from random weights, for a checkpoint to fill: neither hub nor file is needed."""
    specs = {"junior": recipe.junior, "senior": recipe.senior}
    return recipe.model_copy(
        update={role: spec.model_copy(update={"pretrained": False}) for role, spec in specs.items() if spec}
    )


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r}: write it as key=value, for example optimizer.lr=1e-4")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"override {override!r}: {text!r} is not a YAML value") from None
    if isinstance(value, str):
        value = _number(value)
    *parents, last = key.split(".")
    for parent in parents:
        if data.get(parent) is None:
            data[parent] = {}
        data = data[parent]
        if not isinstance(data, dict):
            raise ConfigError(f"override {override!r}: {parent!r} is a value, not a section")
    data[last] = value


def _number(text: str) -> float | str:
    # YAML 1.1 reads 1e-4 (no dot) as text.
    try:
        return float(text)
    except ValueError:
        return text
