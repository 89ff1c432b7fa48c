"""Run a graph as its nodes say it: quantized values are rounded, and everything is computed in floating point."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnxruntime

_LOG_ERRORS_ONLY = 3


def emulate(model: onnx.ModelProto, outputs: Sequence[str] = ()) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Return a function from images, uint8 (n, H, W, 3), to tensors of `model`.

    ONNX Runtime's own 8-bit kernels are kept out: they saturate on some CPUs, which says nothing about other engines,
    and its fusion makes invalid graphs of FP8.

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
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(exposed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0].name

    def run(images: np.ndarray) -> list[np.ndarray]:
        values: list[np.ndarray] = session.run(None, {source: images})
        return values

    return run
