"""A recipe: everything that one training is, besides the images. `recipe_file` reads one."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from segkc_deploy.training.models.spec import InputSpec, NetworkSpec


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _ascending(values: tuple[float, float]) -> tuple[float, float]:
    low, high = values
    if not 0 < low <= high:
        raise ValueError(f"give two positive numbers, the smaller one first, not {low:g} and {high:g}")
    return values


def _shares(values: tuple[float, float]) -> tuple[float, float]:
    if values[1] > 1:
        raise ValueError(f"give shares of the image's area, up to 1, not {values[1]:g}")
    return values


_OLD_PREDICTION_TARGETS = {"learners": "online", "averaged": "ema"}

_Side = Annotated[int, Field(ge=1)]
_Size = tuple[_Side, _Side]

#: The ends of a range of positive numbers.
Range = Annotated[tuple[float, float], AfterValidator(_ascending)]


class BatchConfig(_Section):
    """Total images per optimizer step; `accumulation` splits a step into that many micro-batches."""

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
    lr_at_batch: int | None = Field(
        default=None, ge=1, description="labeled images per step that lr belongs to; it is scaled for other batches"
    )
    decoder_lr_multiplier: float = Field(default=40.0, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    clip_norm: float | None = Field(default=None, gt=0, description="largest gradient norm over all networks")


class WeakAugmentation(_Section):
    """Random scale (of the long side), pad right and bottom, random crop, flip."""

    scale: Range = (0.5, 2.0)
    flip: float = Field(default=0.5, ge=0, le=1)
    rare_class_crops: float = Field(
        default=0.0, ge=0, le=1, description="share of labeled crops that are drawn to hold a rare class"
    )
    rare_class_share: float = Field(
        default=0.01, gt=0, lt=1, description="a class is rare below this share of the labeled pixels"
    )


def _off(value: Any) -> Any:
    # YAML 1.1 reads a bare `off` as false.
    return "off" if value is False else value


class EntropyMixConfig(_Section):
    """EntropyMix of SPEED (10.1109/TCSVT.2024.3375789): patches of an image's strong views, picked by their entropy.

    That patches are picked by entropy is public; the grid, which entropy wins and what becomes of the two views that
    were mixed is our reading. [R]
    """

    mode: Annotated[Literal["off", "after-cutmix", "instead-of-cutmix"], BeforeValidator(_off)] = "off"
    grid: int = Field(default=8, ge=2, description="patches per side")
    select: Literal["high", "low", "random"] = Field(default="high", description="whose patch the mixed view takes")
    keep_views: bool = Field(default=True, description="learn from the two views too, not from the mixed one alone")


class StrongAugmentation(_Section):
    """Color jitter, grayscale and blur on the weak view, then CutMix between unlabeled images, then EntropyMix."""

    brightness: float = Field(default=0.5, ge=0)
    contrast: float = Field(default=0.5, ge=0)
    saturation: float = Field(default=0.5, ge=0)
    hue: float = Field(default=0.25, ge=0, le=0.5)
    jitter_probability: float = Field(default=0.8, ge=0, le=1)
    grayscale_probability: float = Field(default=0.2, ge=0, le=1)
    blur_probability: float = Field(default=0.5, ge=0, le=1)
    blur_sigma: Range = (0.1, 2.0)
    cutmix_probability: float = Field(default=0.5, ge=0, le=1)
    cutmix_area: Annotated[Range, AfterValidator(_shares)] = (0.02, 0.4)
    cutmix_ratio: Range = (0.3, 1 / 0.3)
    entropymix: EntropyMixConfig = EntropyMixConfig()

    @property
    def uses_cutmix(self) -> bool:
        """Whether boxes are pasted between images."""
        return self.cutmix_probability > 0 and self.entropymix.mode != "instead-of-cutmix"


Weight = Annotated[float, Field(ge=0)]


class SupervisionConfig(_Section):
    """The loss on labeled images: cross-entropy (`ce`), that of the hard pixels alone (`ohem`), or focal (`focal`).

    Online hard example mining (Shrivastava et al. 2016) as semi-supervised segmentation uses it on Cityscapes: pixels
    whose true class gets less than `ohem_threshold`, but at least the `ohem_min_pixels` hardest ones of a batch.
    `class_weights` (`inverse`, `median-frequency`, `log`, a list, or weights by name) make rare classes count for
    more; `dice` and `lovasz` are the weights of these two losses, which are added.
    """

    loss: Literal["ce", "ohem", "focal"] = "ce"
    class_weights: Literal["none", "inverse", "median-frequency", "log"] | list[Weight] | dict[str, Weight] = "none"
    largest_class_weight: float = Field(default=20.0, gt=0, description="limit of weights that a rule gives")
    focal_gamma: float = Field(default=2.0, gt=0)
    dice: float = Field(default=0.0, ge=0)
    lovasz: float = Field(default=0.0, ge=0)
    ohem_threshold: float = Field(default=0.7, gt=0, le=1)
    ohem_min_pixels: int = Field(default=200_000, ge=1)

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if isinstance(self.class_weights, list) and not any(self.class_weights):
            raise ValueError("class_weights: every weight is 0, so that nothing would be learned of the labels")
        return self

    @model_validator(mode="after")
    def _weights_without_mining(self) -> Self:
        if self.loss == "ohem" and self.class_weights != "none":
            raise ValueError("class_weights go with loss ce or focal, not with ohem")
        return self


class RelationConfig(_Section):
    """Relation distillation of SPEED (10.1109/TCSVT.2024.3375789): weights at feature and at logit level; 0 is off.

    Both levels and their linear combination are public, the form is our reading. [R]
    """

    feature: float = Field(default=0.0, ge=0)
    logit: float = Field(default=0.0, ge=0)
    grid: int = Field(default=32, ge=2, description="cells per side, at most, between which relations are compared")

    @property
    def is_on(self) -> bool:
        """Whether any of its terms is computed."""
        return self.feature > 0 or self.logit > 0


#: The decay of the published protocols (UniMatch V2), whose schedules are long.
_LONGEST_EMA = 0.996


class EMAConfig(_Section):
    """EMA copies of the weights, buffers included, with the decay min(1 - 1 / (step + 1), decay)."""

    decay: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="by default 1 - 10 / steps, so that a tenth of the schedule is averaged over, at most 0.996; 0.996"
        " for a schedule in epochs",
    )


class ValidationConfig(_Section):
    """Scores on the validation set: each image at its own size, sides to the nearest multiple the networks take.

    Images above `most_pixels` are scored in a sliding window of at most as many, so that a photograph of 12 megapixels
    does not exhaust a memory that crops fill well. `most_pixels` has no effect beside `size` and `window`, so that a
    recipe that has it can be given either.
    """

    every: int = Field(default=1000, ge=1, description="steps between validations; the last step is always scored")
    size: _Size | None = Field(default=None, description="height, width; by default each image's own")
    window: _Size | None = Field(default=None, description="height, width of a sliding window")
    stride: tuple[int, int] | None = Field(default=None, description="steps of the window; by default two thirds of it")
    most_pixels: int | None = Field(
        default=None, ge=4096, description="images of more pixels are scored in a sliding window; by default none are"
    )

    @model_validator(mode="after")
    def _one_protocol(self) -> Self:
        if self.window and self.size:
            raise ValueError("give size or window, not both")
        if self.stride and not self.window:
            raise ValueError("stride belongs to a window; add window: [height, width]")
        return self


class CacheConfig(_Section):
    """Decoded images and masks that are kept on disk, for files that take longer to decode than to read."""

    size_gib: float = Field(default=0.0, ge=0, description="GiB of decoded images kept on disk; by default 0, none")
    folder: str | None = Field(
        default=None, min_length=1, description="where they are kept; by default ~/.cache/segkc-deploy/decoded"
    )


class Recipe(_Section):
    """Networks, method, optimizer, augmentation, schedule and evaluation protocol of one training."""

    name: str
    summary: str = ""
    junior: NetworkSpec
    senior: NetworkSpec | None = None
    method: dict[str, Any] = Field(description="name: a file of training/methods/, and that method's own settings")
    crop_size: _Size = Field(description="height, width of a training crop")
    batch: BatchConfig = BatchConfig()
    schedule: ScheduleConfig
    optimizer: OptimizerConfig = OptimizerConfig()
    weak: WeakAugmentation = WeakAugmentation()
    strong: StrongAugmentation = StrongAugmentation()
    supervision: SupervisionConfig = SupervisionConfig()
    relation: RelationConfig = RelationConfig()
    ema: EMAConfig = EMAConfig()
    validation: ValidationConfig = ValidationConfig()
    ship: Literal["ema", "raw"] = Field(default="ema", description="which copy of the weights a run hands to export")
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    activation_checkpointing: bool = Field(
        default=False, description="ViT blocks are computed again in the backward pass instead of stored: less memory"
    )
    compile: bool = Field(default=False, description="torch.compile the networks; pays after some hundred steps")
    seed: int = Field(default=0, ge=0, lt=2**63)
    workers: int | None = Field(default=None, ge=0, description="data loading processes; by default the cores - 1")
    cache: CacheConfig = CacheConfig()
    unreadable_files: int = Field(
        default=10, ge=0, description="damaged image or mask files that training may skip before it stops"
    )
    log_every: int = Field(default=10, ge=1, description="steps between lines of metrics.jsonl")
    checkpoint_every: int = Field(default=500, ge=1, description="steps between checkpoints")

    @property
    def ema_decay(self) -> float:
        """The decay of the EMA copies, which follows the schedule's length where the recipe gives none."""
        if self.ema.decay is not None:
            return self.ema.decay
        steps = self.schedule.steps
        return _LONGEST_EMA if steps is None else min(max(1 - 10 / steps, 0.0), _LONGEST_EMA)

    @field_validator("method")
    @classmethod
    def _read_old_values(cls, method: dict[str, Any]) -> dict[str, Any]:
        """Read what version 0.1 wrote for the values of `prediction_target`."""
        target = method.get("prediction_target")
        if isinstance(target, str) and target in _OLD_PREDICTION_TARGETS:
            method = method | {"prediction_target": _OLD_PREDICTION_TARGETS[target]}
        return method


def with_input(recipe: Recipe, measured: InputSpec | None) -> Recipe:
    """Return `recipe` with networks that take the measured bands; None leaves RGB."""
    if measured is None:
        return recipe
    specs = {"junior": recipe.junior, "senior": recipe.senior}
    return recipe.model_copy(
        update={role: spec.model_copy(update={"input": measured}) for role, spec in specs.items() if spec}
    )


def without_pretrained(recipe: Recipe) -> Recipe:
    """Return `recipe` with networks from random weights, for a checkpoint to fill: neither hub nor file is needed."""
    specs = {"junior": recipe.junior, "senior": recipe.senior}
    return recipe.model_copy(
        update={role: spec.model_copy(update={"pretrained": False}) for role, spec in specs.items() if spec}
    )
