"""junior → ONNX: one file, fixed height and width, any batch size, what the artifact is in its metadata."""

import json
import warnings
from pathlib import Path

import onnx
import onnxslim
import torch

from segkc_deploy.atomic import atomic_path
from segkc_deploy.export.deploy_graph import INPUT_NAME, OUTPUT_NAME, DeployGraph
from segkc_deploy.manifest import Manifest

#: LayerNormalization (17) and Gelu (20) are single operators, which keeps engines from taking them apart.
OPSET = 20


def export_onnx(graph: DeployGraph, size: tuple[int, int], path: Path) -> None:
    """Write `graph` for inputs of `size` (height, width) to `path`, checked and simplified."""
    images = torch.zeros(2, *size, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        # Remarks of the exporter on its own internals; the artifact is judged by what it computes.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph.eval().cpu(),
            (images,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1, max=1024)}},
            verbose=False,
        )
    assert program is not None
    model = onnxslim.slim(program.model_proto)
    onnx.checker.check_model(model, full_check=True)
    with atomic_path(path) as temporary:
        onnx.save_model(model, temporary)


def add_metadata(path: Path, manifest: Manifest) -> None:
    """Put the contract, classes, normalization and source into the ONNX file's own metadata.

    The manifest's fields that describe the file itself (hash, size, verification) are left to the manifest.
    """
    model = onnx.load(path)
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
    with atomic_path(path) as temporary:
        onnx.save_model(model, temporary)


def with_logits(path: Path) -> bytes:
    """Return the artifact's graph with one more output, `logits`: what its argmax reads."""
    model = onnx.load(path)
    (argmax,) = (node for node in model.graph.node if node.op_type == "ArgMax")
    logits = onnx.helper.make_tensor_value_info(argmax.input[0], onnx.TensorProto.FLOAT, None)
    model.graph.output.append(logits)
    return bytes(model.SerializeToString())
