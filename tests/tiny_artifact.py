"""A real ONNX artifact of a few hundred bytes, whose masks NumPy can compute without it."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from segkc_deploy.labels import Labels
from segkc_deploy.manifest import Contract, Manifest, Normalization, Source, TensorContract, sha256_of, write_manifest

LABELS = Labels(
    names=("dark", "red", "green", "blue"), palette=((40, 40, 40), (220, 30, 30), (30, 200, 30), (30, 30, 220))
)

#: One score per class from (R, G, B): the strongest channel wins, unless all are dark. Integers, hence exact.
WEIGHTS = np.array([[0, 0, 0], [3, -1, -1], [-1, 3, -1], [-1, -1, 3]])
BIAS = np.array([200, 0, 0, 0])


def expected_mask(image: np.ndarray) -> np.ndarray:
    """Return the mask of an image at the network's input size, computed in integers."""
    scores = image.astype(np.int64) @ WEIGHTS.T + BIAS
    return scores.argmax(axis=-1).astype(np.uint8)


def make_artifact(folder: Path, name: str = "tiny.onnx", **changes: Any) -> Path:
    """Write an artifact and its manifest; `changes` are `size`, `batch`, or fields of the manifest."""
    size, batch = changes.pop("size", (8, 12)), changes.pop("batch", -1)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(network(size, batch).SerializeToString())
    write_manifest(path, manifest_of(path, size, batch, **changes))
    return path


def manifest_of(path: Path, size: tuple[int, int] = (8, 12), batch: int = -1, **changes: Any) -> Manifest:
    """Return the manifest that fits the file at `path`, with `changes` to its fields."""
    fields: dict[str, Any] = {
        "artifact": path.name,
        "sha256": sha256_of(path),
        "bytes": path.stat().st_size,
        "engine": "onnx",
        "precision": "fp32",
        "contract": Contract(
            input=TensorContract(name="images", dtype="uint8", layout="NHWC"),
            outputs=(TensorContract(name="masks", dtype="uint8", layout="NHW"),),
            size=size,
            batch=batch,
        ),
        "labels": LABELS,
        "normalization": Normalization(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        "parameters": WEIGHTS.size + BIAS.size,
        "flops": 2 * WEIGHTS.size * size[0] * size[1],
        "source": Source(
            run="runs/tiny",
            weights_sha256="0" * 64,
            recipe="tiny",
            method="none",
            step=0,
            backbone="none",
            decoder="none",
        ),
    }
    return Manifest(**(fields | changes))


def network(size: tuple[int, int], batch: int) -> onnx.ModelProto:
    """Return the network: uint8 (N, H, W, 3) `images` to uint8 (N, H, W) `masks` through one 1x1 convolution."""
    count = "N" if batch < 0 else batch
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["float_images"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["float_images"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["planes", "weights", "bias"], ["logits"]),
            helper.make_node("ArgMax", ["logits"], ["classes"], axis=1, keepdims=0),
            helper.make_node("Cast", ["classes"], ["masks"], to=TensorProto.UINT8),
        ],
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, [count, *size, 3])],
        [helper.make_tensor_value_info("masks", TensorProto.UINT8, [count, *size])],
        [
            numpy_helper.from_array(WEIGHTS.astype(np.float32)[:, :, None, None], "weights"),
            numpy_helper.from_array(BIAS.astype(np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    return model
