"""Which nodes are kept in FP32 when a graph is converted to 16 bits, and why."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from segkc_deploy.export.precision.formats import Format
from segkc_deploy.export.precision.ranges import PRODUCTS, Ranges

#: A node is kept in FP32 if a value comes closer than this factor to the format's largest number: images outside the
#: calibration set can give larger values.
MARGIN = 4.0
#: Weights that change by more than this, relative to their norm, are kept in FP32. Rounding alone changes them by 0.02%
#: in FP16 and by 0.2% in BF16; weights below the format's smallest normal number lose more.
MAX_WEIGHT_ERROR = 0.01

_SQUARES = "sums squares over many values"
_EXPONENTIALS = "sums exponentials"
#: Operators that stay in float32 in any network.
_ALWAYS = {
    "LayerNormalization": _SQUARES,
    "InstanceNormalization": _SQUARES,
    "GroupNormalization": _SQUARES,
    "RMSNormalization": _SQUARES,
    "ReduceL2": _SQUARES,
    "ReduceSumSquare": _SQUARES,
    "Softmax": _EXPONENTIALS,
    "LogSoftmax": _EXPONENTIALS,
    "ReduceLogSumExp": _EXPONENTIALS,
    "Exp": _EXPONENTIALS,
}
#: Operators that an engine cannot build in a format.
_NOT_BUILT = {("bf16", "ConvTranspose"): "TensorRT builds no ConvTranspose in BF16"}

_BETWEEN = "stands between float32 layers: casting costs more than it saves"
#: Reasons that count only where the types in the graph are what runs. Engines that choose types themselves sum squares
#: and exponentials in FP32 anyway.
TYPED_ENGINES_ONLY = frozenset({_BETWEEN, _SQUARES, _EXPONENTIALS, *_NOT_BUILT.values()})

#: In a format with no more binary digits than a pixel has, the layers that read pixels or give logits stay in FP32:
#: normalized pixels would be wrong by up to half a step of their 256, and logits of neighboring classes would tie. On a
#: compact convolutional network the first cost half of all the pixels that changed class in BF16; on a vision
#: transformer the second did. Both layers are small.
_FEW_DIGITS = 8

#: Operators that read nothing of a tensor but its shape, and take any element type.
SHAPES = frozenset({"Shape", "Size"})
#: Operators whose constant is added to other values, by its index: its own lost digits do not count beside them.
_ADDED = {"Conv": (2,), "ConvTranspose": (2,), "Gemm": (2,), "Add": (0, 1), "Sub": (0, 1)}


class FP32Fallback:
    """Finds the nodes of a float32 graph that fall back to FP32.

    Args:
        model: the graph, without fused attention.
        target: the 16-bit format of everything else.
        ranges: how large the graph's values grow on real images.
    """

    def __init__(self, model: onnx.ModelProto, target: Format, ranges: Ranges) -> None:
        self._graph = model.graph
        self._target = target
        self._ranges = ranges
        self._activations = ranges.peaks.keys()
        self._opset = opset_of(model)
        self._weights = {
            tensor.name: numpy_helper.to_array(tensor)
            for tensor in model.graph.initializer
            if tensor.data_type == TensorProto.FLOAT
        }
        self._constants = self._from_weights()
        images = {value.name for value in model.graph.input}
        numbers = {name for node in model.graph.node if self._from_integers(node) for name in node.output}
        self._pixels = self._computed_from(images)
        self._positions = self._computed_from(numbers - self._pixels)
        self._last = self._last_layers()

    def reasons(self) -> dict[str, str]:
        """Return the nodes that are kept in FP32: the name of the first output, and the reason."""
        computing = [node for node in self._graph.node if node.op_type not in SHAPES and self._floats(node)]
        found = {node.output[0]: reason for node in computing if (reason := self._reason(node))}
        low = [node for node in computing if node.output[0] not in found]
        return found | {node.output[0]: _BETWEEN for node in _without_product(low)}

    def _floats(self, node: NodeProto) -> bool:
        return any(name in self._activations or name in self._weights for name in [*node.input, *node.output])

    def _reason(self, node: NodeProto) -> str | None:
        if node.output[0] in self._pixels:
            return "normalizes the pixels"
        if node.output[0] in self._positions:
            return "computes positions from the image's size"
        if not self._target.computes(node, self._opset):
            return f"cannot compute in {self._target.name}"
        if node.op_type in _ALWAYS:
            return _ALWAYS[node.op_type]
        if (self._target.name, node.op_type) in _NOT_BUILT:
            return _NOT_BUILT[self._target.name, node.op_type]
        if self._target.digits <= _FEW_DIGITS:
            if self._pixels.intersection(node.input):
                return f"reads pixels, which have as many digits as {self._target.name} has"
            if node.output[0] in self._last:
                return f"gives the logits, which would tie in {self._target.name}"
        return next(self._numeric_reasons(node), None)

    def _computed_from(self, sources: set[str]) -> set[str]:
        """Return what is computed from `sources` and constants alone, ahead of any product."""
        found = set(sources)
        varying = self._activations - self._constants
        for node in self._graph.node:
            read = [name for name in node.input if name in varying or name in found]
            if node.op_type not in PRODUCTS | SHAPES and read and found.issuperset(read):
                found.update(node.output)
        return found

    def _from_weights(self) -> set[str]:
        """Return what is computed from weights alone, such as a token repeated for each image of a batch."""
        found: set[str] = set()
        for node in self._graph.node:
            read = [name for name in node.input if name in self._activations or name in self._weights]
            if read and all(name in self._weights or name in found for name in read):
                found.update(node.output)
        return found

    def _from_integers(self, node: NodeProto) -> bool:
        """Return whether `node` makes floating-point numbers out of integers, such as the image's size."""
        reads_floats = any(name in self._activations or name in self._weights for name in node.input)
        return not reads_floats and any(name in self._activations for name in node.output)

    def _last_layers(self) -> set[str]:
        """Return the outputs of the products that give the graph's outputs, and of what stands behind these."""
        last = {value.name for value in self._graph.output}
        for node in reversed(self._graph.node):
            if last.intersection(node.output):
                last.update(node.output)
                if node.op_type not in PRODUCTS:
                    last.update(node.input)
        return last

    def _numeric_reasons(self, node: NodeProto) -> Iterator[str]:
        name, end = self._target.name, f"{self._target.name} ends at {self._target.largest:.3g}"
        limit = self._target.largest / MARGIN
        for index, source in enumerate(node.input):
            if source in self._weights:
                yield from self._weight_reasons(source, added=index in _ADDED.get(node.op_type, ()))
        for tensor in [*node.input, *node.output]:
            peak = self._ranges.peaks.get(tensor, 0.0)
            if peak > limit:
                yield f"{tensor} reaches {peak:.3g} on the calibration images; {end}"
            elif 0 < peak < self._target.smallest_normal:
                yield f"{tensor} stays below {peak:.1e} on the calibration images, where {name} loses digits"
        if (total := self._ranges.sums.get(node.output[0], 0.0)) > limit:
            yield f"sums terms of {total:.3g} in all on the calibration images; {end}"

    def _weight_reasons(self, name: str, added: bool) -> Iterator[str]:
        weights = self._weights[name]
        peak = float(np.abs(weights).max(initial=0.0))
        if not peak <= self._target.largest:
            yield f"{name} reaches {peak:.3g}; {self._target.name} ends at {self._target.largest:.3g}"
        elif not added and (error := self._target.rounding_error(weights)) > MAX_WEIGHT_ERROR:
            yield f"{name} would change by {error:.1%} in {self._target.name}"


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators that `model` uses."""
    return next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _without_product(low: list[NodeProto]) -> list[NodeProto]:
    """Return the nodes of `low` that pass no data to or from a product of `low`, be it through others of `low`."""
    touching = defaultdict(list)
    computed = {name for node in low for name in node.output}
    for node in low:
        for name in computed.intersection([*node.input, *node.output]):
            touching[name].append(node)
    frontier = [node for node in low if node.op_type in PRODUCTS]
    reached = {node.output[0] for node in frontier}
    while frontier:
        node = frontier.pop()
        for name in computed.intersection([*node.input, *node.output]):
            found = [other for other in touching[name] if other.output[0] not in reached]
            reached.update(other.output[0] for other in found)
            frontier.extend(found)
    return [node for node in low if node.output[0] not in reached]
