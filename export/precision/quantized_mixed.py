"""8-bit products in a graph whose other layers compute in 16 bits."""

import onnx

from segkc_deploy.export.precision.mixed import MixedPrecision
from segkc_deploy.export.precision.qdq import Format, Layer, find_layers, insert_qdq
from segkc_deploy.export.precision.quantize import Quantized
from segkc_deploy.manifest import FallbackNode

#: How the name of a tensor's other form ends (`casting.cast_graph`).
_FORMS = ("/fp16", "/bf16", "/fp32")


def quantize_mixed(
    mixed: MixedPrecision, quantized: Quantized, number_format: Format
) -> tuple[onnx.ModelProto, tuple[FallbackNode, ...]]:
    """Return `mixed` with the layers quantized that are so in `quantized`, and what has a higher precision, and why.

    Args:
        mixed: the graph `quantized.unquantized` in 16 bits.
        quantized: which layers were chosen, and at what values their activations are cut off.
        number_format: the 8-bit format of `quantized`.
    """
    wanted = {layer.name for layer in quantized.layers}
    layers, impossible = find_layers(mixed.model, number_format)
    chosen = [layer for layer in layers if layer.name in wanted]
    assert len(chosen) == len(wanted), "a conversion to 16 bits keeps every layer"
    largest = {layer.activation: _largest(layer, quantized) for layer in chosen}
    precisions = {layer.name: layer.precision for layer in layers} | {node.name: node.precision for node in impossible}
    in_fp32 = {node.name: node for node in mixed.fallbacks if node.name not in wanted}
    in_16_bits = {
        node.name: node.model_copy(update={"precision": precisions[node.name]}) for node in quantized.fallbacks
    }
    return insert_qdq(mixed.model, chosen, largest, number_format), tuple((in_16_bits | in_fp32).values())


def _largest(layer: Layer, quantized: Quantized) -> float:
    name = layer.activation
    for form in _FORMS:
        if name not in quantized.largest:
            name = name.removesuffix(form)
    return quantized.largest[name]
