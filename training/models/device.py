"""The device that PyTorch runs a network on."""

import torch

from segkc_deploy.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """Return the device for `auto` (CUDA where PyTorch sees it, else the CPU), `cpu` or `cuda`.

    Raises:
        ConfigError: there is no such device, or PyTorch has none of this name.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {name}: it is for artifacts; PyTorch runs on auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: torch sees no CUDA device; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
