"""How large a network's values grow on real images: every activation, and every sum on the way to one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx import NodeProto, TensorProto, helper

#: Operators that add products up.
PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

#: Names of the probes end so; no exporter's names do.
_MAGNITUDE, _TERMS, _PEAK, _SUM = "/magnitude", "/terms", "/peak", "/sum"


@dataclass(frozen=True)
class Ranges:
    """Largest magnitudes seen on calibration images; infinite where a value was not finite.

    Attributes:
        peaks: of each float32 activation, by its name.
        sums: of the outputs of products, convolutions and averages, by their names: the sum of the terms' magnitudes,
            which no partial sum exceeds, in whatever order and blocks a GPU adds them up.
    """

    peaks: dict[str, float]
    sums: dict[str, float]


def float_activations(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """Return name and shape of every float32 tensor that a node of `model` computes."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*graph.value_info, *graph.output]
    return {value.name: value for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}


def measure_ranges(model: onnx.ModelProto, batches: Sequence[np.ndarray]) -> Ranges:
    """Run the float32 graph on `batches`, image by image, and return how large its values grow.

    The maxima are taken inside the graph, so memory stays near that of a plain run.

    Args:
        model: float32 graph with one input, uint8 (N, H, W, 3) images.
        batches: uint8 arrays (n, H, W, 3) of real images.
    """
    infer = _session(_probed(model))
    largest: dict[str, float] = {}
    for image in (batch[index : index + 1] for batch in batches for index in range(len(batch))):
        for name, value in infer(image).items():
            largest[name] = max(largest.get(name, 0.0), value)
    assert largest, "there must be images to calibrate with"
    return Ranges(
        {name.removesuffix(_PEAK): value for name, value in largest.items() if name.endswith(_PEAK)},
        {name.removesuffix(_SUM): value for name, value in largest.items() if name.endswith(_SUM)},
    )


def _session(model: onnx.ModelProto) -> Callable[[np.ndarray], dict[str, float]]:
    """Return a function from an image to the scalars that `model` gives for it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # In the default order a maximum may wait until the graph's end, and its tensor with it: three times the memory.
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    source = session.get_inputs()[0].name

    def infer(image: np.ndarray) -> dict[str, float]:
        values = zip(names, session.run(names, {source: image}), strict=True)
        return {name: float(value) if np.isfinite(value) else np.inf for name, value in values}

    return infer


def _probed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return `model` with the magnitudes of its activations and sums as its only outputs, each a scalar."""
    activations = float_activations(model)
    nodes: list[NodeProto] = []
    magnitudes: set[str] = set()
    outputs: list[str] = []

    def magnitude(name: str) -> str:
        if name not in magnitudes:
            magnitudes.add(name)
            nodes.append(helper.make_node("Abs", [name], [name + _MAGNITUDE]))
        return name + _MAGNITUDE

    def probe(values: str, output: str) -> None:
        nodes.append(helper.make_node("ReduceMax", [values], [output], keepdims=0))
        outputs.append(output)

    for node in model.graph.node:
        nodes.append(node)
        for name in activations.keys() & set(node.output):
            probe(magnitude(name), name + _PEAK)
        if (terms := _sum_of_terms(node, magnitude)) is not None:
            nodes.extend(terms)
            probe(terms[-1].output[0], node.output[0] + _SUM)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in outputs]
    graph = helper.make_graph(nodes, "ranges", model.graph.input, values, model.graph.initializer)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _sum_of_terms(node: NodeProto, magnitude: Callable[[str], str]) -> list[NodeProto] | None:
    """Return nodes that add up the magnitudes of the terms in a sum that `node` takes; None if it takes none."""
    terms = node.output[0] + _TERMS
    if node.op_type in PRODUCTS:
        same = NodeProto()
        same.CopyFrom(node)
        same.name = ""
        same.input[:] = [magnitude(name) if name else "" for name in node.input]
        same.output[:] = [terms]
        return [same]
    if node.op_type in ("ReduceMean", "ReduceSum"):
        attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        return [helper.make_node("ReduceSum", [magnitude(node.input[0]), *node.input[1:]], [terms], **attributes)]
    if node.op_type == "GlobalAveragePool":
        axes = helper.make_node("Constant", [], [terms + "/axes"], value_ints=[2, 3])
        return [axes, helper.make_node("ReduceSum", [magnitude(node.input[0]), axes.output[0]], [terms])]
    return None
