"""The strong views of a batch's unlabeled images, mixed as the recipe says."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from segkc_deploy.training.data.cutmix import blend, cutmix_boxes, paste
from segkc_deploy.training.data.entropymix import patches_by_entropy, random_patches
from segkc_deploy.training.recipe import EntropyMixConfig, StrongAugmentation


@dataclass(frozen=True)
class View:
    """One mixed view.

    Attributes:
        image: (N, 3, H, W), values from 0 to 1.
        ignored: bool (N, H, W), true on padding.
        apply_mixing: brings what is known of the unmixed images (N, …, H, W), such as pseudo-labels, to the view's
            geometry; floats on a coarser grid are mixed cell by cell.
    """

    image: Tensor
    ignored: Tensor
    apply_mixing: Callable[[Tensor], Tensor]


def mixed_views(
    unlabeled: dict[str, Tensor], count: int, config: StrongAugmentation, entropy: Callable[[Tensor], Tensor]
) -> list[View]:
    """Mix the first `count` strong views: CutMix for each, then EntropyMix of the first two, as configured.

    Args:
        unlabeled: `strong_1` … and `ignored`, as in `training.data.datasets`.
        count: strong views of each image.
        config: of the recipe.
        entropy: from images (N, 3, H, W) to the entropy (N, H, W) of what is predicted on them; asked only by
            EntropyMix that picks by entropy.
    """
    views = [cutmixed(unlabeled[f"strong_{number}"], unlabeled["ignored"], config) for number in range(1, count + 1)]
    if config.entropymix.mode == "off":
        return views
    mixed = entropy_mixed(views[0], views[1], config.entropymix, entropy)
    return [*views, mixed] if config.entropymix.keep_views else [mixed]


def cutmixed(image: Tensor, ignored: Tensor, config: StrongAugmentation) -> View:
    """Paste a box of the next image into each image."""
    if not config.uses_cutmix:
        return View(image, ignored, lambda values: values)
    boxes = cutmix_boxes(len(image), (image.shape[2], image.shape[3]), config, image.device)
    return View(paste(image, boxes), paste(ignored, boxes), lambda values: paste(values, boxes))


def entropy_mixed(first: View, second: View, config: EntropyMixConfig, entropy: Callable[[Tensor], Tensor]) -> View:
    """Take each patch from one of two views, by the entropy of what is predicted on it or by chance."""
    if config.select == "random":
        size = (first.image.shape[2], first.image.shape[3])
        choice = random_patches(len(first.image), size, config.grid, first.image.device)
    else:
        entropies = (entropy(first.image), entropy(second.image))
        choice = patches_by_entropy(entropies, (first.ignored, second.ignored), config.grid, config.select)
    return View(
        blend(first.image, second.image, choice),
        blend(first.ignored, second.ignored, choice),
        lambda values: blend(first.apply_mixing(values), second.apply_mixing(values), choice),
    )
