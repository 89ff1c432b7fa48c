"""What an export says of the layers with a higher precision than the artifact."""

import pytest

from segkc_deploy.export.summary import _layers
from segkc_deploy.manifest import FallbackNode, LayerPrecision


@pytest.mark.parametrize(
    ("precisions", "line"),
    [
        (["fp32"] * 3, "  kept in FP32: 3 layers, listed in the manifest"),
        (["fp16", "fp32", "fp16"], "  kept in FP16: 2 layers; in FP32: 1 layer, listed in the manifest"),
    ],
)
def test_layers_are_counted_by_their_precision(precisions: list[str], line: str) -> None:
    fallbacks = tuple(
        FallbackNode(name=str(index), op_type="MatMul", precision=precision, reason="it has to")
        for index, precision in enumerate(precisions)
    )
    found = LayerPrecision(source="graph", layers={"int8": {"Conv": 2}}, fallbacks=fallbacks)
    assert list(_layers(found)) == ["  int8: 2 Conv", line]
