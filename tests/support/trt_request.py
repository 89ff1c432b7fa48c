"""What the tests of the TensorRT engines build: the tiny network, for a pretended GPU."""

from pathlib import Path
from typing import Any

import onnx
from tiny_artifact import network
from torch import nn

from segkc_deploy.cuda_probe import Gpu
from segkc_deploy.export.engines.base import BuildOptions, BuildRequest, Range
from segkc_deploy.manifest import Contract, TensorContract

SIZE = (8, 12)
GPU = Gpu("NVIDIA Pretended 4090", "8.9", "580.65.06")


def build_request(
    path: Path,
    model: onnx.ModelProto | None = None,
    precision: str = "fp32",
    size: tuple[int, int] = SIZE,
    **options: Any,
) -> BuildRequest:
    """Return the request to build `model` (the tiny network) at `path`."""
    return BuildRequest(
        model=model or network(size, -1),
        network=nn.Identity(),
        contract=Contract(
            input=TensorContract(name="images", dtype="uint8", layout="NHWC"),
            outputs=(TensorContract(name="masks", dtype="uint8", layout="NHW"),),
            size=size,
        ),
        precision=precision,
        batch=Range(1, 2, 4),
        heights=Range(size[0], size[0], size[0]),
        widths=Range(size[1], size[1], size[1]),
        path=path,
        options=BuildOptions(**options),
    )
