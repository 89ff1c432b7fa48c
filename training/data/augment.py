"""Augmentation of single images with OpenCV, on uint8 RGB; all randomness comes from the generator handed in.

The weak view is geometry alone; a strong view is the weak one with its colors and sharpness changed, so that one
mask fits both.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np

from segkc_deploy.pixel_format import by_band_group
from segkc_deploy.training.data.augment_bands import strong_view_of_bands
from segkc_deploy.training.data.resample import Span, crop_of_resized_image, crop_of_resized_mask
from segkc_deploy.training.recipe import StrongAugmentation, WeakAugmentation

#: CCIR 601 luma, what OpenCV and torchvision both use for gray.
LUMA = np.array([0.299, 0.587, 0.114])


def weak_view(
    image: np.ndarray,
    mask: np.ndarray,
    crop_size: tuple[int, int],
    ignore_index: int,
    config: WeakAugmentation,
    rng: np.random.Generator,
    wanted_class: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Scale, pad, crop and flip an image (H, W, bands), or its half (H / 2, W / 2, bands), with its mask (H, W).

    The long side is scaled by a factor uniform in `config.scale`; what the crop then lacks is padded right and below
    with black, `ignore_index` in the mask. Returns both at `crop_size` (height, width). The crop holds a pixel of
    `wanted_class`, drawn at random, where the scaled mask has one. Only the crop is resized, see `resample`.
    """
    factor = rng.uniform(*config.scale)
    height, width = (max(round(side * factor), 1) for side in mask.shape)
    crop_height, crop_width = crop_size
    tops, lefts = range(max(height - crop_height, 0) + 1), range(max(width - crop_width, 0) + 1)
    if wanted_class is not None:
        whole = Span(mask.shape[0], height, 0, height), Span(mask.shape[1], width, 0, width)
        scaled = crop_of_resized_mask(mask, *whole)
        if len(places := np.argwhere(scaled == wanted_class)):
            row, column = (int(value) for value in places[rng.integers(len(places))])
            tops, lefts = _holding(row, tops, crop_height), _holding(column, lefts, crop_width)
    top, left = int(rng.integers(tops.start, tops.stop)), int(rng.integers(lefts.start, lefts.stop))
    rows = Span(mask.shape[0], height, top, min(crop_height, height))
    columns = Span(mask.shape[1], width, left, min(crop_width, width))
    mask = crop_of_resized_mask(mask, rows, columns)
    rows, columns = replace(rows, source=image.shape[0]), replace(columns, source=image.shape[1])
    image = crop_of_resized_image(image, rows, columns)
    bottom, right = crop_height - image.shape[0], crop_width - image.shape[1]
    if bottom or right:
        image = np.pad(image, ((0, bottom), (0, right), (0, 0)))
        mask = cv2.copyMakeBorder(mask, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=(ignore_index,))
    if rng.random() < config.flip:
        return by_band_group(image, lambda bands: cv2.flip(bands, 1)), cv2.flip(mask, 1)
    return np.ascontiguousarray(image), np.ascontiguousarray(mask)


def _holding(place: int, starts: range, length: int) -> range:
    """Return those of the `starts` of a crop of `length` pixels that hold the pixel `place`."""
    return range(max(starts.start, place - length + 1), min(starts.stop, place + 1))


class StrongDraw(NamedTuple):
    """What the random numbers of a strong view decide, so that it can be made elsewhere: by `augment_batch`, on a GPU.

    Attributes:
        order: the numbers of the changes in `amounts`, the first one first; empty without jitter.
        amounts: the factors of brightness, contrast and saturation, and the shift of the hue.
        grayscale: whether all color is taken away then.
        blur_sigma: in pixels, of the blur that ends it; 0 is none.
    """

    order: tuple[int, ...] = ()
    amounts: tuple[float, ...] = (1.0, 1.0, 1.0, 0.0)
    grayscale: bool = False
    blur_sigma: float = 0.0


def draw_strong_view(config: StrongAugmentation, rng: np.random.Generator) -> StrongDraw:
    """Draw what changes a strong view of an RGB image."""
    draw = StrongDraw()
    if rng.random() < config.jitter_probability:
        amounts = [
            rng.uniform(max(1 - config.brightness, 0), 1 + config.brightness),
            rng.uniform(max(1 - config.contrast, 0), 1 + config.contrast),
            rng.uniform(max(1 - config.saturation, 0), 1 + config.saturation),
            rng.uniform(-config.hue, config.hue),
        ]
        draw = StrongDraw(tuple(rng.permutation(len(amounts)).tolist()), tuple(amounts))
    draw = draw._replace(grayscale=bool(rng.random() < config.grayscale_probability))
    if rng.random() < config.blur_probability:
        draw = draw._replace(blur_sigma=rng.uniform(*config.blur_sigma))
    return draw


def strong_view(image: np.ndarray, config: StrongAugmentation, rng: np.random.Generator) -> np.ndarray:
    """Jitter, desaturate and blur an image (H, W, 3); CutMix follows on the batch. Other bands: `augment_bands`."""
    if image.dtype != np.uint8 or image.shape[2] != 3:
        return strong_view_of_bands(image, config, rng)
    draw = draw_strong_view(config, rng)
    for index in draw.order:
        image = _CHANGES[index](image, draw.amounts[index])
    if draw.grayscale:
        image = adjust_saturation(image, 0.0)
    if draw.blur_sigma:
        image = cv2.GaussianBlur(image, (0, 0), sigmaX=draw.blur_sigma)
    return image


def adjust_brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiply values by `factor`."""
    return cv2.convertScaleAbs(image, alpha=factor)


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with the image's mean gray: factor * image + (1 - factor) * mean."""
    mean = float(np.asarray(cv2.mean(image)[:3]) @ LUMA)
    table = np.clip(np.arange(256) * factor + (1 - factor) * mean, 0, 255).round().astype(np.uint8)
    return cv2.LUT(image, table)


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with the image's own gray: factor * image + (1 - factor) * gray."""
    return cv2.transform(image, factor * np.eye(3) + (1 - factor) * LUMA)


def adjust_hue(image: np.ndarray, shift: float) -> np.ndarray:
    """Turn the hue by `shift` of the full circle (-0.5 to 0.5)."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(shift * 256) % 256)  # wraps around, as hues do
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


#: By their numbers in `StrongDraw`.
_CHANGES: tuple[Callable[[np.ndarray, float], np.ndarray], ...] = (
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    adjust_hue,
)
