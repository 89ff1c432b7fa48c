"""Every size that a training, or a command that reads its run, would show a network, tried before the work begins."""

from collections.abc import Iterable
from pathlib import Path

from segkc_deploy.data.headers import upright_size
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.errors import ConfigError, DataError
from segkc_deploy.invocation import suggested_command
from segkc_deploy.training.batch_split import BatchSplit
from segkc_deploy.training.evaluation.prediction import input_size, window_for
from segkc_deploy.training.methods.base import Method
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.models.size_refusal import (
    normalizes_single_values,
    size_in_words,
    size_refusal,
    takes_every_multiple,
)
from segkc_deploy.training.recipe import Recipe

Size = tuple[int, int]


def require_sizes(method: Method, recipe: Recipe, sets: ImageSets) -> None:
    """Run each network at the sizes (height, width) of crops, of teaching and of validation.

    The sizes of the validation images are looked up only for a network that does not take every multiple.

    Raises:
        ConfigError: a network cannot take one of them; the message names a setting that helps.
    """
    for name, network in method.networks().items():
        if name.endswith("_ema"):
            continue  # a copy
        _require_crop(network, recipe)
        _require_teaching(network, recipe, method.teacher_size())
        _require_validation(network, recipe, sets)


def require_batch_normalization(method: Method, recipe: Recipe, split: BatchSplit) -> None:
    """Refuse passes of a single image whose coarsest features are a single cell: nothing is left to normalize over.

    Raises:
        ConfigError: batch normalization would be given such a pass; the message names what helps.
    """
    if split.unlabeled or split.labeled > split.parts:
        return  # several images, or views, go through a network together
    for name, network in method.networks().items():
        if not name.endswith("_ema") and normalizes_single_values(network, recipe.crop_size):
            raise ConfigError(
                f"recipe {recipe.name}: the batch normalization of {network.spec.backbone} cannot train on one crop of"
                f" {size_in_words(recipe.crop_size)} at a time, of which one cell is left at its coarsest level; use"
                f" batch.labeled={2 * split.parts} or larger crops (crop_size)"
            )


def require_image_sizes(network: Segmenter, recipe: Recipe, images: Iterable[Path], run: Path) -> None:
    """Run a trained network at the sizes at which its recipe's protocol would show it `images`.

    They are looked up only for a network that does not take every multiple. An image that cannot be read
    is left to whoever reads it.

    Raises:
        ConfigError: the network cannot take one of them; the message names it and what helps.
    """
    if recipe.validation.window is not None or recipe.validation.size is not None:
        return  # one size for all images, tried before training
    if refused := _first_refused(network, recipe, images):
        image, size, reason = refused
        window = f"validation.window={_list(recipe.crop_size)}"
        command = suggested_command("train", "--out", run, "--resume", "-o", window)
        raise ConfigError(
            f"{image}: {network.spec.backbone} cannot take it at {size_in_words(size)}: {reason};"
            f" `{command}` lets the run's networks see images part by part, at the size of the crops"
        )


def _require_crop(network: Segmenter, recipe: Recipe) -> None:
    if reason := size_refusal(network, recipe.crop_size):
        raise ConfigError(
            f"recipe {recipe.name}: {network.spec.backbone} cannot take crops of {size_in_words(recipe.crop_size)}:"
            f" {reason}; change crop_size or take another backbone"
        )


def _require_teaching(network: Segmenter, recipe: Recipe, size: Size) -> None:
    if size != recipe.crop_size and (reason := size_refusal(network, size)):
        raise ConfigError(
            f"recipe {recipe.name}: {network.spec.backbone} cannot take the {size_in_words(size)} at which"
            f" method.teacher_scale shows it unlabeled crops: {reason}; set method.teacher_scale=1 or take another"
            " backbone"
        )


def _require_validation(network: Segmenter, recipe: Recipe, sets: ImageSets) -> None:
    crop, protocol = _list(recipe.crop_size), recipe.validation
    beginning = f"recipe {recipe.name}: {network.spec.backbone} cannot take"
    if protocol.window is not None or protocol.size is not None:
        setting, seen = "window", protocol.window
        if seen is None:
            setting, seen = "size", input_size(recipe.crop_size, network.size_multiple, protocol.size)
        if seen != recipe.crop_size and (reason := size_refusal(network, seen)):
            raise ConfigError(
                f"{beginning} validation.{setting} at {size_in_words(seen)}: {reason}; set validation.{setting}={crop}"
            )
        return
    if refused := _first_refused(network, recipe, (sample.image for sample in sets.val)):
        image, seen, reason = refused
        raise ConfigError(
            f"{beginning} the validation image {image} at {size_in_words(seen)}: {reason}; set"
            f" validation.window={crop}, which shows it images part by part, at the size of the crops"
        )


def _first_refused(network: Segmenter, recipe: Recipe, images: Iterable[Path]) -> tuple[Path, Size, str] | None:
    """Return the first image that the network cannot take, the size at which it would see it, and why; or None."""
    if takes_every_multiple(network, recipe.crop_size):
        return None
    tried = {recipe.crop_size}
    for image in images:
        try:
            own = upright_size(image)
        except DataError:
            continue
        seen = window_for(recipe.validation, own, network.size_multiple) or input_size(own, network.size_multiple)
        if seen in tried:
            continue
        tried.add(seen)
        if reason := size_refusal(network, seen):
            return image, seen, reason
    return None


def _list(size: Size) -> str:
    return str(list(size))
