"""BF16 for OpenVINO: an FP32 graph with a precision hint, in which single operators are kept in FP32.

Casts written into the graph keep OpenVINO from fusing attention and element-wise operators. With the hint it chooses
the types itself, and leaves operators alone that carry the attribute `precise`, which OpenVINO's own compression to
FP16 sets where numbers would overflow.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from xml.etree import ElementTree

import onnx

from segkc_deploy.export.precision.fp32_fallback import TYPED_ENGINES_ONLY
from segkc_deploy.manifest import FallbackNode

_CONSTANTS = frozenset({"Const", "Parameter"})


def tensors_in_fp32(model: onnx.ModelProto, fallbacks: Collection[FallbackNode]) -> set[str]:
    """Return the outputs of the nodes of `model` that OpenVINO has to compute in FP32 under a hint.

    These are the fallbacks, except for those that matter only where the types in the graph are what runs: OpenVINO
    computes softmax and normalization in FP32 inside. The mask head compares logits, so it is among them as well.
    """
    named = {node.name for node in fallbacks if node.precision == "fp32" and node.reason not in TYPED_ENGINES_ONLY}
    return {
        name
        for node in model.graph.node
        if (node.name or node.output[0]) in named or node.name.startswith("mask_head/")
        for name in node.output
    }


def keep_in_fp32(xml: Path, tensors: Collection[str]) -> int:
    """Mark the layers of an OpenVINO graph that compute `tensors`; return how many were marked.

    Args:
        xml: the graph's file, which is changed in place.
        tensors: names of ONNX tensors. One of them may be computed by several layers, such as a convolution and the
            addition of its bias, of which only the last carries the name.
    """
    tree = ElementTree.parse(xml)
    layers = {layer.attrib["id"]: layer for layer in tree.getroot().iterfind("./layers/layer")}
    sources: dict[str, list[str]] = {}
    for edge in tree.getroot().iterfind("./edges/edge"):
        sources.setdefault(edge.attrib["to-layer"], []).append(edge.attrib["from-layer"])
    wanted = [identity for identity, layer in layers.items() if not set(tensors).isdisjoint(_names(layer))]
    marked: set[str] = set()
    while wanted:
        identity = wanted.pop()
        if identity in marked or layers[identity].attrib["type"] in _CONSTANTS:
            continue
        marked.add(identity)
        _mark(layers[identity])
        wanted += [source for source in sources.get(identity, []) if not any(_names(layers[source]))]
    tree.write(xml, encoding="utf-8", xml_declaration=True)
    return len(marked)


def _names(layer: ElementTree.Element) -> Iterator[str]:
    """Yield the names of the tensors that a layer gives; a comma within a name is escaped."""
    for port in layer.iterfind("./output/port"):
        yield from filter(None, port.attrib.get("names", "").replace("\\,", "\0").replace(",", "\n").split("\n"))


def _mark(layer: ElementTree.Element) -> None:
    information = layer.find("rt_info")
    if information is None:
        information = ElementTree.Element("rt_info")
        layer.insert(0, information)
    information.append(ElementTree.Element("attribute", {"name": "precise", "version": "0", "value": ""}))
