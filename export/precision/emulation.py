"""Run a graph as its nodes say it: quantized values are rounded, and everything is computed in floating point."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnxruntime

_LOG_ERRORS_ONLY = 3


def emulate(model: onnx.ModelProto, outputs: Sequence[str] = ()) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Return a function from images, uint8 (n, H, W, 3), to tensors of `model`.

    ONNX Runtime's fusions are kept out. Its 8-bit kernels saturate on some CPUs, which says nothing about other
    engines; and of FP8 they make invalid graphs (QLinearConv), or wrong ones: a Relu before a QuantizeLinear is lost.

    Args:
        model: a graph with or without quantization.
        outputs: names of tensors; the graph's own outputs if empty.
    """
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    if outputs:
        del exposed.graph.output[:]
        exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _LOG_ERRORS_ONLY
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(exposed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0].name

    def run(images: np.ndarray) -> list[np.ndarray]:
        values: list[np.ndarray] = session.run(None, {source: images})
        return values

    return run
