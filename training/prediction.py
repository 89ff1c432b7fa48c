"""A network's mask of one image, by the evaluation protocol: at the image's own size, or at one set size."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segkc_deploy.preprocess import resize_image
from segkc_deploy.training.models.segmenter import Segmenter


def to_float_images(images: Tensor) -> Tensor:
    """Turn uint8 images (N, 3, H, W) into floats from 0 to 1."""
    return images.float() / 255


def input_size(image_size: tuple[int, int], multiple: int, size: tuple[int, int] | None) -> tuple[int, int]:
    """Return the network's input size for an image: `size` or the image's own, each side to the nearest multiple."""
    height, width = size or image_size
    return max(round(height / multiple), 1) * multiple, max(round(width / multiple), 1) * multiple


def mask_predictor(
    network: Segmenter, device: torch.device, size: tuple[int, int] | None
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from an image, uint8 (H, W, 3), to its mask, uint8 (H, W).

    The image is resized to `input_size`; the logits are resized back to the image's own size before the argmax.
    """

    @torch.inference_mode()
    def predict(image: np.ndarray) -> np.ndarray:
        own_size = image.shape[:2]
        resized = resize_image(image, input_size(own_size, network.size_multiple, size))
        tensor = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))[None].to(device)
        logits = network(to_float_images(tensor))
        if tuple(logits.shape[2:]) != own_size:
            logits = network.upsample(logits, own_size)
        mask: np.ndarray = logits.argmax(dim=1)[0].to(torch.uint8).cpu().numpy()
        return mask

    return predict
