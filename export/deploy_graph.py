"""The junior as it is deployed: pixels in, mask out. The exported graph and the eager reference both are this."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segkc_deploy.pixel_format import RGB
from segkc_deploy.training.models.fixed_size import at_fixed_size
from segkc_deploy.training.models.segmenter import Segmenter

INPUT_NAME = "images"
MASKS = "masks"
CONFIDENCE = "confidence"
LOGITS = "logits"
OUTPUT_NAMES = (MASKS, CONFIDENCE, LOGITS)


def blank_images(graph: nn.Module, count: int, size: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
    """Return `count` black images (count, *size, bands) of the type that `graph` takes; of a baseline, RGB."""
    pixels = graph.network.pixels if isinstance(graph, DeployGraph) else RGB
    dtype = torch.uint8 if pixels.bits == 8 else torch.uint16
    return torch.zeros(count, *size, pixels.bands, dtype=dtype, device=device)


class DeployGraph(nn.Module):
    """`images` uint8 (N, H, W, 3) RGB, or what `network.pixels` says, to a tuple of `outputs`.

    `masks` are uint8 (N, H, W) class ids; `confidence` float32 (N, H, W), the softmax probability of the mask's class;
    `logits` float32 (N, h, w, C) at the decoder's own resolution. Normalization, upsampling and argmax are inside, so
    there is no preprocessing to get wrong on the device.

    Args:
        network: the trained network.
        size: (height, width) of the input, for which a copy of the network is made; None where both are free.
        outputs: names out of `OUTPUT_NAMES`, in the order in which they are returned.
    """

    def __init__(self, network: Segmenter, size: tuple[int, int] | None, outputs: Sequence[str] = (MASKS,)) -> None:
        super().__init__()
        self.network = at_fixed_size(network, size) if size else network
        self.outputs = tuple(outputs)

    def low_resolution_logits(self, images: Tensor) -> Tensor:
        """Return logits (N, C, h, w) at the decoder's own resolution."""
        # Cast before transposing: TensorRT has no uint8 transpose.
        pixels = images.float().permute(0, 3, 1, 2) / self.network.pixels.largest
        logits: Tensor = self.network.decoder(self.network.features(pixels))
        return logits

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        low = self.low_resolution_logits(images)
        logits = self.network.upsample(low, images.shape[1:3])
        made = {
            MASKS: lambda: logits.argmax(dim=1).to(torch.uint8),
            CONFIDENCE: lambda: logits.softmax(dim=1).amax(dim=1),
            LOGITS: lambda: low.permute(0, 2, 3, 1).contiguous(),
        }
        return tuple(made[name]() for name in self.outputs)
