"""FLOPs: two per multiply-add, against counts by hand and against those that are published."""

import pytest
import timm
import torch
from torch import Tensor, nn

from segkc_deploy.export.torch_runner import count_flops


class OfImages(nn.Module):
    """Gives uint8 (N, H, W, 3) images to a network of planes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        planes = images.float().permute(0, 3, 1, 2)
        result: Tensor = self.network(planes)
        return result


class Mixed(nn.Module):
    """A strided and a grouped convolution, attention, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.grouped = nn.Conv2d(16, 32, 3, padding=1, groups=4)
        self.last = nn.Linear(32, 7)

    def forward(self, planes: Tensor) -> Tensor:
        tokens = self.grouped(self.patches(planes)).flatten(2).transpose(1, 2)
        heads = tokens.unflatten(2, (4, 8)).transpose(1, 2)
        attended = nn.functional.scaled_dot_product_attention(heads, heads, heads)
        result: Tensor = self.last(attended.transpose(1, 2).flatten(2))
        return result


def test_each_kind_of_layer_by_its_formula() -> None:
    height, width = 32, 48
    tokens = (height // 4) * (width // 4)
    multiply_adds = tokens * 16 * 3 * 4 * 4  # each output reads a patch of all channels
    multiply_adds += tokens * 32 * (16 // 4) * 3 * 3  # and here a fourth of the channels
    multiply_adds += 4 * tokens * tokens * 8 * 2  # queries with keys, and their weights with values
    multiply_adds += tokens * 32 * 7
    assert count_flops(OfImages(Mixed()).eval(), (height, width)) == 2 * multiply_adds


@pytest.mark.parametrize(
    ("name", "size", "published_gmacs", "share"),
    # timm's tables of results and, with one digit after the point, its model cards.
    [
        ("resnet18", 224, 1.82, 0.01),
        ("resnet50", 224, 4.11, 0.01),
        ("vit_small_patch14_dinov2", 518, 46.76, 0.01),
        ("mobilenetv4_conv_medium", 256, 1.1, 0.05 / 1.1),
    ],
)
def test_known_networks_have_their_published_multiply_adds(
    name: str, size: int, published_gmacs: float, share: float
) -> None:
    with torch.device("meta"):
        network = OfImages(timm.create_model(name)).eval()
    assert count_flops(network, (size, size)) / 2e9 == pytest.approx(published_gmacs, rel=share)
