"""Mixed precision written into the ONNX graph: FP16 or BF16, and float32 where real images show that it is needed.

This project has a caster of its own because existing tools do not fit: onnxconverter-common knows only FP16, clamps
weights to 1e-7 to 1e4 and puts a cast at every input of an FP32 node; ModelOpt's AutoCast pins an older ONNX, fetches
every activation to see its range, and decides about sums by their length instead of their size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx

from segkc_deploy.export.layer_precision import MOVES
from segkc_deploy.export.precision.attention import decompose_attention
from segkc_deploy.export.precision.casting import cast_graph
from segkc_deploy.export.precision.formats import FORMATS
from segkc_deploy.export.precision.fp32_fallback import FP32Fallback
from segkc_deploy.export.precision.ranges import measure_ranges
from segkc_deploy.manifest import FallbackNode


@dataclass(frozen=True)
class MixedPrecision:
    """A graph in mixed precision and its operators that stay in float32, with the reasons."""

    model: onnx.ModelProto
    fallbacks: tuple[FallbackNode, ...]


def to_mixed_precision(
    model: onnx.ModelProto, precision: Literal["fp16", "bf16"], batches: Sequence[np.ndarray]
) -> MixedPrecision:
    """Return `model` computing in FP16 or BF16, with the same inputs and outputs.

    Attention is taken apart, so that its scores are seen and its softmax stays in float32. Normalization layers and
    that of the pixels stay there too, and every node with a value, weight or sum that comes near the format's end on
    the images (`fp32_fallback.MARGIN`), or that lies below what the format can tell from zero.

    Args:
        model: float32 base graph, uint8 (N, H, W, 3) images to float32 logits.
        precision: the 16-bit format.
        batches: uint8 arrays (n, H, W, 3) of real images; a dozen images show a network's range. For BF16, which
            has the range of float32, one image is enough.
    """
    target = FORMATS[precision]
    model = decompose_attention(model)
    reasons = FP32Fallback(model, target, measure_ranges(model, batches)).reasons()
    mixed = cast_graph(model, target, reasons)
    onnx.checker.check_model(mixed, full_check=True)
    fallbacks = (
        FallbackNode(name=node.name or node.output[0], op_type=node.op_type, precision="fp32", reason=reason)
        for node in model.graph.node
        if node.op_type not in MOVES and (reason := reasons.get(node.output[0]))
    )
    return MixedPrecision(mixed, tuple(fallbacks))
