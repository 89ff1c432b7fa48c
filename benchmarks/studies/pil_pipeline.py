"""The usual training pipeline on Pillow images, as published code has it: what the loader is compared with.

It does what torchvision's transforms do on Pillow images (`Resize`, `RandomCrop`, `ColorJitter`, `RandomGrayscale`,
`ToTensor`, `Normalize`) and UniMatch V2's blur, with the random numbers of `segkc_deploy.training.data.augment` in the
same order, so that both make the same views.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from segkc_deploy.training.recipe import StrongAugmentation, WeakAugmentation

_MEAN, _STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


def weak_view(
    image: Image.Image,
    mask: Image.Image,
    crop_size: tuple[int, int],
    ignore_index: int,
    config: WeakAugmentation,
    rng: np.random.Generator,
) -> tuple[Image.Image, Image.Image]:
    """Scale, pad, crop and flip an image and its mask to `crop_size` (height, width)."""
    factor = rng.uniform(*config.scale)
    size = max(round(image.width * factor), 1), max(round(image.height * factor), 1)
    image, mask = image.resize(size, Image.Resampling.BILINEAR), mask.resize(size, Image.Resampling.NEAREST)
    border = (0, 0, max(crop_size[1] - size[0], 0), max(crop_size[0] - size[1], 0))
    image, mask = ImageOps.expand(image, border, fill=0), ImageOps.expand(mask, border, fill=ignore_index)
    top = int(rng.integers(0, image.height - crop_size[0] + 1))
    left = int(rng.integers(0, image.width - crop_size[1] + 1))
    box = (left, top, left + crop_size[1], top + crop_size[0])
    image, mask = image.crop(box), mask.crop(box)
    if rng.random() < config.flip:
        return ImageOps.mirror(image), ImageOps.mirror(mask)
    return image, mask


def strong_view(image: Image.Image, config: StrongAugmentation, rng: np.random.Generator) -> Image.Image:
    """Jitter, desaturate and blur an image."""
    if rng.random() < config.jitter_probability:
        changes: list[Callable[[Image.Image, float], Image.Image]] = [
            lambda picture, amount: ImageEnhance.Brightness(picture).enhance(amount),
            lambda picture, amount: ImageEnhance.Contrast(picture).enhance(amount),
            lambda picture, amount: ImageEnhance.Color(picture).enhance(amount),
            _turn_hue,
        ]
        amounts = [
            *(
                rng.uniform(max(1 - strength, 0), 1 + strength)
                for strength in (config.brightness, config.contrast, config.saturation)
            ),
            rng.uniform(-config.hue, config.hue),
        ]
        for index in rng.permutation(len(changes)):
            image = changes[index](image, amounts[index])
    if rng.random() < config.grayscale_probability:
        image = image.convert("L").convert("RGB")
    if rng.random() < config.blur_probability:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(*config.blur_sigma)))
    return image


def normalized(image: Image.Image) -> np.ndarray:
    """Return float32 (3, H, W), standardized by ImageNet's mean and standard deviation."""
    values = np.asarray(image).transpose(2, 0, 1).astype(np.float32, order="C") / np.float32(255)
    result: np.ndarray = (values - _MEAN[:, None, None]) / _STD[:, None, None]
    return result


def _turn_hue(image: Image.Image, shift: float) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    turned = np.asarray(hue) + np.uint8(round(shift * 256) % 256)  # wraps around, as hues do
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")
