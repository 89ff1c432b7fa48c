"""The networks that learn together: one alone, or a junior and a senior with what they exchange."""

import torch
from torch import Tensor, nn

from segkc_deploy.training.models.segmenter import Segmenter


class SingleNetwork(nn.Module):
    """The one network that learns, in the place of the junior."""

    def __init__(self, junior: Segmenter) -> None:
        super().__init__()
        self.junior = junior

    def features(self, images: Tensor) -> dict[str, list[Tensor]]:
        """Return its feature maps, by role."""
        return {"junior": self.junior.features(images)}

    def logits(self, features: dict[str, list[Tensor]], size: torch.Size) -> dict[str, Tensor]:
        """Return its logits (N, C, *size), by role."""
        return {"junior": self.junior.decode(features["junior"], size)}


class NetworkPair(nn.Module):
    """A junior and a senior that run side by side."""

    def __init__(self, junior: Segmenter, senior: Segmenter) -> None:
        super().__init__()
        self.junior = junior
        self.senior = senior

    def features(self, images: Tensor) -> dict[str, list[Tensor]]:
        """Return both networks' feature maps, by role."""
        return {"junior": self.junior.features(images), "senior": self.senior.features(images)}

    def logits(self, features: dict[str, list[Tensor]], size: torch.Size) -> dict[str, Tensor]:
        """Return both networks' logits (N, C, *size), by role."""
        return {
            "junior": self.junior.decode(features["junior"], size),
            "senior": self.senior.decode(features["senior"], size),
        }
