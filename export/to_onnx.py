"""junior → ONNX: one graph per junior and size, in FP32, from which every precision and every engine derives."""

import json
import warnings
from contextlib import nullcontext

import onnx
import onnxslim
import torch
from torch import Tensor, nn

from segkc_deploy.export.deploy_graph import INPUT_NAME, LOGITS, DeployGraph, blank_images
from segkc_deploy.export.position_embedding import free_positions
from segkc_deploy.manifest import Manifest

#: LayerNormalization (17), Gelu (20) and Attention (23) are single operators, which engines need not recognize first.
OPSET = 23

_MAX_CELLS = 1024


class _LogitsGraph(nn.Module):
    def __init__(self, graph: DeployGraph) -> None:
        super().__init__()
        self.deployed = graph  # not `graph`: torch.export's own modules have an attribute of that name

    def forward(self, images: Tensor) -> Tensor:
        return self.deployed.low_resolution_logits(images)


def base_graph(graph: DeployGraph, size: tuple[int, int], free_size: bool = False) -> onnx.ModelProto:
    """Return the junior as an ONNX graph: `images` uint8 (N, H, W, 3) to `logits` float32 (N, C, h, w).

    Args:
        graph: the network; for `free_size` one that was made without a size.
        size: (height, width) of the input.
        free_size: height and width may be any multiple of what the backbone needs; `size` is then an example.
    """
    multiple = graph.network.size_multiple
    dims: dict[int, object] = {0: torch.export.Dim("batch", min=1, max=1024)}
    if free_size:
        # Two names: with one, or with sizes that happen to be equal, height and width would come out tied.
        dims[1] = multiple * torch.export.Dim("height_cells", min=2, max=_MAX_CELLS)
        dims[2] = multiple * torch.export.Dim("width_cells", min=2, max=_MAX_CELLS)
        size = (6 * multiple, 8 * multiple)
    images = blank_images(graph, 2, size)
    with warnings.catch_warnings(), free_positions() if free_size else nullcontext():
        # Remarks of the exporter on its own internals; the artifact is judged by what it computes.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _LogitsGraph(graph).eval().cpu(),
            (images,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=[LOGITS],
            dynamic_shapes={"images": dims},
            verbose=False,
        )
    assert program is not None
    return checked(onnxslim.slim(program.model_proto))


def checked(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return `model` after the ONNX checker has found nothing to say against it."""
    onnx.checker.check_model(model, full_check=True)
    return model


def fix_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """Return a copy of `model` that takes exactly `batch` images."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del fixed.graph.value_info[:]
    return checked(onnxslim.slim(fixed))


def add_metadata(model: onnx.ModelProto, manifest: Manifest) -> None:
    """Put the contract, classes, normalization and source into the model's own metadata.

    The manifest's fields that describe the file itself (hash, size, verification) are left to the manifest.
    """
    known = manifest.model_dump(mode="json", include={"contract", "labels", "normalization", "source", "precision"})
    values = {
        "names": dict(enumerate(manifest.labels.names)),
        "palette": known["labels"]["palette"],
        "ignore_index": manifest.labels.ignore_index,
        "normalization": known["normalization"],
        "contract": known["contract"],
        "size": manifest.contract.size,
        "precision": manifest.precision,
        "source": known["source"],
        "parameters": manifest.parameters,
        "producer": "segkc-deploy",
    }
    onnx.helper.set_model_props(
        model, {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    )
