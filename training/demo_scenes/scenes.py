"""A small semantic segmentation data set of drawn street scenes, for the demo and for tests.

Classes share their colors, and textures, sizes, light and weather vary more than a few labeled images can show:
that leaves something to learn from unlabeled ones.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from segkc_deploy import atomic
from segkc_deploy.errors import DataError
from segkc_deploy.training.demo_scenes.brush import Rng
from segkc_deploy.training.demo_scenes.layout import CLASSES, compose
from segkc_deploy.training.demo_scenes.light import light, photograph

IGNORE_INDEX = 255

_SPLITS = ("train", "unlabeled", "val")
_ENCODING = {".jpg": [cv2.IMWRITE_JPEG_QUALITY, 90], ".png": [cv2.IMWRITE_PNG_COMPRESSION, 3]}
_OVERSAMPLING = 2  # scenes are drawn at twice their size: smooth edges, and pixels that two classes share are known


def write_scenes(
    out: Path, labeled: int, unlabeled: int, val: int, size: tuple[int, int] = (128, 160), seed: int = 0
) -> Path:
    """Draw scenes into `out` and return the path of their data spec, `out/data.yaml`.

    Writes `images/{train,unlabeled,val}/*.jpg` and `masks/{train,val}/*.png` (class ids; 255 where two classes share
    a pixel). The same arguments give the same bytes on the same machine; scene i of a split does not depend on
    how many there are.

    Args:
        out: a folder without `images` and `masks`; made if missing.
        labeled: number of training scenes with a mask.
        unlabeled: number of scenes without a mask.
        val: number of validation scenes.
        size: height and width in pixels.
        seed: chooses the scenes.

    Raises:
        DataError: `out` already holds images or masks.
    """
    for name in ("images", "masks"):
        if (out / name).exists():
            raise DataError(f"{out / name}: already there; choose another folder or remove it")
    for split, count in zip(_SPLITS, (labeled, unlabeled, val), strict=True):
        with_masks = split != "unlabeled"
        (out / "images" / split).mkdir(parents=True)
        if with_masks:
            (out / "masks" / split).mkdir(parents=True)
        for index in range(count):
            image, mask = draw_scene(np.random.default_rng([seed, _SPLITS.index(split), index]), size)
            _write(out / "images" / split / f"{split}-{index:04}.jpg", image[..., ::-1])
            if with_masks:
                _write(out / "masks" / split / f"{split}-{index:04}.png", mask)
    spec: dict[str, Any] = {
        "layout": "folders",
        "root": ".",
        "classes": {name: list(color) for name, color in CLASSES.items()},
        "ignore_index": IGNORE_INDEX,
        "labeled": {"images": "images/train", "masks": "masks/train"},
    }
    if unlabeled:
        spec["unlabeled"] = {"images": ["images/unlabeled"]}
    if val:
        spec["val"] = {"images": "images/val", "masks": "masks/val"}
    atomic.write_text(out / "data.yaml", yaml.safe_dump(spec, sort_keys=False, default_flow_style=None))
    return out / "data.yaml"


def _write(path: Path, pixels: np.ndarray) -> None:
    _, encoded = cv2.imencode(path.suffix, pixels, _ENCODING[path.suffix])
    path.write_bytes(encoded.tobytes())


def draw_scene(rng: Rng, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return one scene: RGB uint8 (height, width, 3) and its mask uint8 (height, width)."""
    scene = compose(rng, size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING)
    picture = cv2.resize(scene.picture, size[::-1], interpolation=cv2.INTER_AREA)
    lit = light(rng, picture, scene.horizon // _OVERSAMPLING)
    return photograph(rng, lit), _reduce(scene.mask)


def _reduce(mask: np.ndarray) -> np.ndarray:
    """Return the mask at the image's size: the class that all pixels of a block agree on, or `IGNORE_INDEX`."""
    corners = [mask[row::_OVERSAMPLING, column::_OVERSAMPLING] for row in (0, 1) for column in (0, 1)]
    agree = np.logical_and.reduce([corner == corners[0] for corner in corners[1:]])
    return np.where(agree, corners[0], IGNORE_INDEX).astype(np.uint8)
