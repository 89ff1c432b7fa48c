"""A graph in an older opset, for programs that do not read the newest one: parsers on devices, older runtimes."""

import onnx
from onnx import defs, helper, version_converter

from segkc_deploy.errors import ConfigError


def in_older_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Return `model` in an older opset, with the oldest IR version that may have it; what it computes stays the same.

    Args:
        model: its attention is taken apart, since that is one operator only from opset 23 on.
        opset: older than that of `model`.

    Raises:
        ConfigError: the graph has operators that this opset does not have.
    """
    newer = sorted({node.op_type for node in model.graph.node if not defs.has(node.op_type, opset)})
    if newer:
        least = max(min(schema.since_version for schema in _schemas(name)) for name in newer)
        raise ConfigError(f"--opset {opset}: this network's graph has {', '.join(newer)}; give --opset {least} or more")
    try:
        older = version_converter.convert_version(model, opset)
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or ["refused"])[0]
        raise ConfigError(f"--opset {opset}: ONNX cannot convert this network's graph: {reason}") from None
    older.ir_version = min(helper.find_min_ir_version_for(list(older.opset_import)), model.ir_version)
    return older


def _schemas(op_type: str) -> list[defs.OpSchema]:
    return [schema for schema in defs.get_all_schemas_with_history() if (schema.domain, schema.name) == ("", op_type)]
