"""Cut a dump of TensorRT's Python API down to what a strict stand-in needs.

    python tests/support/trt_api/trim.py DUMP.json OUT.json

A dump holds every public class, method, property and enum member of NVIDIA's bindings of one version. Kept are the
classes that building, inspecting, refitting and running an engine can touch, with every member that they have: names,
parameters with their types and whether they have a default, properties with their type and whether they can be set,
enum members with their values. Left out are the plugin classes, the layers that a network can be made of by hand,
everything that only safety or quantization tools use, and all prose.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

KEPT_CLASSES = """
    Builder BuilderFlag ComputeCapability CudaGraphStrategy DataType Dims
    DynamicShapesKernelSpecializationStrategy EngineCapability EngineInspector EngineInvalidityDiagnostics
    EngineStat EngineValidity ErrorCode ExecutionContextAllocationStrategy HardwareCompatibilityLevel
    IBuilderConfig ICudaEngine IExecutionContext IGpuAllocator IGpuAsyncAllocator IHostMemory ILogger
    INetworkDefinition IOptimizationProfile IOutputAllocator IProfiler IProgressMonitor IRuntimeCache
    IRuntimeConfig ISerializationConfig IStreamReader IStreamReaderV2 IStreamWriter ITensor ITimingCache
    IVersionedInterface LayerInformationFormat Logger MemoryPoolType NetworkDefinitionCreationFlag OnnxParser
    OnnxParserFlag OnnxParserRefitter ParserError PreviewFeature Profiler ProfilingVerbosity QuantizationFlag
    Refitter Runtime RuntimePlatform SerializationFlag TacticSource TempfileControlFlag TensorFormat TensorIOMode
    TensorLocation TilingOptimizationLevel
""".split()  # noqa: SIM905  (a list would take sixty lines)
KEPT_FUNCTIONS = ("get_nv_onnx_parser_version", "init_libnvinfer_plugins", "nptype", "volume")

_QUALIFIER = re.compile(r"(?:\w+\.)+(?=\w)|(?:\w+::)+")
#: bindings of different ages name the same thing differently
_SAME = {"SupportsInt": "int", "SupportsFloat": "float", "buffer": "Buffer", "capsule": "object"}


def trim(dump: dict[str, Any]) -> dict[str, Any]:
    """Return the part of `dump` that the stand-in is made from."""
    module = dump["tensorrt"]
    return {
        "version": dump["version"],
        "classes": {name: _class(name, module["classes"][name]) for name in KEPT_CLASSES if name in module["classes"]},
        "functions": {name: _overloads(module["functions"][name]["sig"]) for name in KEPT_FUNCTIONS},
        # the short names of data types: float32 is DataType.FLOAT
        "values": {
            name: found[1]
            for name, value in module["values"].items()
            if (found := re.fullmatch(r"<DataType\.(\w+): \d+>", value))
        },
    }


def _class(name: str, found: dict[str, Any]) -> dict[str, Any]:
    if "enum" in found:
        return {"enum": found["enum"]}
    # A network's own layers come from the parser.
    methods = {key: value["sig"] for key, value in found["methods"].items() if not key.startswith("add_")}
    if name == "IBuilderConfig":
        methods["add_optimization_profile"] = found["methods"]["add_optimization_profile"]["sig"]
    constructors = [sig for sig in found.get("init", []) if sig.startswith("__init__(")]
    result: dict[str, Any] = {
        "init": _overloads(constructors),
        "methods": {key: _overloads(signatures) for key, signatures in methods.items()},
        "properties": {
            key: [_type(value["getter"].rpartition("-> ")[2]), value["settable"]]
            for key, value in found["properties"].items()
        },
    }
    if found["bases"] != ["pybind11_object"]:
        result["bases"] = found["bases"]
    if severities := re.findall(r"<Severity\.(\w+): (\d+)>", " ".join(found.get("attrs", {}).values())):
        result["severity"] = {severity: int(value) for severity, value in severities}
    return result


def _overloads(signatures: list[str]) -> list[list[list[Any]]]:
    return [_parameters(signature) for signature in signatures]


def _parameters(signature: str) -> list[list[Any]]:
    """`f(self: m.A, flags: m.B = 0) -> C` becomes [["flags", "B", true]]: name, type, whether there is a default."""
    inside = signature[signature.index("(") + 1 : signature.rindex(")")]
    parts = [part for part in re.split(r", (?=\w+(?::|$|,))", inside) if part]
    parameters = []
    for part in parts:
        name, _, kind = part.partition(": ")
        kind, default, _ = kind.partition(" = ")
        parameters.append([name, _type(kind), bool(default)])
    return [parameter for parameter in parameters if parameter[0] != "self"]


def _type(text: str) -> str:
    short = _QUALIFIER.sub("", text.strip())
    short = _SAME.get(short, short)
    return "Severity" if short == "ILogger.Severity" else short


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.write_text(json.dumps(trim(json.loads(source.read_text())), separators=(",", ":"), sort_keys=True) + "\n")
