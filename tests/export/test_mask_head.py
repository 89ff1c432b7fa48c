"""The mask head of an exported graph, against PyTorch's upsampling and argmax in float64."""

import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from segkc_deploy.export.mask_head import attach_mask_head

CLASSES = 5
LOW, HIGH = (9, 14), (36, 49)
OUTPUTS = ("masks", "confidence", "logits")


def base_graph(size=HIGH, low=LOW, classes=CLASSES, batch="batch"):
    """A graph whose `logits` are a second input, so that a test knows them; the images count only by their size."""
    dims = [batch, *(size or ("height", "width")), 3]
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=1),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["given", "nothing"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "base",
        [
            helper.make_tensor_value_info("images", TensorProto.UINT8, dims),
            helper.make_tensor_value_info("given", TensorProto.FLOAT, [batch, classes, *(low or ("h", "w"))]),
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, classes, *(low or ("h", "w"))])],
        [
            helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3]),
            helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model, logits, size):
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    images = np.zeros((len(logits), *size, 3), dtype=np.uint8)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images, "given": logits}), strict=True))


def upsampled(logits, size, align_corners):
    return torch.nn.functional.interpolate(
        torch.from_numpy(logits).double(), size, mode="bilinear", align_corners=align_corners
    )


def assert_same_masks(masks, reference):
    """Equal, except where the two best scores (N, C, H, W) are within float32's rounding."""
    best = reference.topk(2, dim=1)
    different = torch.from_numpy(masks).long() != best.indices[:, 0]
    margin = best.values[:, 0] - best.values[:, 1]
    assert (margin[different] < 1e-6 * reference.abs().max()).all()
    assert different.float().mean() < 1e-3


def random_logits(count=2, low=LOW, classes=CLASSES, seed=0):
    return np.random.default_rng(seed).normal(0, 5, (count, classes, *low)).astype(np.float32)


def smooth_logits(count):
    """Few borders between classes, like a network's."""
    coarse = torch.from_numpy(random_logits(count, (3, 4)))
    return torch.nn.functional.interpolate(coarse, LOW, mode="bicubic").numpy()


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("size", [HIGH, (27, 14), (5, 20)], ids=["up", "mixed", "down"])
def test_masks_and_confidence_are_those_of_upsampled_logits(align_corners, count, size):
    logits = random_logits(count)
    got = run(attach_mask_head(base_graph(size), OUTPUTS, size, align_corners), logits, size)
    reference = upsampled(logits, size, align_corners)
    assert got["masks"].dtype == np.uint8
    assert_same_masks(got["masks"], reference)
    assert got["confidence"].dtype == np.float32
    np.testing.assert_allclose(got["confidence"], reference.softmax(dim=1).amax(dim=1), rtol=0, atol=2e-5)
    np.testing.assert_array_equal(got["logits"], logits.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("size", [HIGH, (27, 14), (5, 20), (63, 98), (1, 1)])
@pytest.mark.parametrize("make", [random_logits, smooth_logits])
def test_sparse_masks_are_those_of_upsampled_logits(align_corners, count, size, make):
    logits = make(count)
    model = attach_mask_head(base_graph(size), ["logits", "masks"], size, align_corners, "sparse")
    assert not any(attribute.s == b"linear" for node in model.graph.node for attribute in node.attribute)
    got = run(model, logits, size)
    assert got["masks"].shape == (count, *size)
    assert_same_masks(got["masks"], upsampled(logits, size, align_corners))
    np.testing.assert_array_equal(got["logits"], logits.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("align_corners", [False, True])
def test_sparse_upsampling_works_where_no_neighbors_differ(align_corners):
    logits = np.zeros((2, CLASSES, *LOW), dtype=np.float32)
    logits[0, 3] = logits[1, 1] = 1
    got = run(attach_mask_head(base_graph(), ["masks"], HIGH, align_corners, "sparse"), logits, HIGH)
    np.testing.assert_array_equal(got["masks"], np.broadcast_to([[[3]], [[1]]], (2, *HIGH)))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(36, 49), (52, 24)])
def test_a_free_height_and_width_come_from_the_images(align_corners, size):
    model = attach_mask_head(base_graph(None, None), OUTPUTS, None, align_corners)
    assert [dim.dim_param for dim in model.graph.output[0].type.tensor_type.shape.dim] == ["batch", "height", "width"]
    low = (size[0] // 4, size[1] // 3)
    logits = random_logits(2, low)
    got = run(model, logits, size)
    assert got["masks"].shape == got["confidence"].shape == (2, *size)
    assert_same_masks(got["masks"], upsampled(logits, size, align_corners))


@pytest.mark.parametrize(
    "outputs", [names for count in (1, 2, 3) for names in itertools.permutations(OUTPUTS, count)], ids="-".join
)
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_outputs_are_those_asked_for_in_that_order_and_nothing_is_computed_in_vain(outputs, kind):
    base = base_graph()
    before = base.SerializeToString()
    model = attach_mask_head(base, outputs, HIGH, False, kind)
    assert base.SerializeToString() == before
    assert [output.name for output in model.graph.output] == list(outputs)
    read = {name for node in model.graph.node for name in node.input} | set(outputs)
    assert all(set(node.output) & read for node in model.graph.node)
    assert {constant.name for constant in model.graph.initializer} <= read
    upsamples = any(node.op_type == "Resize" for node in model.graph.node)
    assert upsamples == (outputs != ("logits",))
    assert list(run(model, random_logits(), HIGH)) == list(outputs)


def test_confidence_of_very_large_logits_is_finite():
    logits = np.zeros((1, 2, 3, 3), dtype=np.float32)
    logits[:, 1] = 5000
    got = run(attach_mask_head(base_graph((6, 6), (3, 3), 2), ["confidence", "masks"], (6, 6), False), logits, (6, 6))
    np.testing.assert_array_equal(got["confidence"], 1)
    np.testing.assert_array_equal(got["masks"], 1)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_equal_scores_go_to_the_first_class(kind):
    got = run(
        attach_mask_head(base_graph(), ["masks"], HIGH, True, kind), np.ones((1, CLASSES, *LOW), dtype=np.float32), HIGH
    )
    np.testing.assert_array_equal(got["masks"], 0)
