"""A small data set of drawn rectangles and disks, and recipes small enough for tests."""

from pathlib import Path

import cv2
import numpy as np
import yaml

from segkc_deploy.training.recipe import Recipe

CLASSES = ["background", "box", "disk"]
SIZE = (48, 64)


def write_tiny_data(root: Path, labeled: int = 4, unlabeled: int = 6, val: int = 3) -> Path:
    """Draw the images and masks below `root` and return the data spec's path."""
    rng = np.random.default_rng(7)
    for name, count, has_mask in (("train", labeled, True), ("extra", unlabeled, False), ("val", val, True)):
        (root / "images" / name).mkdir(parents=True)
        (root / "masks" / name).mkdir(parents=True)
        for index in range(count):
            image, mask = draw(rng)
            cv2.imwrite(str(root / "images" / name / f"{index:03}.png"), image[..., ::-1])
            if has_mask:
                cv2.imwrite(str(root / "masks" / name / f"{index:03}.png"), mask)
    spec = {
        "layout": "folders",
        "root": ".",
        "classes": CLASSES,
        "labeled": {"images": "images/train", "masks": "masks/train"},
        "unlabeled": {"images": ["images/extra"]},
        "val": {"images": "images/val", "masks": "masks/val"},
    }
    path = root / "data.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return an image, uint8 (H, W, 3) RGB, and its mask, uint8 (H, W)."""
    height, width = SIZE
    image = rng.integers(60, 110, (height, width, 3)).astype(np.uint8)
    mask = np.zeros(SIZE, dtype=np.uint8)
    left, top = (int(value) for value in rng.integers(2, 28, 2))
    cv2.rectangle(image, (left, top), (left + 18, top + 14), (200, 60, 50), -1)
    cv2.rectangle(mask, (left, top), (left + 18, top + 14), 1, -1)
    center = (int(rng.integers(36, 54)), int(rng.integers(12, 36)))
    cv2.circle(image, center, 9, (40, 90, 210), -1)
    cv2.circle(mask, center, 9, 2, -1)
    return image, mask


def tiny_recipe(**changes: object) -> Recipe:
    """Return a SegKC recipe of two small convolutional networks; `changes` replace whole sections."""
    values: dict[str, object] = {
        "name": "tiny",
        "junior": {"backbone": "mobilenetv4_conv_small_035", "decoder_channels": 16},
        "senior": {"backbone": "resnet10t", "decoder_channels": 16},
        "method": {"name": "segkc", "strong_views": 1, "confidence_threshold": 0.4},
        "crop_size": (32, 64),
        "batch": {"labeled": 2, "unlabeled": 2},
        "schedule": {"steps": 4},
        "optimizer": {"lr": 1e-3, "decoder_lr_multiplier": 1},
        "ema": {"decay": 0.996},
        "validation": {"every": 2},
        "log_every": 1,
        "checkpoint_every": 2,
        "workers": 0,
    }
    return Recipe.model_validate(values | changes)


def write_recipe(path: Path, recipe: Recipe) -> Path:
    """Write `recipe` as a YAML file and return its path."""
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json", exclude_none=True)))
    return path
