"""Whether the networks take every size that a training shows them: windows of some of timm fit few sizes alone.

They only say so when they run, so each is run once, in evaluation mode and without gradients. On the device `meta` that
computes shapes and no values, which costs less than a second whatever the size.
"""

import torch
from torch.func import functional_call

from segkc_deploy.data.headers import upright_size
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.errors import ConfigError
from segkc_deploy.training.evaluation.prediction import input_size, window_for
from segkc_deploy.training.methods.base import Method
from segkc_deploy.training.models.segmenter import Segmenter
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


def _require_crop(network: Segmenter, recipe: Recipe) -> None:
    if reason := _refusal(network, recipe.crop_size):
        raise ConfigError(
            f"recipe {recipe.name}: {network.spec.backbone} cannot take crops of {_in_words(recipe.crop_size)}:"
            f" {reason}; change crop_size or take another backbone"
        )


def _require_teaching(network: Segmenter, recipe: Recipe, size: Size) -> None:
    if size != recipe.crop_size and (reason := _refusal(network, size)):
        raise ConfigError(
            f"recipe {recipe.name}: {network.spec.backbone} cannot take the {_in_words(size)} at which"
            f" method.teacher_scale shows it unlabeled crops: {reason}; set method.teacher_scale=1 or take another"
            " backbone"
        )


def _require_validation(network: Segmenter, recipe: Recipe, sets: ImageSets) -> None:
    crop = list(recipe.crop_size)
    protocol, multiple = recipe.validation, network.size_multiple
    if protocol.window is not None:
        sizes = {protocol.window: ("validation.window", f"set validation.window={crop}")}
    elif protocol.size is not None:
        sizes = {input_size(protocol.size, multiple): ("validation.size", f"set validation.size={crop}")}
    else:
        height, width = recipe.crop_size
        if _refusal(network, (height + multiple, width + multiple)) is None:
            return  # then it takes every multiple
        help_in_words = f"set validation.window={crop}, which shows it images part by part, at the size of the crops"
        sizes = {}
        for sample in sets.val:
            own = upright_size(sample.image)
            seen = window_for(protocol, own, multiple) or input_size(own, multiple)
            sizes.setdefault(seen, (f"the validation image {sample.image}", help_in_words))
    for size, (what, fix) in sizes.items():
        if size != recipe.crop_size and (reason := _refusal(network, size)):
            raise ConfigError(
                f"recipe {recipe.name}: {network.spec.backbone} cannot take {what} at {_in_words(size)}: {reason};"
                f" {fix}"
            )


def _refusal(network: Segmenter, size: Size) -> str | None:
    """Return why a network cannot take images of a size, in one line, or None where it can."""
    images = torch.zeros(1, network.pixels.bands, *size, device="meta")
    state = {name: tensor.to("meta") for name, tensor in (*network.named_parameters(), *network.named_buffers())}
    network.eval()
    try:
        with torch.no_grad():
            functional_call(network, state, (images,))
    except (AssertionError, RuntimeError, TypeError, ValueError):
        # Some networks do what `meta` cannot, such as looking at values; only a real run tells.
        return _real_refusal(network, size)
    return None


def _real_refusal(network: Segmenter, size: Size) -> str | None:
    try:
        with torch.inference_mode():
            network(torch.zeros(1, network.pixels.bands, *size))
    except (RuntimeError, AssertionError, ValueError) as error:
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return None


def _in_words(size: Size) -> str:
    return f"{size[0]}x{size[1]} (height x width)"
