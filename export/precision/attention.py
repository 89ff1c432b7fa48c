"""Fused attention taken apart into products and a softmax, for engines and precisions that want to see the scores."""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper


def decompose_attention(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of `model` in which every `Attention` node is softmax(scale · q · kᵀ) · v in simple operators.

    The parts of a node `a` are named `a/scale`, `a/keys`, `a/scores`, `a/softmax` and `a/context`; the last one's
    output keeps the node's own name of it. The scale is applied to the queries before the product, where it keeps the
    scores small.

    Args:
        model: a graph whose attention has queries, keys and values (N, heads, tokens, head size) and nothing else:
            no mask, no cache, no causal order, no soft cap, as many heads of keys as of queries.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    if not any(node.op_type == "Attention" for node in model.graph.node):
        return result
    head_sizes = _last_dimensions(model)
    nodes: list[NodeProto] = []
    for node in result.graph.node:
        if node.op_type != "Attention":
            nodes.append(node)
            continue
        scale = _plain_scale(node, head_sizes)
        name = node.name or node.output[0]
        constant = numpy_helper.from_array(np.array(scale, dtype=np.float32), f"{name}/scale_value")
        result.graph.initializer.append(constant)
        nodes.extend(_parts(node, name, constant))
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return result


def _parts(node: NodeProto, name: str, scale: TensorProto) -> Iterator[NodeProto]:
    query, key, value = node.input[:3]
    scaled, keys, scores, weights = (f"{name}/{part}_output" for part in ("scale", "keys", "scores", "softmax"))
    yield helper.make_node("Mul", [query, scale.name], [scaled], f"{name}/scale")
    yield helper.make_node("Transpose", [key], [keys], f"{name}/keys", perm=[0, 1, 3, 2])
    yield helper.make_node("MatMul", [scaled, keys], [scores], f"{name}/scores")
    yield helper.make_node("Softmax", [scores], [weights], f"{name}/softmax", axis=-1)
    yield helper.make_node("MatMul", [weights, value], [node.output[0]], f"{name}/context")


def _plain_scale(node: NodeProto, head_sizes: dict[str, int]) -> float:
    """Return the factor of a node's scores, having made sure that nothing else is asked of the node."""
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    extras = [*node.input[3:], *node.output[1:]]
    unusual = [key for key in ("is_causal", "softcap", "q_num_heads", "kv_num_heads") if attributes.get(key)]
    assert not any(extras) and not unusual, f"{node.name}: attention with {[e for e in extras if e] + unusual}"
    return float(attributes.get("scale") or head_sizes[node.input[0]] ** -0.5)


def _last_dimensions(model: onnx.ModelProto) -> dict[str, int]:
    """Return the size of the last of four axes, for every tensor in which it is fixed."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {value.name: value.type.tensor_type.shape.dim for value in [*graph.input, *graph.value_info]}
    return {name: dims[-1].dim_value for name, dims in shapes.items() if len(dims) == 4 and dims[-1].dim_value}
