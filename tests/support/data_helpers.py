"""Small data sets on disk, for the tests of everything that reads one."""

from pathlib import Path

import numpy as np
from PIL import Image


def blocks(seed: int, height: int = 32, width: int = 48, channels: int = 3) -> np.ndarray:
    """A picture of 8x8 blocks of random color, uint8 (H, W, channels)."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, channels))
    return np.kron(small, np.ones((8, 8, 1))).astype(np.uint8)


def write_image(path: Path, seed: int = 0, height: int = 32, width: int = 48) -> Path:
    """Write a picture in the format that the suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(blocks(seed, height, width)).save(path)
    return path


def write_mask(path: Path, values: np.ndarray | list[int], height: int = 32, width: int = 48) -> Path:
    """Write a single-channel mask: an array as it is, or vertical stripes of the listed values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(values, list):
        values = np.resize(np.array(values, np.uint8), (height, width))
    Image.fromarray(values).save(path)
    return path


def write_pairs(root: Path, split: str, names: list[str], values: list[int], seed: int = 0) -> None:
    """Write `images/SPLIT/NAME.png` and `masks/SPLIT/NAME.png` for every name, all images different."""
    for index, name in enumerate(names):
        write_image(root / "images" / split / f"{name}.png", seed=seed + index)
        write_mask(root / "masks" / split / f"{name}.png", values)


def write_spec(folder: Path, text: str) -> Path:
    """Write `data.yaml` into a folder and return its path."""
    path = folder / "data.yaml"
    path.write_text(text, encoding="utf-8")
    return path
