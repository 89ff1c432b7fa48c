"""A float32 graph rewritten in 16 bits, except for the nodes that are to stay: no operator sees two types."""

from collections.abc import Iterable

import onnx
from onnx import NodeProto, TensorProto, helper

from segkc_deploy.export.precision.formats import Format
from segkc_deploy.export.precision.fp32_fallback import SHAPES, opset_of
from segkc_deploy.export.precision.ranges import float_activations


def cast_graph(model: onnx.ModelProto, target: Format, kept_in_fp32: Iterable[str]) -> onnx.ModelProto:
    """Return `model` in `target`'s format, its inputs and outputs as they were.

    Every tensor is computed in one type; where the other type is read too, one Cast serves all who read it. The other
    form of a tensor `t` is called `t/fp16`, `t/bf16` or `t/fp32`. Weights are stored in the type they are read in.

    Args:
        model: float32 graph.
        target: the 16-bit format.
        kept_in_fp32: first outputs of the nodes that stay in float32.
    """
    caster = _Caster(model, target, frozenset(kept_in_fp32))
    for node in model.graph.node:
        caster.add(node)
    return caster.model()


class _Caster:
    """Takes the nodes of a graph in their order and gives back the graph with casts between them."""

    def __init__(self, model: onnx.ModelProto, target: Format, kept_in_fp32: frozenset[str]) -> None:
        self._source = model
        self._target = target
        self._kept_in_fp32 = kept_in_fp32
        self._opset = opset_of(model)
        self._activations = float_activations(model)
        self._weights = {entry.name: entry for entry in model.graph.initializer if entry.data_type == TensorProto.FLOAT}
        self._outputs = {value.name for value in model.graph.output}
        self._computed_low: set[str] = set()
        self._nodes: list[NodeProto] = []
        self._stored: dict[str, TensorProto] = {}
        self._types: dict[str, int] = {}  # element types of all floating-point tensors of the new graph

    def add(self, node: NodeProto) -> None:
        """Take the next node, in the precision it is to have."""
        new = NodeProto()
        new.CopyFrom(node)
        low = node.output[0] not in self._kept_in_fp32 and bool(self._activations.keys() & set(node.output))
        for index, name in enumerate(node.input):
            if node.op_type in SHAPES:
                new.input[index] = self._name(name, low=name in self._computed_low)
            else:
                new.input[index] = self._read(name, low and self._target.takes(node, index, self._opset))
        if low:
            self._computed_low.update(node.output)
            new.output[:] = [self._name(name, low=True) for name in node.output]
        self._nodes.append(new)
        for name in self._activations.keys() & set(node.output):
            self._types[self._name(name, low)] = self._target.type if low else TensorProto.FLOAT
            if name in self._outputs:
                self._read(name, low=False)

    def model(self) -> onnx.ModelProto:
        """Return the graph of the nodes taken so far."""
        result = onnx.ModelProto()
        result.CopyFrom(self._source)
        graph = result.graph
        others = [entry for entry in self._source.graph.initializer if entry.name not in self._weights]
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self._nodes)
        graph.initializer.extend([*others, *self._stored.values()])
        for value in self._source.graph.value_info:
            if value.name not in self._activations:
                graph.value_info.append(value)
        for name, value in self._activations.items():
            for form in (name, f"{name}/{self._target.name}", f"{name}/fp32"):
                if form in self._types and form not in self._outputs:
                    typed = graph.value_info.add()
                    typed.CopyFrom(value)
                    typed.name = form
                    typed.type.tensor_type.elem_type = self._types[form]
        return result

    def _name(self, name: str, low: bool) -> str:
        """Return what `name` is called in 16 bits or in float32: its own name in the type it is computed in."""
        if low and (name not in self._computed_low or name in self._outputs):
            return f"{name}/{self._target.name}"
        if not low and name in self._computed_low and name not in self._outputs:
            return f"{name}/fp32"
        return name

    def _read(self, name: str, low: bool) -> str:
        """Return the name under which `name` can be read in 16 bits or in float32, made when it is first asked for."""
        form = self._name(name, low)
        if name in self._weights:
            if form not in self._stored:
                weights = self._weights[name]
                self._stored[form] = self._target.stored(weights, form) if low else weights
        elif name in self._activations:
            if form not in self._types:
                own = self._name(name, name in self._computed_low)
                kind = self._target.type if low else TensorProto.FLOAT
                self._types[form] = kind
                self._nodes.append(helper.make_node("Cast", [own], [form], f"{form}/cast", to=kind))
        else:
            return name
        return form
