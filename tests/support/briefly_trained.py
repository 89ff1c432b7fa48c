"""Tiny networks that have learned something: the logits of random ones are too flat to tell rounding from errors."""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from tiny_data import CLASSES, draw

from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.models.spec import NetworkSpec

_IMAGES, _STEPS = 8, 60


def briefly_trained(backbone: str, size: tuple[int, int]) -> tuple[Segmenter, np.ndarray]:
    """Train a network on drawn boxes and disks, and return it with images that it has not seen, uint8 (8, H, W, 3)."""
    rng = np.random.default_rng(3)
    torch.manual_seed(0)
    network = Segmenter(NetworkSpec(backbone=backbone, decoder_channels=16), len(CLASSES))
    images, masks = _drawn(rng, size)
    pixels, truth = torch.from_numpy(images).permute(0, 3, 1, 2) / 255, torch.from_numpy(masks).long()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    network.train()
    for _ in range(_STEPS):
        loss = F.cross_entropy(network(pixels), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unseen, expected = _drawn(rng, size)
    network.eval()
    with torch.inference_mode():
        found = network(torch.from_numpy(unseen).permute(0, 3, 1, 2) / 255).argmax(dim=1).numpy()
    # A network that gives one class everywhere would agree with anything.
    assert all((found == expected)[expected == number].mean() > 0.5 for number in range(len(CLASSES)))
    return network, unseen


def _drawn(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    pairs = [draw(rng) for _ in range(_IMAGES)]
    images = [cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR) for image, _ in pairs]
    masks = [cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT) for _, mask in pairs]
    return np.stack(images), np.stack(masks)
