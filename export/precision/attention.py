"""Fused attention taken apart into products and a softmax, for engines and precisions that want to see the scores."""

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from segkc_deploy.errors import ConfigError


def decompose_attention(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of `model` with every `Attention` node as softmax(scale · q · kᵀ + bias) · v in simple operators.

    The parts of a node `a` are named `a/scale`, `a/keys`, `a/scores`, `a/bias`, `a/softmax` and `a/context`; the last
    one's output keeps the node's own name of it. The scale is applied to the queries before the product, where it keeps
    the scores small.

    Args:
        model: a graph whose attention has queries, keys and values (N, heads, tokens, head size), and at most a float
            mask that is added to the scores, such as the bias of relative positions.

    Raises:
        ConfigError: an attention has more: a bool mask, a cache, a causal order, a soft cap, or fewer heads of keys.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    if not any(node.op_type == "Attention" for node in model.graph.node):
        return result
    inferred = onnx.shape_inference.infer_shapes(model).graph
    head_sizes, types = _last_dimensions(inferred), _types(inferred)
    nodes: list[NodeProto] = []
    for node in result.graph.node:
        if node.op_type != "Attention":
            nodes.append(node)
            continue
        scale = _plain_scale(node, head_sizes, types)
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
    if bias := [name for name in node.input[3:4] if name]:
        biased = f"{name}/bias_output"
        yield helper.make_node("Add", [scores, *bias], [biased], f"{name}/bias")
        scores = biased
    yield helper.make_node("Softmax", [scores], [weights], f"{name}/softmax", axis=-1)
    yield helper.make_node("MatMul", [weights, value], [node.output[0]], f"{name}/context")


def _plain_scale(node: NodeProto, head_sizes: Mapping[str, int], types: Mapping[str, int]) -> float:
    """Return the factor of a node's scores, having made sure that no more than `_parts` does is asked of the node."""
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    extras = [name for name in (*node.input[4:], *node.output[1:]) if name]
    if any(types.get(mask) != TensorProto.FLOAT for mask in node.input[3:4] if mask):
        extras.append("a mask that is not added to the scores")
    extras += [key for key in ("is_causal", "softcap", "q_num_heads", "kv_num_heads") if attributes.get(key)]
    if extras:
        raise ConfigError(
            f"{node.name}: attention with {', '.join(extras)} cannot be taken apart into simple operators; export it"
            " with --engine onnx --precision fp32 and no --opset"
        )
    return float(attributes.get("scale") or head_sizes[node.input[0]] ** -0.5)


def _types(graph: onnx.GraphProto) -> dict[str, int]:
    """Return the element type of every tensor for which it is known."""
    values = {value.name: value.type.tensor_type.elem_type for value in [*graph.input, *graph.value_info]}
    return values | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _last_dimensions(graph: onnx.GraphProto) -> dict[str, int]:
    """Return the size of the last of four axes, for every tensor in which it is fixed."""
    shapes = {value.name: value.type.tensor_type.shape.dim for value in [*graph.input, *graph.value_info]}
    return {name: dims[-1].dim_value for name, dims in shapes.items() if len(dims) == 4 and dims[-1].dim_value}
