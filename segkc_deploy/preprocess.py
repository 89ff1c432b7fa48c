"""Resizing: the one place that training's validation, the export's verification and the device share.

Everything else that prepares an image (normalization) is inside the exported graph.
"""

import cv2
import numpy as np

from segkc_deploy.manifest import Contract
from segkc_deploy.pixel_format import by_band_group

#: Bilinear interpolation reads four neighbors; shrinking by more than this factor would skip pixels between them.
_LARGEST_BILINEAR_SHRINK = 2


def network_size(contract: Contract, image_size: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) at which the network takes an image of `image_size` (height, width).

    The contract's own size, or where that is free the multiple nearest to each side within the contract's bounds; of
    two that are as near the larger one, as in the evaluation of the trained network.
    """
    multiple = contract.size_multiple
    if multiple is None:
        return contract.size
    assert contract.min_size is not None
    assert contract.max_size is not None
    height, width = (
        min(max(int(side / multiple + 0.5) * multiple, least), most)
        for side, least, most in zip(image_size, contract.min_size, contract.max_size, strict=True)
    )
    return height, width


def size_within(size: tuple[int, int], longest_side: int) -> tuple[int, int]:
    """Return (height, width) shrunk, where it has to be, so that no side is over `longest_side` pixels."""
    scale = min(1.0, longest_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an image to `size`, ignoring its aspect ratio.

    Bilinear, with pixel centers aligned; where a side shrinks by more than 2, its pixels are averaged by area instead.
    The bilinear step is computed in integers, so every machine gets the same bytes.

    Args:
        image: uint8 or uint16 (H, W, bands).
        size: (height, width) in pixels.

    Returns:
        (height, width, bands) of the same type; `image` itself when it already has that size.
    """
    height, width = size
    if image.shape[0] > _LARGEST_BILINEAR_SHRINK * height or image.shape[1] > _LARGEST_BILINEAR_SHRINK * width:
        # Averaging can only shrink: a side that has to grow is left to the bilinear step.
        shrunk = (min(image.shape[1], width), min(image.shape[0], height))
        image = by_band_group(image, lambda bands: cv2.resize(bands, shrunk, interpolation=cv2.INTER_AREA))
    if image.shape[:2] == (height, width):
        return image
    return by_band_group(image, lambda bands: cv2.resize(bands, (width, height), interpolation=cv2.INTER_LINEAR_EXACT))


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a mask of class ids to `size` by taking the nearest pixel, with pixel centers aligned as for images.

    Args:
        mask: uint8 (H, W).
        size: (height, width) in pixels.

    Returns:
        uint8 (height, width); `mask` itself when it already has that size.
    """
    height, width = size
    if mask.shape == (height, width):
        return mask
    # Plain INTER_NEAREST measures from pixel corners, which moves the mask against its image by up to half a pixel.
    return cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
