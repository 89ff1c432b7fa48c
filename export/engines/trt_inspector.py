"""Which precision the layers of a built engine really have, from TensorRT's own engine inspector."""

import json
import re
from collections import Counter
from typing import Any

from segkc_deploy.manifest import LayerPrecision

#: What the inspector writes for each type, the more specific first (`uint8` holds `int8`).
_WORDS = (
    ("bf16", r"bf16|bfloat16"),
    ("fp16", r"fp16|float16|half"),
    ("fp8", r"fp8|float8|e4m3|e5m2"),
    ("fp4", r"fp4|float4|e2m1"),
    ("fp32", r"fp32|float"),
    ("uint8", r"uint8"),
    ("int8", r"int8"),
    ("int4", r"int4"),
    ("int32", r"int32"),
    ("int64", r"int64"),
    ("bool", r"bool"),
)
#: The types that say how a layer computes; others are its indices, shapes and pixels.
_COMPUTING = ("int8", "fp8", "fp4", "int4", "bf16", "fp16", "fp32")


def layer_precision(information: str) -> LayerPrecision | None:
    """Count the layers of an engine by precision and operator.

    A layer counts as what it reads: an INT8 convolution that writes FP16 is INT8. FP32 layers whose kernel rounds to
    TF32 count as `tf32`; `unknown` is what the inspector does not tell.

    Args:
        information: `get_engine_information` as JSON. In version 10 a tensor's type stands in `Format/Datatype`, in
            version 11 in a field of its own.

    Returns:
        None where the inspector tells no type at all.
    """
    layers = json.loads(information).get("Layers", [])
    known = [layer for layer in layers if isinstance(layer, dict)]
    if not known:
        return None
    counts: dict[str, Counter[str]] = {}
    for layer in known:
        counts.setdefault(_precision(layer), Counter())[layer.get("LayerType", "unknown")] += 1
    if counts.keys() == {"unknown"}:
        return None
    return LayerPrecision(
        source="inspector", layers={name: dict(sorted(counts[name].items())) for name in sorted(counts)}
    )


def _precision(layer: dict[str, Any]) -> str:
    for side in ("Inputs", "Outputs"):
        types = [_type(tensor) for tensor in layer.get(side) or []]
        found = next((name for name in types if name in _COMPUTING), None) or next(filter(None, types), None)
        if found == "fp32" and "tf32" in str(layer.get("TacticName", "")).lower():
            return "tf32"
        if found:
            return found
    return "unknown"


def _type(tensor: Any) -> str | None:
    if not isinstance(tensor, dict):
        return None
    text = " ".join(str(tensor.get(key, "")) for key in ("DataType", "Datatype", "Format/Datatype")).lower()
    return next((name for name, pattern in _WORDS if re.search(pattern, text)), None)
