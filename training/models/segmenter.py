"""A segmentation network: normalization, a backbone and a decoder."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkc_deploy.errors import ConfigError
from segkc_deploy.pixel_format import PixelFormat
from segkc_deploy.training.models.backbone import Backbone
from segkc_deploy.training.models.dpt import DPTDecoder
from segkc_deploy.training.models.fpn import FPNDecoder
from segkc_deploy.training.models.spec import NetworkSpec


class Segmenter(nn.Module):
    """Images to class logits.

    It takes images as values from 0 to 1 and normalizes them itself, so that a senior and a junior with different
    statistics see the same batch, and an exported network cannot be fed wrongly normalized images.

    It reads no weight files: `training.files.starting_weights.build_network` does, and hands over what it has read.

    Args:
        spec: the backbone and the decoder.
        num_classes: channels of the logits.
        fixed_size: (height, width) of the only input that a ViT takes; by default any multiple of its patch.
        backbone_weights: weights of the backbone by name, as its publisher wrote them.

    Attributes:
        started_from: describes the network of this package that the weights come from; empty for all others.

    Raises:
        UserError: backbone and decoder do not fit each other, or the weights are not available or do not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        spec: NetworkSpec,
        num_classes: int,
        fixed_size: tuple[int, int] | None = None,
        backbone_weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.num_classes = num_classes
        self.started_from = ""
        self.backbone = Backbone(spec, fixed_size, backbone_weights)
        self.decoder = build_decoder(spec, self.backbone, num_classes)
        self.register_buffer("mean", torch.tensor(self.backbone.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self.backbone.std).view(1, -1, 1, 1), persistent=False)

    @property
    def pixels(self) -> PixelFormat:
        """What images it takes, before they become values from 0 to 1."""
        return self.spec.pixels

    @property
    def size_multiple(self) -> int:
        """Both sides of the input have to be multiples of this."""
        return self.backbone.size_multiple

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the backbone's four feature maps of `images` (N, 3, H, W), values from 0 to 1."""
        return self.backbone((images - self.mean) / self.std)

    def decode(self, features: Sequence[Tensor], size: tuple[int, int] | torch.Size) -> Tensor:
        """Return logits (N, C, *size) from four feature maps."""
        return self.upsample(self.decoder(list(features)), size)

    def upsample(self, logits: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
        """Resize logits to `size` bilinearly, by the decoder's own corner convention."""
        if logits.dtype in (torch.float16, torch.bfloat16):
            # Of autocast: CUDA would go on in 16 bits, and add up gradients in them.
            logits = logits.float()
        return F.interpolate(logits, tuple(size), mode="bilinear", align_corners=self.decoder.align_corners)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, C, H, W) of images (N, 3, H, W), values from 0 to 1."""
        return self.decode(self.features(images), images.shape[2:])


def build_decoder(spec: NetworkSpec, backbone: Backbone, num_classes: int) -> DPTDecoder | FPNDecoder:
    """Build the decoder that `spec` names, at its published width unless the spec says another.

    Raises:
        ConfigError: the decoder does not fit the backbone.
    """
    kind = spec.decoder if spec.decoder != "auto" else ("dpt" if backbone.is_plain_vit else "fpn")
    if kind == "dpt":
        if not backbone.is_plain_vit:
            raise ConfigError(f"decoder dpt needs a plain ViT, and {spec.backbone} is hierarchical: use decoder: fpn")
        embed_dim = backbone.channels[0]
        # As published: 64 features for an embedding of 384, 128 for 768, 256 for 1024, 384 for 1536.
        features = spec.decoder_channels or max(embed_dim // (4 if embed_dim >= 1024 else 6), 32)
        return DPTDecoder(embed_dim, features, num_classes)
    if backbone.is_plain_vit:
        raise ConfigError(f"decoder fpn needs a hierarchical backbone, and {spec.backbone} is a ViT: use decoder: dpt")
    return FPNDecoder(backbone.channels, spec.decoder_channels or 128, num_classes)
