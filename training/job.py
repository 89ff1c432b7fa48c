"""A training before its first step: what is checked while nothing is written yet, and what every rank needs to know."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from segkc_deploy.data.census import Census, count_classes
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.data.screening import screen, warn_of
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.errors import ConfigError, DataError, UserError
from segkc_deploy.evaluation import require_labeled_pixels
from segkc_deploy.pixel_format import require_same_format
from segkc_deploy.training.batch_split import BatchSplit, split_batch
from segkc_deploy.training.data.band_statistics import measured_input, unmeasured_input
from segkc_deploy.training.data.cache_room import make_room
from segkc_deploy.training.data.decoded_cache import DecodedCache
from segkc_deploy.training.evaluation.prediction import check_protocol
from segkc_deploy.training.files.run_directory import RunDirectory
from segkc_deploy.training.files.starting_weights import match_classes
from segkc_deploy.training.methods.base import Method
from segkc_deploy.training.methods.registry import build_method
from segkc_deploy.training.models.compiler import require_compiler
from segkc_deploy.training.models.fixed_size import check_size
from segkc_deploy.training.recipe import Recipe, with_input, without_pretrained
from segkc_deploy.training.schedule import total_steps
from segkc_deploy.training.size_trial import require_batch_normalization, require_sizes
from segkc_deploy.training.terms.class_weights import class_weights, needs_census


@dataclass(frozen=True)
class Job:
    """What every rank needs to know; pickled where ranks are processes of their own.

    Attributes:
        recipe: the resolved one.
        sets: the images.
        census: the classes of the labeled images where the recipe asks for them, counted once for all ranks.
        run: the run directory.
        steps: optimizer steps of the whole run.
        split: how a step is divided among the ranks.
        accelerator: `cuda` or `cpu`.
        resume: continue from the last checkpoint.
        track: what else receives the values.
        cache: what the decoded cache has room for, in words; empty without one.
    """

    recipe: Recipe
    sets: ImageSets
    census: Census | None
    run: RunDirectory
    steps: int
    split: BatchSplit
    accelerator: str
    resume: bool
    track: tuple[str, ...] = ()
    cache: str = ""


def prepare(
    recipe: Recipe,
    data: Path,
    run: RunDirectory,
    device: str,
    ranks: int,
    resume: bool = False,
    track: tuple[str, ...] = (),
    measure: bool = True,
) -> tuple[Method, Job]:
    """Check everything that can be checked before a file is written; return the method and what every rank needs.

    Args:
        recipe: with the settings of its method written out.
        data: the data spec.
        run: the run directory; it is not looked at.
        device: `auto`, `cpu` or `cuda`.
        ranks: devices that share each step.
        resume: a checkpoint will fill the networks.
        track: what else receives the values.
        measure: read what takes the pixels: statistics of other bands than RGB, rare classes, whether validation masks
            are labeled; and make room in the cache.

    Raises:
        UserError: the recipe, the data and the device do not fit each other, or something that they need is missing.
    """
    sets = load_data_spec(data).resolve()
    screen(sets)
    if resume:
        require_same_format(recipe.junior.pixels, sets.pixels, run.path, data)
    else:
        recipe = with_input(recipe, measured_input(sets) if measure else unmeasured_input(sets))
        for role, spec in (("junior", recipe.junior), ("senior", recipe.senior)):
            if spec:
                require_same_format(spec.pixels, sets.pixels, f"recipe {recipe.name}: {role}.input", data)
    accelerator = accelerator_of(device)
    _check_precision(recipe, accelerator, resume)
    if recipe.compile:
        require_compiler("recipe: compile", accelerator)
    draws_rare = measure and recipe.weak.rare_class_crops > 0
    counted = needs_census(recipe.supervision.class_weights) or draws_rare
    census = count_classes(sets.labeled, sets) if counted else None
    if census is not None and draws_rare and not resume:
        _require_rare_class(census, recipe, sets.labels.names)
    method = build(recipe, sets, census, resume)
    _check_sets(sets, data, needs_unlabeled=method.strong_views > 0)
    if measure:
        require_labeled_pixels(sets)
    split = split_batch(recipe, ranks, uses_unlabeled=method.strong_views > 0)
    for network in method.networks().values():
        if recipe.activation_checkpointing:
            network.backbone.require_checkpoints()
        check_size(recipe.crop_size, network.size_multiple)
        check_protocol(recipe.validation, network)
    require_sizes(method, recipe, sets)
    require_batch_normalization(method, recipe, split)
    cache = DecodedCache.of(recipe.cache) if measure else None
    room = make_room(cache, sets) if cache else ""
    return method, Job(recipe, sets, census, run, total_steps(recipe, sets), split, accelerator, resume, track, room)


def build(recipe: Recipe, sets: ImageSets, census: Census | None, resume: bool) -> Method:
    """Build the method, the same on every rank; with `resume` from random weights, for a checkpoint to fill."""
    torch.manual_seed(recipe.seed)
    initial = without_pretrained(recipe) if resume else recipe
    method = build_method(initial, sets.labels.num_classes, sets.labels.ignore_index)
    match_classes(method.networks(), sets.labels.names)
    chosen = recipe.supervision.class_weights
    if chosen != "none":
        weights = class_weights(chosen, sets.labels.names, census, recipe.supervision.largest_class_weight)
        method.set_class_weights(torch.tensor(weights, dtype=torch.float32))
    return method


def accelerator_of(device: str) -> str:
    """Return `cuda` or `cpu` for `auto`, `cpu` or `cuda`.

    Raises:
        UserError: there is no such device.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {device!r}: auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA device; `nvidia-smi` tells whether the driver does")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def _check_precision(recipe: Recipe, accelerator: str, resume: bool) -> None:
    if recipe.precision == "fp16" and accelerator == "cpu":
        raise ConfigError("precision fp16 needs a CUDA device; use precision=bf16 or fp32 on a CPU")
    # Emulated BF16 is many times slower; a resumed run has no choice, since its numbers would change.
    begins_in_bf16 = recipe.precision == "bf16" and accelerator == "cuda" and not resume
    if begins_in_bf16 and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name()
        raise ConfigError(f"precision bf16: {name} computes in fp32 and fp16, not in bf16; add -o precision=fp16")


def _require_rare_class(census: Census, recipe: Recipe, names: Sequence[str]) -> None:
    # Where no mask can be read, training says so.
    if census.rare(recipe.weak.rare_class_share) or not census.pixels.any():
        return
    shares = np.where(census.shares > 0, census.shares, np.inf)
    rarest = int(shares.argmin())
    raise ConfigError(
        f"recipe {recipe.name}: weak.rare_class_crops finds no rare class: the rarest, {names[rarest]}, has"
        f" {shares[rarest]:.1%} of the labeled pixels, and weak.rare_class_share is {recipe.weak.rare_class_share:.1%};"
        " raise that, or leave rare_class_crops out"
    )


def _check_sets(sets: ImageSets, data: Path, needs_unlabeled: bool) -> None:
    if not sets.labeled:
        raise DataError(f"{data}: no labeled images; training needs some (section `labeled:`)")
    labeled = {sample.image.resolve() for sample in sets.labeled}
    both = [sample for sample in sets.val if sample.image.resolve() in labeled]
    warn_of(
        "validation images are also labeled images, so that the scores are too good; take them out of one set", both
    )
    if needs_unlabeled and not sets.unlabeled:
        raise DataError(
            f"{data}: no unlabeled images, which this method needs (section `unlabeled:`);"
            " to train on the labels alone: -o senior=null -o 'method={name: supervised}'"
        )
