"""A real ONNX artifact of a few hundred bytes, whose masks NumPy can compute without it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

from segkc_deploy.labels import Labels
from segkc_deploy.manifest import (
    Contract,
    Manifest,
    Normalization,
    Source,
    TensorContract,
    manifest_path,
    sha256_of,
    write_manifest,
)

LABELS = Labels(
    names=("dark", "red", "green", "blue"), palette=((40, 40, 40), (220, 30, 30), (30, 200, 30), (30, 30, 220))
)

#: One score per class from (R, G, B): the strongest channel wins, unless all are dark. Integers, hence exact.
WEIGHTS = np.array([[0, 0, 0], [3, -1, -1], [-1, 3, -1], [-1, -1, 3]])
BIAS = np.array([200, 0, 0, 0])


OUTPUTS = {
    "masks": TensorContract(name="masks", dtype="uint8", layout="NHW"),
    "confidence": TensorContract(name="confidence", dtype="float32", layout="NHW"),
    "logits": TensorContract(name="logits", dtype="float32", layout="NHWC"),
}


def expected_scores(image: np.ndarray) -> np.ndarray:
    """Return the (H, W, C) scores of an image at the network's input size, in integers."""
    scores: np.ndarray = image.astype(np.int64) @ WEIGHTS.T + BIAS
    return scores


def expected_mask(image: np.ndarray) -> np.ndarray:
    """Return the mask of an image at the network's input size, computed in integers."""
    return expected_scores(image).argmax(axis=-1).astype(np.uint8)


def make_artifact(folder: Path, name: str = "tiny.onnx", **changes: Any) -> Path:
    """Write an artifact and its manifest; `changes` are those of `manifest_of`."""
    size, batch, outputs = changes.get("size", (8, 12)), changes.get("batch", -1), changes.get("outputs", ("masks",))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(network(None if "size_multiple" in changes else size, batch, outputs).SerializeToString())
    write_manifest(path, manifest_of(path, **changes))
    return path


def manifest_of(path: Path, **changes: Any) -> Manifest:
    """Return the manifest that fits the file at `path`.

    `changes` are fields of the manifest or of its contract, or `outputs`, the outputs' names.
    """
    outputs = changes.pop("outputs", ("masks",))
    contract: dict[str, Any] = {
        "input": TensorContract(name="images", dtype="uint8", layout="NHWC"),
        "outputs": tuple(OUTPUTS[name] for name in outputs),
        "size": (8, 12),
    }
    contract |= {name: changes.pop(name) for name in Contract.model_fields if name in changes}
    size = contract["size"]
    fields: dict[str, Any] = {
        "artifact": path.name,
        "sha256": sha256_of(path),
        "bytes": path.stat().st_size,
        "engine": "onnx",
        "precision": "fp32",
        "contract": Contract(**contract),
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


def edit_manifest(artifact: Path, **changes: Any) -> None:
    """Change fields of the stored manifest, whatever they then say; it gets no new digest, like an old one."""
    path = manifest_path(artifact)
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if key != "digest"}))


def network(size: tuple[int, int] | None, batch: int, outputs: Sequence[str] = ("masks",)) -> onnx.ModelProto:
    """Return the network: uint8 (N, H, W, 3) `images` through one 1x1 convolution to `outputs`.

    `logits` are at the input's own resolution. Height and width are free without a `size`.
    """
    shape: list[str | int] = ["N" if batch < 0 else batch, *(size or ("H", "W"))]
    nodes = [
        helper.make_node("Cast", ["images"], ["float_images"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float_images"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "weights", "bias"], ["scores"]),
    ]
    endings = {
        "masks": [
            helper.make_node("ArgMax", ["scores"], ["classes"], axis=1, keepdims=0),
            helper.make_node("Cast", ["classes"], ["masks"], to=TensorProto.UINT8),
        ],
        "confidence": [
            helper.make_node("Softmax", ["scores"], ["shares"], axis=1),
            helper.make_node("ReduceMax", ["shares"], ["confidence"], axes=[1], keepdims=0),
        ],
        "logits": [helper.make_node("Transpose", ["scores"], ["logits"], perm=[0, 2, 3, 1])],
    }
    types = {"masks": TensorProto.UINT8, "confidence": TensorProto.FLOAT, "logits": TensorProto.FLOAT}
    graph = helper.make_graph(
        nodes + [node for name in outputs for node in endings[name]],
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, [*shape, 3])],
        [
            helper.make_tensor_value_info(name, types[name], [*shape, len(BIAS)] if name == "logits" else shape)
            for name in outputs
        ],
        [
            numpy_helper.from_array(WEIGHTS.astype(np.float32)[:, :, None, None], "weights"),
            numpy_helper.from_array(BIAS.astype(np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def write_val_images(root: Path, count: int = 3, size: tuple[int, int] = (16, 24)) -> Path:
    """Write validation images, whose truth is not quite what the artifact says, and return their data spec."""
    rng = np.random.default_rng(5)
    for index in range(count):
        image = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
        truth = expected_mask(image)
        truth[: 2 * index + 1] = 3
        for name, content in (("images", image[..., ::-1]), ("masks", truth)):
            (root / name).mkdir(exist_ok=True)
            cv2.imwrite(str(root / name / f"{index}.png"), content)
    spec = {"layout": "folders", "root": ".", "classes": list(LABELS.names)}
    path = root / "data.yaml"
    path.write_text(yaml.safe_dump(spec | {"val": {"images": "images", "masks": "masks"}}))
    return path
