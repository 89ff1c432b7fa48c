"""What an export says of the layers with a higher precision than the artifact."""

import pytest

from segkc_deploy.export.summary import _layers, _not_in_8_bits
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


@pytest.mark.parametrize(
    ("engine", "precision", "ran_in", "told"),
    [
        ("openvino", "int8", "fp32", True),
        ("openvino", "int8-bf16", "fp32", True),
        ("openvino", "int8", "int8", False),
        ("openvino", "fp32", "fp32", False),
        ("trt", "int8", "fp16", False),
    ],
)
def test_an_int8_artifact_that_computes_in_fp32_is_named(engine: str, precision: str, ran_in: str, told: bool) -> None:
    found = LayerPrecision(source="inspector", layers={ran_in: {"Convolution": 2}})
    lines = list(_not_in_8_bits(engine, precision, found))
    assert ["no layer runs in 8 bits here" in line for line in lines] == [True] * told
