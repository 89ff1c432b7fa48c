"""Photometric augmentation for images that are not RGB: bands without a color space, of 8 or 16 bits.

Brightness and contrast mean what they mean for RGB. Hue and saturation need a color space; in their place each band is
scaled by itself, as sensors and light differ from band to band. In the place of grayscale one band is blanked, so that
networks do not lean on a single one.
"""

import cv2
import numpy as np

from segkc_deploy.pixel_format import by_band_group
from segkc_deploy.training.recipe import StrongAugmentation


def strong_view_of_bands(image: np.ndarray, config: StrongAugmentation, rng: np.random.Generator) -> np.ndarray:
    """Jitter, blank a band of and blur an image (H, W, bands), uint8 or uint16; CutMix follows on the batch.

    `config.brightness` and `contrast` are those of RGB; each band's own factor is uniform in 1 ± `hue`; a band drawn
    at random takes its mean value with `grayscale_probability`, where there are several.
    """
    largest = np.iinfo(image.dtype).max
    values = image.astype(np.float32)
    if rng.random() < config.jitter_probability:
        values *= rng.uniform(max(1 - config.brightness, 0), 1 + config.brightness)
        contrast = rng.uniform(max(1 - config.contrast, 0), 1 + config.contrast)
        mean = values.mean(axis=(0, 1))
        values = mean + contrast * (values - mean)
        values *= np.asarray(rng.uniform(max(1 - config.hue, 0), 1 + config.hue, image.shape[2]), np.float32)
    if image.shape[2] > 1 and rng.random() < config.grayscale_probability:
        band = int(rng.integers(image.shape[2]))
        values[..., band] = values[..., band].mean()
    if rng.random() < config.blur_probability:
        sigma = rng.uniform(*config.blur_sigma)
        values = by_band_group(values, lambda group: cv2.GaussianBlur(group, (0, 0), sigmaX=sigma))
    return np.clip(np.round(values), 0, largest).astype(image.dtype)
