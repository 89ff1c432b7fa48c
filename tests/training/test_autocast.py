"""Training in 16 bits: what autocast is given."""

from typing import Literal

import pytest
import torch
from lightning.fabric import Fabric

from segkc_deploy.training.autocast import precision_plugin


class _Given(torch.nn.Module):
    """Keeps what it was given, and computes with it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        self.given = values
        product: torch.Tensor = self.layer(values)
        self.computed_in = product.dtype
        return product


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_images_are_not_rounded_before_they_are_normalized(
    precision: Literal["fp32", "bf16"], dtype: torch.dtype
) -> None:
    fabric = Fabric(accelerator="cpu", devices=1, plugins=precision_plugin(precision, "cpu"))
    network = _Given()
    wrapped = fabric.setup(network, torch.optim.SGD(network.parameters()))[0]
    levels = torch.tensor([[10000, 10010, 10100]]) / 65535  # of a 16-bit image
    assert wrapped(levels).dtype is torch.float32
    assert network.computed_in is dtype
    torch.testing.assert_close(network.given, levels, rtol=0, atol=0)
