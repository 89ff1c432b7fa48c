"""What happens to a drawn scene on its way to a file: shadows, the hour's color, and the camera's faults."""

import cv2
import numpy as np

from segkc_deploy.training.demo_scenes.brush import Rng, smooth_noise

#: Red, green and blue gains of an hour of the day, the brightness included.
_HOURS = {
    "noon": (1.15, 1.13, 1.08),
    "overcast": (0.98, 1.02, 1.06),
    "dusk": (1.1, 0.9, 0.74),
    "blue hour": (0.58, 0.68, 0.92),
    "lamps": (0.82, 0.66, 0.42),
}


def light(rng: Rng, picture: np.ndarray, horizon: int) -> np.ndarray:
    """Return `picture` (RGB uint8) as float32 in the light of one hour, with shadows of things outside the frame."""
    height, width = picture.shape[:2]
    gains = np.asarray(_HOURS[rng.choice(list(_HOURS), p=[0.55, 0.3, 0.08, 0.04, 0.03])], np.float32)
    lit = picture * (gains * rng.uniform(0.9, 1.1))
    across = np.linspace(-1, 1, width, dtype=np.float32) * rng.normal(0, 0.14)
    down = np.linspace(-1, 1, height, dtype=np.float32) * rng.normal(0, 0.1)
    field = 1 + across[None, :] + down[:, None]
    if rng.random() < 0.5:
        field *= _cast_shadow(rng, (height, width), horizon)
    return lit * field[..., None]


def _cast_shadow(rng: Rng, shape: tuple[int, int], horizon: int) -> np.ndarray:
    height, width = shape
    shadow = np.ones(shape, np.float32)
    left, reach = rng.uniform(-0.3, 0.8) * width, rng.uniform(0.2, 0.6) * width
    slant = rng.normal(0, 0.4) * width
    top = horizon + rng.uniform(0, 0.3) * height
    corners = [(left, height), (left + slant, top), (left + slant + reach, top), (left + reach, height)]
    cv2.fillPoly(shadow, [np.rint(corners).astype(np.int32)], rng.uniform(0.45, 0.75))
    return cv2.blur(shadow, (5, 5))


def photograph(rng: Rng, lit: np.ndarray) -> np.ndarray:
    """Return float32 `lit` as a camera would save it, uint8: vignette, blur, gamma, noise of light and sensor."""
    height, width = lit.shape[:2]
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None] ** 2
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :] ** 2
    picture = lit * (1 - rng.uniform(0, 0.2) * (rows + columns))[..., None]
    if rng.random() < 0.5:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 0.8))
    elif rng.random() < 0.2:
        kernel = np.zeros((5, 5), np.float32)
        cv2.line(kernel, (0, int(rng.integers(5))), (4, int(rng.integers(5))), 1)
        picture = cv2.filter2D(picture, -1, kernel / kernel.sum())
    picture = 255 * (np.clip(picture, 0, 255) / 255) ** rng.uniform(0.75, 1.1)
    deviation = np.sqrt(rng.uniform(0.02, 0.25) * picture + rng.uniform(1, 4) ** 2)
    grain = rng.standard_normal(picture.shape, dtype=np.float32)
    grain += 0.5 * smooth_noise(rng, (height, width), 2)[..., None]  # demosaicing smears the noise a little
    return np.clip(picture + deviation * grain * 0.8, 0, 255).astype(np.uint8)
