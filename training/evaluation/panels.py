"""Pictures of how the networks do on validation images: input, truth, junior, senior, and where the two disagree."""

from collections.abc import Callable

import numpy as np

from segkc_deploy.data.masks import read_sample
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.overlay import colorize
from segkc_deploy.pixel_format import as_picture

_GAP = 4
_AGREE, _DISAGREE = 0, 255


def comparison_panels(
    predictors: dict[str, Callable[[np.ndarray], np.ndarray]], sets: ImageSets, count: int
) -> list[np.ndarray]:
    """Return one strip, uint8 (H, W, 3), for each of `count` validation images spread over the set.

    `predictors` maps `junior` and, where there is one, `senior` to a function from an image to its mask.
    """
    chosen = np.linspace(0, len(sets.val) - 1, min(count, len(sets.val))).round().astype(int)
    panels = []
    for index in chosen:
        image, truth = read_sample(sets.val[index], sets)
        assert truth is not None
        masks = [predict(image) for predict in predictors.values()]
        pictures = [as_picture(image), colorize(truth, sets.labels), *(colorize(mask, sets.labels) for mask in masks)]
        if len(masks) > 1:
            differs = np.where(masks[0] != masks[1], _DISAGREE, _AGREE).astype(np.uint8)
            pictures.append(np.repeat(differs[..., None], 3, axis=2))
        gap = np.full((image.shape[0], _GAP, 3), 255, dtype=np.uint8)
        panels.append(np.hstack([part for picture in pictures for part in (picture, gap)][:-1]))
    return panels
