"""Whether OpenVINO multiplies 8-bit numbers exactly on this CPU."""

import functools
from types import ModuleType
from typing import Any

import numpy as np

_CHANNELS = 64
_LARGEST = 127
#: Saturated, the results below are a hundredth of what they should be.
_TOLERANCE = 0.1


def has_8_bit_constants(model: Any) -> bool:
    """Return whether an OpenVINO model holds weights of 8 bits."""
    return any(
        operation.get_type_name() == "Constant" and operation.get_element_type().get_type_name() == "i8"
        for operation in model.get_ops()
    )


@functools.cache
def multiplies_8_bits_exactly(openvino: ModuleType) -> bool:
    """Return whether this CPU's 8-bit products are those of the graph, measured by two small layers.

    x86 CPUs without VNNI add pairs of products in 16 bits, where they saturate. That changes masks, and is no or
    hardly any faster than FP32.
    """
    numbers = np.full((1, _CHANNELS, 4, 4), _LARGEST, np.float32)
    model = _layers(openvino)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    exact = _CHANNELS * _LARGEST**2
    return all(np.allclose(result, exact, rtol=_TOLERANCE) for result in compiled(numbers).values())


def _layers(openvino: ModuleType) -> Any:
    """Return a model that multiplies rounded numbers (1, channels, 4, 4) by the largest weights, convolved and not."""
    ops = openvino.opset13
    weights = np.full((_CHANNELS, _CHANNELS), _LARGEST, np.int8)
    numbers = ops.parameter([1, _CHANNELS, 4, 4], np.float32)
    low, high = (np.float32(bound) for bound in (-_LARGEST, _LARGEST))

    def rounded(values: Any) -> Any:
        return ops.fake_quantize(values, low, high, low, high, levels=2 * _LARGEST + 1)

    def weight(values: np.ndarray) -> Any:
        return ops.multiply(ops.convert(ops.constant(values), "f32"), np.float32(1))

    kernel = weight(weights[:, :, None, None])
    convolved = ops.convolution(rounded(numbers), kernel, [1, 1], [0, 0], [0, 0], [1, 1])
    rows = ops.reshape(ops.transpose(numbers, np.array([0, 2, 3, 1])), np.array([1, 16, _CHANNELS]), False)
    multiplied = ops.matmul(rounded(rows), weight(weights), False, True)
    return openvino.Model([convolved, multiplied], [numbers])
