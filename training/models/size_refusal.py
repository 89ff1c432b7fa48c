"""Whether a network takes images of a size: windows of some of timm's fit few sizes alone.

Such a network only says so when it runs, so it is run once, in evaluation mode and without gradients. On the device
`meta` that computes shapes and no values, which costs less than a second whatever the size.
"""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from segkc_deploy.training.models.segmenter import Segmenter


def size_refusal(network: Segmenter, size: tuple[int, int]) -> str | None:
    """Return why a network cannot take images of a (height, width), in one line, or None where it can.

    Both sides have to be multiples of `network.size_multiple`. The network is left in evaluation mode.
    """
    images = torch.zeros(1, network.pixels.bands, *size, device="meta")
    state = {name: tensor.to("meta") for name, tensor in (*network.named_parameters(), *network.named_buffers())}
    network.eval()
    try:
        with torch.no_grad():
            functional_call(network, state, (images,))
    except (AssertionError, RuntimeError, TypeError, ValueError):
        # Some networks do what `meta` cannot, such as looking at values; only a real run tells.
        return _real_refusal(network, size)
    return None


def takes_every_multiple(network: Segmenter, size: tuple[int, int]) -> bool:
    """Return whether a network that takes a (height, width) takes every other size too, as nearly all do."""
    return size_refusal(network, (size[0] + network.size_multiple, size[1] + network.size_multiple)) is None


def normalizes_single_values(network: Segmenter, size: tuple[int, int]) -> bool:
    """Return whether one image of a (height, width) leaves a batch normalization one value per channel.

    A variance cannot be taken from it, so PyTorch refuses to train on such a batch. The network has to take the size,
    and is left in evaluation mode.
    """
    single: list[bool] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        single.append(inputs[0].numel() == inputs[0].shape[1])

    layers = [layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    handles = [layer.register_forward_pre_hook(look) for layer in layers]
    size_refusal(network, size)
    for handle in handles:
        handle.remove()
    return any(single)


def size_in_words(size: tuple[int, int]) -> str:
    """Return a size as messages state it."""
    return f"{size[0]}x{size[1]} (height x width)"


def _real_refusal(network: Segmenter, size: tuple[int, int]) -> str | None:
    try:
        with torch.inference_mode():
            network(torch.zeros(1, network.pixels.bands, *size, device=next(network.parameters()).device))
    except (RuntimeError, AssertionError, ValueError) as error:
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return None
