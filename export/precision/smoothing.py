"""Normalized activations without outliers, whose excess goes into the weights that read them.

SmoothQuant (Xiao et al. 2023, arXiv 2211.10438). One scale holds for all channels of an activation, and in vision
transformers a few channels after a LayerNormalization are far larger than the others, which then have few levels left.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from segkc_deploy.export.precision.emulation import emulate
from segkc_deploy.export.precision.qdq import Layer
from segkc_deploy.progress import track

#: How much of the difference goes into the weights: the paper's α, its value for most networks.
_STRENGTH = 0.5


def smooth(model: onnx.ModelProto, layers: Sequence[Layer], images: Sequence[np.ndarray]) -> onnx.ModelProto | None:
    """Return a copy of `model` that computes the same from smoother activations; None where none can be smoothed.

    Channel j of an activation X is divided by s_j = max|X_j|^α / max|W_j|^(1 - α) (the paper's equation 4), in the
    LayerNormalization's own scale and bias, and row j of the weights W that read it is multiplied by s_j. A
    normalization stays as it is if anything but products with weights reads it, or if it is not over the last axis. A
    smoothed activation `x` is named `x/smoothed`.

    Args:
        model: FP32 graph.
        layers: those that will be quantized.
        images: uint8 (1, H, W, 3) each, from which the channels' largest values are taken.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    readers = _smoothable(model, layers, constants)
    if not readers:
        return None
    peaks = _channel_peaks(model, list(readers), images)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    nodes = {name: node for node in result.graph.node for name in node.output}
    for activation, users in readers.items():
        weights = [np.moveaxis(constants[layer.weight], 1 - layer.axis, 0) for layer in users]
        largest = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
        factors = _factors(peaks[activation], largest)
        norm = nodes[activation]
        for index in range(1, len(norm.input)):
            norm.input[index] = _add(result, f"{activation}/{index}", constants[norm.input[index]] / factors)
        norm.output[0] = f"{activation}/smoothed"
        for layer in users:
            node = nodes[layer.output]
            node.input[0] = norm.output[0]
            weight = constants[layer.weight]
            columns = factors[:, None] if layer.axis == 1 else factors
            node.input[1] = _add(result, f"{layer.output}/smoothed_weight", weight * columns)
    read = {name for node in result.graph.node for name in node.input}
    kept = [tensor for tensor in result.graph.initializer if tensor.name in read]
    del result.graph.initializer[:]
    result.graph.initializer.extend(kept)
    return result


def _smoothable(
    model: onnx.ModelProto, layers: Sequence[Layer], constants: Mapping[str, np.ndarray]
) -> dict[str, list[Layer]]:
    """Return the outputs of normalizations that nothing but products with weights reads, with these products."""
    products = {layer.output: layer for layer in layers if layer.op_type in ("MatMul", "Gemm")}
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    ends = {value.name for value in model.graph.output}
    found: dict[str, list[Layer]] = {}
    for node in model.graph.node:
        output = node.output[0]
        users = readers.get(output, [])
        if (
            node.op_type == "LayerNormalization"
            and _over_the_last_axis(node)
            and all(name in constants for name in node.input[1:])
            and output not in ends
            and users
            and all(user.output[0] in products and user.input[0] == output for user in users)
        ):
            found[output] = [products[user.output[0]] for user in users]
    return found


def _over_the_last_axis(node: NodeProto) -> bool:
    return all(helper.get_attribute_value(one) == -1 for one in node.attribute if one.name == "axis")


def _channel_peaks(
    model: onnx.ModelProto, activations: Sequence[str], images: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the largest absolute value of each channel, the last axis, float32 (channels,)."""
    run = emulate(model, activations)
    peaks: dict[str, np.ndarray] = {}
    for image in track(images, "looking for outlier channels"):
        for name, values in zip(activations, run(image), strict=True):
            largest = np.abs(values).reshape(-1, values.shape[-1]).max(axis=0)
            peaks[name] = np.maximum(peaks.get(name, largest), largest)
    return peaks


def _factors(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return float32 (channels,): what each channel is divided by; 1 for a channel that is zero everywhere."""
    used = (activations > 0) & (weights > 0)
    safe = np.where(used, activations, 1) ** _STRENGTH / np.where(used, weights, 1) ** (1 - _STRENGTH)
    return np.where(used, safe, 1).astype(np.float32)


def _add(model: onnx.ModelProto, name: str, values: np.ndarray) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name))
    return name
