"""Run a graph as its types say it, in float32 and rounded: the way to judge one where there is no hardware for it.

ONNX Runtime has no BF16 kernels for a CPU. It takes FP16 graphs, but runs neighboring operators in float32 without
rounding between them, so an overflow that a GPU would turn into NaN never shows. Here every 16-bit tensor is rounded to
its format as it is computed, overflow to infinity and lost digits included, while sums are taken in float32, as tensor
cores take them.
"""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import NodeProto, TensorProto, helper, numpy_helper

from segkc_deploy.export.layer_precision import MOVES, element_types

_LOG_ERRORS_ONLY = 3

_LOW = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})


def emulate(model: onnx.ModelProto, outputs: Sequence[str] = ()) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Return a function from images, uint8 (n, H, W, 3), to tensors of `model`; 16-bit ones come as float32.

    ONNX Runtime's own treatment of quantized graphs is kept out: it rounds biases, computes in 8-bit kernels of its
    own, and of FP8 it makes invalid graphs (QLinearConv) or wrong ones (a Relu before a QuantizeLinear is lost).

    Args:
        model: a graph in any precision.
        outputs: names of tensors; the graph's own outputs if empty.
    """
    exposed = emulated(model)
    if outputs:
        del exposed.graph.output[:]
        exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _LOG_ERRORS_ONLY
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    # The Relu is lost all the same at any higher level.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(exposed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0].name

    def run(images: np.ndarray) -> list[np.ndarray]:
        values: list[np.ndarray] = session.run(None, {source: images})
        return values

    return run


def emulated(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a float32 graph that gives what `model` gives, its FP16 and BF16 tensors rounded to their formats.

    Names of tensors, inputs and outputs stay; each 16-bit tensor is float32 there and holds rounded values.

    Args:
        model: a graph with FP16 or BF16 inside; its inputs and outputs are of other types.
    """
    low = {name: kind for name, kind in element_types(model).items() if kind in _LOW}
    ends = [*model.graph.input, *model.graph.output]
    assert not any(value.name in low for value in ends), "16-bit inputs and outputs have no float32 stand-in"
    result = onnx.ModelProto()
    result.CopyFrom(model)
    if not low:
        return result
    graph = result.graph
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    for node in model.graph.node:
        graph.node.extend(_rounding(node, low))
    graph.initializer.extend(
        _widened(weights) if weights.name in low else weights for weights in model.graph.initializer
    )
    for value in model.graph.value_info:
        copy = graph.value_info.add()
        copy.CopyFrom(value)
        if value.name in low:
            copy.type.tensor_type.elem_type = TensorProto.FLOAT
    return result


def _rounding(node: NodeProto, low: dict[str, int]) -> list[NodeProto]:
    """Return `node` and what rounds its 16-bit outputs; a conversion to float32 changes nothing any more."""
    if node.op_type == "Cast":
        if node.output[0] in low:
            return _rounded(node.input[0], node.output[0], low[node.output[0]])
        return [helper.make_node("Identity", node.input, node.output)] if node.input[0] in low else [node]
    if node.op_type in MOVES or not any(name in low for name in node.output):
        return [node]
    exact = NodeProto()
    exact.CopyFrom(node)
    exact.output[:] = [f"{name}/exact" if name in low else name for name in node.output]
    rounded = (_rounded(f"{name}/exact", name, low[name]) for name in node.output if name in low)
    return [exact, *(part for parts in rounded for part in parts)]


def _rounded(source: str, name: str, kind: int) -> list[NodeProto]:
    return [
        helper.make_node("Cast", [source], [f"{name}/stored"], to=kind),
        helper.make_node("Cast", [f"{name}/stored"], [name], to=TensorProto.FLOAT),
    ]


def _widened(weights: TensorProto) -> TensorProto:
    return numpy_helper.from_array(numpy_helper.to_array(weights).astype("float32"), weights.name)
