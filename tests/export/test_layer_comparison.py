"""Where a graph leaves its reference: errors known from NumPy, and what is not a number."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from small_graphs import convolution_graph, images

from segkc_deploy.export.layer_comparison import compare_layers, first_divergence, write_differences


def scaled(model: onnx.ModelProto, weights: str, factor: float) -> onnx.ModelProto:
    """Return `model` with the values of one of its weights multiplied."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    (tensor,) = (tensor for tensor in result.graph.initializer if tensor.name == weights)
    values = numpy_helper.to_array(tensor) * np.float32(factor)
    tensor.CopyFrom(numpy_helper.from_array(values, weights))
    return result


def rows(path: Path) -> list[dict[str, object]]:
    """Read strict JSON: Python would also take NaN and Infinity, which others refuse."""

    def refuse(name: str) -> None:
        pytest.fail(f"{name} is no JSON")

    content = json.loads(path.read_text(), parse_constant=refuse)
    assert isinstance(content, list)
    return content


def test_a_wrong_layer_has_the_error_it_was_given(tmp_path: Path) -> None:
    reference = convolution_graph().model()
    differences = compare_layers(reference, scaled(reference, "third", 1.25), images(1))
    by_name = {difference.name: difference for difference in differences}
    assert by_name["wide"].relative_error == 0
    assert by_name["narrow"].relative_error == pytest.approx(0.25, rel=1e-5)
    assert "the first layer that diverges is narrow (Conv, relative error 0.25)" in first_divergence(differences)
    write_differences(tmp_path / "layers.json", differences)
    assert [row["diverged"] for row in rows(tmp_path / "layers.json")] == [
        difference.name in ("narrow", "parts", "logits") for difference in differences
    ]


@pytest.mark.parametrize("which", ["reference", "candidate"])
def test_what_is_not_finite_is_null_and_diverges(which: str, tmp_path: Path) -> None:
    sound = convolution_graph().model()
    overflowing = scaled(scaled(sound, "second", 1e30), "third", 1e30)
    graphs = (overflowing, sound) if which == "reference" else (sound, overflowing)
    differences = compare_layers(*graphs, images(1))
    (narrow,) = (difference for difference in differences if difference.name == "narrow")
    assert narrow.relative_error is None
    assert narrow.diverged
    assert (narrow.largest is None) == (which == "reference")
    write_differences(tmp_path / "layers.json", differences)
    (row,) = (row for row in rows(tmp_path / "layers.json") if row["name"] == "narrow")
    assert (row["relative_error"], row["largest"], row["diverged"]) == (None, narrow.largest, True)
