"""The junior as it is deployed: pixels in, mask out. The exported graph and the eager reference both are this."""

import torch
from torch import Tensor, nn

from segkc_deploy.training.models.fixed_size import at_fixed_size
from segkc_deploy.training.models.segmenter import Segmenter

INPUT_NAME = "images"
OUTPUT_NAME = "masks"


class DeployGraph(nn.Module):
    """`images` uint8 (N, H, W, 3) RGB to `masks` uint8 (N, H, W).

    Normalization, upsampling and argmax are inside, so there is no preprocessing to get wrong on the device.

    Args:
        network: the trained network; a copy for `size` is taken.
        size: (height, width) of the input.
    """

    def __init__(self, network: Segmenter, size: tuple[int, int]) -> None:
        super().__init__()
        self.network = at_fixed_size(network, size)

    def logits(self, images: Tensor) -> Tensor:
        """Return logits (N, C, H, W) at the input's size."""
        # Cast before transposing: TensorRT has no uint8 transpose.
        pixels: Tensor = self.network(images.float().permute(0, 3, 1, 2) / 255)
        return pixels

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(images).argmax(dim=1).to(torch.uint8)
