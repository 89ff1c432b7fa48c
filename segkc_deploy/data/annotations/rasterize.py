"""Shapes into a mask of class ids."""

import difflib

import numpy as np

from segkc_deploy.data.annotations.shapes import AnnotatedImage
from segkc_deploy.data.samples import MaskCoding
from segkc_deploy.errors import DataError
from segkc_deploy.validation import yaml_in_one_line


def rasterize(image: AnnotatedImage, coding: MaskCoding, where: str) -> np.ndarray:
    """Return the mask of an annotated image, uint8 (height, width).

    Shapes are painted in their order, so that later ones cover earlier ones.

    Args:
        image: the shapes and the image's size.
        coding: the class id, or `ignore_index`, of each label, and of pixels in no shape.
        where: what errors begin with.

    Raises:
        DataError: a label has no class, or a shape is damaged.
    """
    mask = np.full(image.size, coding.background, np.uint8)
    class_ids = coding.class_ids
    for shape in image.shapes:
        if shape.label not in class_ids:
            close = difflib.get_close_matches(shape.label, class_ids, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            mapping = yaml_in_one_line({shape.label: coding.labels.ignore_index})
            raise DataError(
                f"{where}: the label {shape.label!r} is not a class{hint} Add it to `classes`, or"
                f" map it in the data spec: `label_mapping: {mapping}`"
            )
        try:
            region = shape.region(image.size)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        mask[region] = class_ids[shape.label]
    return mask
