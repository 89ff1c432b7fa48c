"""What an export says of the layers with a higher precision than the artifact."""

import pytest

from segkc_deploy.export.summary import _layers, _not_in_8_bits, _proof
from segkc_deploy.manifest import FallbackNode, LayerPrecision, ShapeCheck, Verification


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


def test_the_proof_names_the_largest_loss_of_a_class_that_both_know() -> None:
    verification = Verification(
        ran_on="onnxruntime CPU",
        images=3,
        agreement=0.98765,
        shapes=(ShapeCheck(shape=(4, 32, 64), agreement=0.5),),
        miou_network=60.0,
        miou_artifact=58.5,
        iou_network=(70.0, None, 40.0, 50.0),
        iou_artifact=(71.0, 5.0, 0.0, 49.0),
    )
    assert list(_proof(verification)) == [
        "  agreement with the PyTorch junior: 98.7650% of pixels, 3 images, by onnxruntime CPU",
        "  4 images of 32x64: 50.0000%",
        "  mIoU: junior 60.00, artifact 58.50; no class lost more than 40.00",
    ]


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
