"""Shapes into a mask of class ids."""

import difflib
from collections.abc import Mapping

import numpy as np

from segkc_deploy.data.annotations.shapes import AnnotatedImage
from segkc_deploy.errors import DataError


def rasterize(image: AnnotatedImage, class_ids: Mapping[str, int], background: int, where: str) -> np.ndarray:
    """Return the mask of an annotated image, uint8 (height, width).

    Shapes are painted in their order, so that later ones cover earlier ones.

    Args:
        image: the shapes and the image's size.
        class_ids: the class id, or `ignore_index`, of each label.
        background: the value of pixels in no shape.
        where: what errors begin with.

    Raises:
        DataError: a label has no class, or a shape is damaged.
    """
    mask = np.full(image.size, background, np.uint8)
    for shape in image.shapes:
        if shape.label not in class_ids:
            close = difflib.get_close_matches(shape.label, class_ids, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise DataError(
                f"{where}: the label {shape.label!r} is not a class{hint} Add it to `classes`, or"
                f" map it in the data spec: `label_mapping: {{{shape.label}: 255}}`"
            )
        try:
            region = shape.region(image.size)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        mask[region] = class_ids[shape.label]
    return mask
