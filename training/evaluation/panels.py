"""Pictures of how the networks do on validation images: input, truth, junior, senior, and where the two disagree."""

from collections.abc import Callable, Iterator

import numpy as np

from segkc_deploy.data.masks import read_sample
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.overlay import colorize
from segkc_deploy.pixel_format import as_picture
from segkc_deploy.preprocess import resize_image, resize_mask, size_within

#: Enough to see what a mask holds; strips of whole photographs would take a run hundreds of MB at every validation.
_LONGEST_SIDE = 512
_GAP = 4
_AGREE, _DISAGREE = 0, 255


def comparison_panels(
    predictors: dict[str, Callable[[np.ndarray], np.ndarray]], sets: ImageSets, count: int
) -> Iterator[np.ndarray]:
    """Yield one strip, uint8 (H, W, 3), for each of `count` validation images spread over the set.

    Images of more than 512 pixels a side are predicted whole and shown at 512, masks by their nearest pixels.

    `predictors` maps `junior` and, where there is one, `senior` to a function from an image to its mask.
    """
    chosen = np.linspace(0, len(sets.val) - 1, min(count, len(sets.val))).round().astype(int)
    for index in chosen:
        image, truth = read_sample(sets.val[index], sets)
        assert truth is not None
        size = size_within(image.shape[:2], _LONGEST_SIDE)
        masks = [resize_mask(predict(image), size) for predict in predictors.values()]
        shown = [colorize(mask, sets.labels) for mask in (resize_mask(truth, size), *masks)]
        pictures = [as_picture(resize_image(image, size)), *shown]
        if len(masks) > 1:
            differs = np.where(masks[0] != masks[1], _DISAGREE, _AGREE).astype(np.uint8)
            pictures.append(np.repeat(differs[..., None], 3, axis=2))
        gap = np.full((size[0], _GAP, 3), 255, dtype=np.uint8)
        yield np.hstack([part for picture in pictures for part in (picture, gap)][:-1])
