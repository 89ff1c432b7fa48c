"""A strict stand-in for `tensorrt`: the real names of a version, a pretended builder and runtime behind them.

    behavior = Behavior()                              # what it should do; and what was done, in `behavior.builds`
    trt = stand_in("10.13", behavior)                  # or "10.16", "11.4"; "rtx-1.7" is TensorRT for RTX
    monkeypatch.setitem(sys.modules, "tensorrt", trt)  # "tensorrt_rtx" for the latter

Any name, keyword, argument type, attribute or enum member that this version's bindings lack raises AttributeError or
TypeError, as with the real ones. A member that exists but has no behavior here raises NotImplementedError: add it in
this file with `@behaves("Class.member")`.

*Building* parses the ONNX graph's inputs and outputs, checks the profile, calls the progress monitor and returns a plan
with the real header: `ftrt` (`vtrt` for RTX) in bytes 0-3, the size of the whole plan in bytes 16-23 (little-endian),
major, minor, patch and build in bytes 24-27. A plan that
was built by one stand-in is read by another of the same version.

*Running* computes the ONNX graph that was built, with onnxruntime on the CPU, or whatever `behavior.compute` gives.
`execute_async_v3` enqueues that on a stream of `behavior.device` (a `FakeDevice`), whose memory also holds inputs and
outputs: a test's stand-in for CUDA allocates, copies and synchronizes through the same `FakeDevice`.
"""

import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from fake_device import INFERENCE_MS, FakeDevice
from strict_api import Api, StrictObject, behaves

VERSIONS = ("10.13", "10.16", "11.4")
RTX = "rtx-1.7"

Arrays = dict[str, np.ndarray]

_HEADER = 32
_PAYLOAD = _HEADER + 4  # after a checksum
_DTYPES = {
    onnx.TensorProto.UINT8: "UINT8",
    onnx.TensorProto.FLOAT: "FLOAT",
    onnx.TensorProto.FLOAT16: "HALF",
    onnx.TensorProto.INT32: "INT32",
    onnx.TensorProto.INT64: "INT64",
}
_NUMPY = {"UINT8": np.uint8, "FLOAT": np.float32, "HALF": np.float16, "INT32": np.int32, "INT64": np.int64}


@dataclass
class Behavior:
    """What the stand-in should do, and what it was asked.

    Attributes:
        device: memory and streams; share it with the stand-in for CUDA.
        compute: inputs by name to outputs by name, instead of running the graph.
        parse_errors: (node name, operator, description) of what the parser refuses.
        build_errors: error lines to log; with any, the build gives None.
        steps: how many steps the builder reports.
        at_step: called at each step with its number, before the monitor is asked.
        builds: one dict for every build: flags, profile, level and so on.
        execution_fails: `execute_async_v3` returns False.
    """

    device: FakeDevice = field(default_factory=FakeDevice)
    compute: Callable[[Arrays], Arrays] | None = None
    parse_errors: list[tuple[str, str, str]] = field(default_factory=list)
    build_errors: list[str] = field(default_factory=list)
    steps: int = 5
    at_step: Callable[[int], None] | None = None
    builds: list[dict[str, Any]] = field(default_factory=list)
    execution_fails: bool = False
    #: what the inspector says of each layer: operator and precision
    layers: list[tuple[str, str]] = field(default_factory=lambda: [("Conv", "HALF"), ("SoftMax", "FLOAT")])


class StandIn(ModuleType):
    """The module. `strict_api` and `behavior` are the stand-in's own."""

    strict_api: Api
    behavior: Behavior

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"{self.__name__} {self.strict_api.version} has no {name!r}, or tests/support/trt_api/trim.py leaves it out"
        )


def stand_in(version: str, behavior: Behavior | None = None) -> StandIn:
    """Return the module for `version`, one of `VERSIONS` or `RTX`."""
    name = "tensorrt_rtx" if version == RTX else "tensorrt"
    module = StandIn(name)
    module.behavior = behavior or Behavior()
    module.strict_api = api = Api(f"trt-{version}", name, module.behavior)
    module.__dict__.update(api.classes | api.values | api.functions, __version__=api.version)
    return module


def plan_version(plan: bytes) -> tuple[int, ...]:
    """Return the version in a plan's header."""
    return tuple(plan[24:28])


def _behavior(this: StrictObject) -> Behavior:
    behavior: Behavior = this.strict_api.behavior
    return behavior


def _kind(this: StrictObject, name: str) -> Any:
    return this.strict_api.classes[name]


def _is_rtx(this: StrictObject) -> bool:
    return this.strict_api.module_name == "tensorrt_rtx"


def _log(logger: Any, severity: str, message: str) -> None:
    logger.log(getattr(type(logger), severity), message)


# --- loggers, dimensions, memory ---------------------------------------------------------------------------------


@behaves("Logger.__init__")
def _(this: Any, min_severity: Any = None) -> None:
    this.state["min_severity"] = min_severity or type(this).WARNING


@behaves("Logger.log")
def _(this: Any, severity: Any, msg: str) -> None:
    if severity.value <= this.min_severity.value:
        print(f"[TRT] [{severity.name}] {msg}")


@behaves("Dims.__init__")
def _(this: Any, shape: Any = ()) -> None:
    this.state["_sizes"] = tuple(shape)


@behaves("Dims.__len__")
def _(this: Any) -> int:
    return len(this.state["_sizes"])


@behaves("Dims.__getitem__")
def _(this: Any, index: Any) -> Any:
    return this.state["_sizes"][index]


@behaves("Dims.__iter__")
def _(this: Any) -> Any:
    return iter(this.state["_sizes"])


@behaves("Dims.__eq__")
def _(this: Any, other: object) -> bool:
    return tuple(this) == tuple(other)


def _dims(this: StrictObject, sizes: Any) -> Any:
    return this.strict_api.make("Dims", _sizes=tuple(int(size) for size in sizes))


def _memory(this: StrictObject, data: bytes) -> Any:
    return this.strict_api.make("IHostMemory", _data=data)


@behaves("IHostMemory.__bytes__", "IHostMemory.__buffer_bytes__")
def _(this: Any) -> bytes:
    return this.state["_data"]


@behaves("IHostMemory.nbytes")
def _(this: Any) -> int:
    return len(this.state["_data"])


# --- builder, network, parser ------------------------------------------------------------------------------------


@behaves("Builder.__init__")
def _(this: Any, logger: Any) -> None:
    this.state["logger"] = logger


@behaves("Builder.create_network")
def _(this: Any, flags: int = 0) -> Any:
    members = _kind(this, "NetworkDefinitionCreationFlag")
    names = sorted(member.name for member in members if flags & 1 << member.value)
    assert flags == sum(1 << members[name].value for name in names), f"unknown network flags {flags:#b}"
    return this.strict_api.make("INetworkDefinition", _model=None, _flags=names)


@behaves("Builder.create_builder_config")
def _(this: Any) -> Any:
    return this.strict_api.make(
        "IBuilderConfig",
        _flags={"TF32"},
        _profiles=[],
        _pools={},
        _cache=None,
        _capabilities=[],
        _logger=this.logger,
        builder_optimization_level=3,
        hardware_compatibility_level=_kind(this, "HardwareCompatibilityLevel").NONE,
        profiling_verbosity=_kind(this, "ProfilingVerbosity").LAYER_NAMES_ONLY,
        progress_monitor=None,
        num_compute_capabilities=0,
    )


@behaves("Builder.create_optimization_profile")
def _(this: Any) -> Any:
    return this.strict_api.make("IOptimizationProfile", _shapes={})


@behaves("IOptimizationProfile.set_shape")
def _(this: Any, input: str, min: Any, opt: Any, max: Any) -> None:
    shapes = [tuple(min), tuple(opt), tuple(max)]
    if len({len(shape) for shape in shapes}) != 1 or not all(a <= b <= c for a, b, c in zip(*shapes, strict=True)):
        raise RuntimeError("Shape provided for min is inconsistent with other shapes.")
    this.state["_shapes"][input] = shapes


@behaves("IOptimizationProfile.get_shape")
def _(this: Any, input: str) -> list[Any]:
    return [_dims(this, shape) for shape in this.state["_shapes"][input]]


@behaves("INetworkDefinition.num_inputs")
def _(this: Any) -> int:
    return len(this.state["_model"].graph.input)


@behaves("INetworkDefinition.num_outputs")
def _(this: Any) -> int:
    return len(this.state["_model"].graph.output)


@behaves("INetworkDefinition.num_layers")
def _(this: Any) -> int:
    return len(this.state["_model"].graph.node)


@behaves("INetworkDefinition.get_input")
def _(this: Any, index: int) -> Any:
    return _tensor(this, this.state["_model"].graph.input[index])


@behaves("INetworkDefinition.get_output")
def _(this: Any, index: int) -> Any:
    return _tensor(this, this.state["_model"].graph.output[index])


def _tensor(this: StrictObject, value: onnx.ValueInfoProto) -> Any:
    described = _describe(value)
    dims = [size if isinstance(size, int) else -1 for size in described["dims"]]
    dtype = _kind(this, "DataType")[described["dtype"]]
    return this.strict_api.make("ITensor", name=described["name"], dtype=dtype, shape=_dims(this, dims))


def _describe(value: onnx.ValueInfoProto) -> dict[str, Any]:
    tensor = value.type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim]
    return {"name": value.name, "dtype": _DTYPES[tensor.elem_type], "dims": dims}


@behaves("OnnxParser.__init__")
def _(this: Any, network: Any, logger: Any) -> None:
    this.state.update(_network=network, _logger=logger, _errors=[])


@behaves("OnnxParser.parse")
def _(this: Any, model: Any, path: str | None = None) -> bool:
    return _parse(this, bytes(model))


@behaves("OnnxParser.parse_from_file")
def _(this: Any, model: str) -> bool:
    with open(model, "rb") as file:  # noqa: PTH123  (the real one takes a str too)
        return _parse(this, file.read())


def _parse(this: Any, data: bytes) -> bool:
    codes = _kind(this, "ErrorCode")
    for node, operator, description in _behavior(this).parse_errors:
        this.state["_errors"].append((codes.UNSUPPORTED_NODE, node, operator, description))
    if not this.state["_errors"]:
        this.state["_network"].state["_model"] = onnx.load_model_from_string(data)
    return not this.state["_errors"]


@behaves("OnnxParser.num_errors")
def _(this: Any) -> int:
    return len(this.state["_errors"])


@behaves("OnnxParser.get_error")
def _(this: Any, index: int) -> Any:
    return this.strict_api.make("ParserError", _error=this.state["_errors"][index])


@behaves("ParserError.code")
def _(this: Any) -> Any:
    return this.state["_error"][0]


@behaves("ParserError.node_name")
def _(this: Any) -> str:
    return this.state["_error"][1]


@behaves("ParserError.node_operator")
def _(this: Any) -> str:
    return this.state["_error"][2]


@behaves("ParserError.desc")
def _(this: Any) -> str:
    return this.state["_error"][3]


# --- the builder's configuration ---------------------------------------------------------------------------------


@behaves("IBuilderConfig.set_flag")
def _(this: Any, flag: Any) -> None:
    this.state["_flags"].add(flag.name)


@behaves("IBuilderConfig.clear_flag")
def _(this: Any, flag: Any) -> None:
    this.state["_flags"].discard(flag.name)


@behaves("IBuilderConfig.get_flag")
def _(this: Any, flag: Any) -> bool:
    return flag.name in this.state["_flags"]


@behaves("IBuilderConfig.set_memory_pool_limit")
def _(this: Any, pool: Any, pool_size: int) -> None:
    this.state["_pools"][pool.name] = pool_size


@behaves("IBuilderConfig.get_memory_pool_limit")
def _(this: Any, pool: Any) -> int:
    return this.state["_pools"].get(pool.name, 1 << 30)


@behaves("IBuilderConfig.add_optimization_profile")
def _(this: Any, profile: Any) -> int:
    this.state["_profiles"].append(profile.state["_shapes"])
    return len(this.state["_profiles"]) - 1


@behaves("IBuilderConfig.num_optimization_profiles")
def _(this: Any) -> int:
    return len(this.state["_profiles"])


@behaves("IBuilderConfig.create_timing_cache")
def _(this: Any, serialized_timing_cache: Any) -> Any:
    data = bytes(serialized_timing_cache)
    assert not _is_rtx(this), "TensorRT for RTX warns that its timing cache is deprecated and does nothing"
    if data and not data.startswith(b"timings"):
        _log(this.state["_logger"], "WARNING", "Failed to deserialize timing cache. Returning an empty timing cache.")
        data = b""
    return this.strict_api.make("ITimingCache", _data=data)


@behaves("IBuilderConfig.set_timing_cache")
def _(this: Any, cache: Any, ignore_mismatch: bool) -> bool:
    this.state["_cache"] = cache
    return True


@behaves("IBuilderConfig.get_timing_cache")
def _(this: Any) -> Any:
    return this.state["_cache"]


@behaves("ITimingCache.serialize")
def _(this: Any) -> Any:
    return _memory(this, this.state["_data"])


@behaves("IBuilderConfig.set_compute_capability")
def _(this: Any, compute_capability: Any, index: int) -> bool:
    capabilities = this.state["_capabilities"]
    capabilities += [None] * (this.num_compute_capabilities - len(capabilities))
    if not 0 <= index < len(capabilities):
        return False
    capabilities[index] = compute_capability.name
    return True


# --- the build ---------------------------------------------------------------------------------------------------


@behaves("Builder.build_serialized_network")
def _(this: Any, network: Any, config: Any) -> Any:
    behavior, state = _behavior(this), config.state
    record = {
        "flags": sorted(state["_flags"]),
        "network_flags": network.state["_flags"],
        "profiles": list(state["_profiles"]),
        "pools": dict(state["_pools"]),
        "level": config.builder_optimization_level,
        "hardware": config.hardware_compatibility_level.name,
        "verbosity": config.profiling_verbosity.name,
        "cache": state["_cache"].state["_data"] if state["_cache"] else None,
        "capabilities": list(state["_capabilities"]),
        "builder": dict(this.state),
    }
    behavior.builds.append(record)
    if problem := _obstacle(behavior, network, state):
        for line in problem:
            _log(this.logger, "ERROR", line)
        return None
    if not _progress(behavior, config.progress_monitor):
        _log(this.logger, "ERROR", "Build was cancelled by the progress monitor.")
        return None
    if state["_cache"]:
        state["_cache"].state["_data"] = b"timings" + state["_cache"].state["_data"][7:] + b"."
    return _memory(this, _plan(this, network.state["_model"], record))


def _obstacle(behavior: Behavior, network: Any, state: dict[str, Any]) -> list[str]:
    """Return the lines that a build which cannot be done logs."""
    if behavior.build_errors:
        return behavior.build_errors
    for value in network.state["_model"].graph.input:
        described = _describe(value)
        free = [isinstance(size, str) for size in described["dims"]]
        shapes = state["_profiles"][0].get(described["name"]) if state["_profiles"] else None
        if shapes is None:
            if any(free):
                return [f"{described['name']} has dynamic dimensions but no optimization profile"]
            continue
        for shape in shapes:
            fixed = zip(shape, described["dims"], free, strict=True)
            if len(shape) != len(free) or any(not is_free and size != dim for size, dim, is_free in fixed):
                return [f"profile {shape} does not fit {described['dims']}"]
    return []


def _progress(behavior: Behavior, monitor: Any) -> bool:
    """Report a phase within a phase to the monitor, as the real builder does; False when it asks to stop."""
    if monitor is None:
        return True
    going = True
    monitor.phase_start("Building Engine", None, 1)
    monitor.phase_start("Tactic Selection", "Building Engine", behavior.steps)
    for step in range(behavior.steps):
        if behavior.at_step:
            behavior.at_step(step)
        going = monitor.step_complete("Tactic Selection", step)
        assert isinstance(going, bool), "step_complete has to return a bool"
        if not going:
            break
    monitor.phase_finish("Tactic Selection")
    if going:
        going = monitor.step_complete("Building Engine", 0)
    monitor.phase_finish("Building Engine")
    return going


def _plan(this: StrictObject, model: onnx.ModelProto, record: dict[str, Any]) -> bytes:
    graph = model.graph
    described = {
        "inputs": [_describe(value) for value in graph.input],
        "outputs": [_describe(value) for value in graph.output],
        "profile": record["profiles"][0] if record["profiles"] else {},
        "flags": record["flags"],
        "verbosity": record["verbosity"],
        "hardware": record["hardware"],
    }
    text = json.dumps(described).encode()
    if "STRIP_PLAN" in record["flags"]:
        model = onnx.ModelProto()
    payload = struct.pack("<I", len(text)) + text + model.SerializeToString()
    magic = b"vtrt" if _is_rtx(this) else b"ftrt"
    checked = struct.pack("<I", zlib.crc32(payload)) + payload
    header = struct.pack("<IIIQ", 0, 2, 0, _HEADER + len(checked)) + bytes(_version_bytes(this)).ljust(4, b"\0")
    return magic + header + magic + checked


def _version_bytes(this: StrictObject) -> list[int]:
    return [int(part) for part in this.strict_api.version.split(".")[:4]]


# --- the runtime -------------------------------------------------------------------------------------------------


@behaves("Runtime.__init__")
def _(this: Any, logger: Any) -> None:
    this.state.update(logger=logger, engine_host_code_allowed=False)


@behaves("Runtime.deserialize_cuda_engine")
def _(this: Any, serialized_engine: Any) -> Any:
    plan = bytes(serialized_engine)
    if problem := _plan_problem(this, plan):
        _log(this.logger, "ERROR", problem)
        return None
    start = _PAYLOAD + 4
    (length,) = struct.unpack("<I", plan[_PAYLOAD:start])
    described = json.loads(plan[start : start + length])
    return this.strict_api.make(
        "ICudaEngine", _plan=described, _model=plan[start + length :], _session=[], _logger=this.logger
    )


def _plan_problem(this: Any, plan: bytes) -> str:
    if len(plan) < _HEADER or plan[:4] != (b"vtrt" if _is_rtx(this) else b"ftrt"):
        return "Serialization assertion stdArchiveReader failed: magic tag does not match"
    (checksum,) = struct.unpack("<I", plan[_HEADER:_PAYLOAD].ljust(4, b"\0"))
    payload = plan[_PAYLOAD:]
    if zlib.crc32(payload) != checksum:
        return "Serialization assertion failed: the plan is damaged"
    if list(plan_version(plan)) != [*_version_bytes(this), 0][:4]:
        flags = json.loads(payload[4 : 4 + struct.unpack("<I", payload[:4])[0]])["flags"]
        older = list(plan_version(plan)) < _version_bytes(this)
        if not ("VERSION_COMPATIBLE" in flags and older and this.engine_host_code_allowed):
            return "The engine plan file is not compatible with this version of TensorRT"
    return ""


@behaves("Refitter.__init__")
def _(this: Any, engine: Any, logger: Any) -> None:
    assert engine.refittable, "the engine was not built to be refitted"
    this.state.update(_engine=engine, _model=b"")


@behaves("OnnxParserRefitter.__init__")
def _(this: Any, refitter: Any, logger: Any) -> None:
    this.state["_refitter"] = refitter


@behaves("OnnxParserRefitter.num_errors")
def _(this: Any) -> int:
    return 0


@behaves("OnnxParserRefitter.refit_from_file")
def _(this: Any, model: str) -> bool:
    with open(model, "rb") as file:  # noqa: PTH123
        this.state["_refitter"].state["_model"] = file.read()
    return True


@behaves("OnnxParserRefitter.refit_from_bytes")
def _(this: Any, model: Any, path: str | None = None) -> bool:
    this.state["_refitter"].state["_model"] = bytes(model)
    return True


@behaves("Refitter.refit_cuda_engine")
def _(this: Any) -> bool:
    this.state["_engine"].state["_model"] = this.state["_model"]
    return bool(this.state["_model"])


def _io(this: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = this.state["_plan"]["inputs"] + this.state["_plan"]["outputs"]
    return found


def _named(this: Any, name: str) -> dict[str, Any]:
    (found,) = (tensor for tensor in _io(this) if tensor["name"] == name)
    return found


@behaves("ICudaEngine.num_io_tensors")
def _(this: Any) -> int:
    return len(_io(this))


@behaves("ICudaEngine.num_layers")
def _(this: Any) -> int:
    return len(_behavior(this).layers)


@behaves("ICudaEngine.num_optimization_profiles")
def _(this: Any) -> int:
    return 1


@behaves("ICudaEngine.device_memory_size_v2")
def _(this: Any) -> int:
    return 1 << 20


@behaves("ICudaEngine.refittable")
def _(this: Any) -> bool:
    return bool({"REFIT", "REFIT_IDENTICAL", "STRIP_PLAN"} & set(this.state["_plan"]["flags"]))


@behaves("ICudaEngine.get_tensor_name")
def _(this: Any, index: int) -> str:
    return _io(this)[index]["name"]


@behaves("ICudaEngine.get_tensor_mode")
def _(this: Any, name: str) -> Any:
    modes = _kind(this, "TensorIOMode")
    return modes.INPUT if _named(this, name) in this.state["_plan"]["inputs"] else modes.OUTPUT


@behaves("ICudaEngine.get_tensor_dtype")
def _(this: Any, name: str) -> Any:
    return _kind(this, "DataType")[_named(this, name)["dtype"]]


@behaves("ICudaEngine.get_tensor_location")
def _(this: Any, name: str) -> Any:
    return _kind(this, "TensorLocation").DEVICE


@behaves("ICudaEngine.get_tensor_shape")
def _(this: Any, name: str) -> Any:
    return _dims(this, [size if isinstance(size, int) else -1 for size in _named(this, name)["dims"]])


@behaves("ICudaEngine.get_tensor_profile_shape")
def _(this: Any, name: str, profile_index: int) -> list[Any]:
    assert profile_index == 0
    dims = _named(this, name)["dims"]
    return [_dims(this, shape) for shape in this.state["_plan"]["profile"].get(name, [dims] * 3)]


@behaves("ICudaEngine.create_execution_context")
def _(this: Any, **_: Any) -> Any:
    if not this.state["_model"]:
        _log(this.state["_logger"], "ERROR", "The engine was built without weights and has to be refitted first.")
        return None
    fixed = {
        tensor["name"]: tuple(tensor["dims"])
        for tensor in this.state["_plan"]["inputs"]
        if all(isinstance(size, int) for size in tensor["dims"])
    }
    return this.strict_api.make("IExecutionContext", engine=this, _shapes=fixed, _addresses={})


@behaves("ICudaEngine.create_engine_inspector")
def _(this: Any) -> Any:
    return this.strict_api.make("EngineInspector", _engine=this, execution_context=None)


@behaves("EngineInspector.get_engine_information")
def _(this: Any, format: Any) -> str:
    assert format.name == "JSON"
    engine, context = this.state["_engine"], this.execution_context
    known = context is not None and len(context.state["_shapes"]) == len(engine.state["_plan"]["inputs"])
    detailed = engine.state["_plan"]["verbosity"] == "DETAILED"
    new = not this.strict_api.version.startswith("10.")
    layers = [
        _layer(index, operator, precision if known else None, new) if detailed else f"layer {index}"
        for index, (operator, precision) in enumerate(_behavior(this).layers)
    ]
    names = [tensor["name"] for tensor in _io(engine)]
    bindings = {"I/O Tensors": [{"Name": name} for name in names]} if new else {"Bindings": names}
    return json.dumps({"Layers": layers, **bindings})


def _layer(index: int, operator: str, precision: str | None, new: bool) -> dict[str, Any]:
    """What the inspector says of a layer; the tensor's type moved into a field of its own in version 11."""
    words = {"HALF": "FP16", "FLOAT": "FP32", "INT8": "Int8", "BF16": "BFloat16", "FP8": "FP8"}
    text = "N/A due to dynamic shapes" if precision is None else f"Row major linear {words[precision]} format"
    old = {"Format/Datatype": text}
    typed = {"Format": "Row major linear", "DataType": "N/A due to dynamic shapes" if precision is None else precision}
    tensor = {"Name": f"t{index}", "Dimensions": [1], **(typed if new else old)}
    return {"Name": f"layer {index}", "LayerType": operator, "Inputs": [tensor], "Outputs": [tensor], "TacticName": ""}


# --- execution ---------------------------------------------------------------------------------------------------


@behaves("IExecutionContext.set_input_shape")
def _(this: Any, name: str, shape: Any) -> bool:
    smallest, _, largest = this.engine.get_tensor_profile_shape(name, 0)
    sizes = tuple(shape)
    if len(sizes) != len(smallest):
        return False
    fits = all(a <= size <= b for a, size, b in zip(smallest, sizes, largest, strict=True))
    if fits:
        this.state["_shapes"][name] = sizes
    return fits


@behaves("IExecutionContext.get_tensor_shape")
def _(this: Any, name: str) -> Any:
    shapes = this.state["_shapes"]
    if name in shapes:
        return _dims(this, shapes[name])
    known = _free_sizes(this)
    dims = _named(this.engine, name)["dims"]
    if known is not None and any(isinstance(size, str) and size not in known for size in dims):
        zeros = {key: np.zeros(shape, _NUMPY[_named(this.engine, key)["dtype"]]) for key, shape in shapes.items()}
        return _dims(this, _run_graph(this.engine, zeros)[name].shape)
    return _dims(this, [size if isinstance(size, int) else (known or {}).get(size, -1) for size in dims])


def _free_sizes(this: Any) -> dict[str, int] | None:
    """Return the sizes of the named free dimensions, or None while an input's shape is not set."""
    found: dict[str, int] = {}
    for tensor in this.engine.state["_plan"]["inputs"]:
        if tensor["name"] not in this.state["_shapes"]:
            return None
        found |= {
            dim: size
            for dim, size in zip(tensor["dims"], this.state["_shapes"][tensor["name"]], strict=True)
            if isinstance(dim, str)
        }
    return found


@behaves("IExecutionContext.infer_shapes")
def _(this: Any) -> list[str]:
    return [t["name"] for t in this.engine.state["_plan"]["inputs"] if t["name"] not in this.state["_shapes"]]


@behaves("IExecutionContext.all_binding_shapes_specified")
def _(this: Any) -> bool:
    return _free_sizes(this) is not None


@behaves("IExecutionContext.set_optimization_profile_async")
def _(this: Any, profile_index: int, stream_handle: int) -> bool:
    return profile_index == 0 and stream_handle in _behavior(this).device.streams


@behaves("IExecutionContext.set_tensor_address")
def _(this: Any, name: str, memory: int) -> bool:
    if name not in [tensor["name"] for tensor in _io(this.engine)]:
        return False
    this.state["_addresses"][name] = memory
    return True


@behaves("IExecutionContext.get_tensor_address")
def _(this: Any, name: str) -> int:
    return this.state["_addresses"].get(name, 0)


@behaves("IExecutionContext.execute_async_v3")
def _(this: Any, stream_handle: int) -> bool:
    behavior, addresses = _behavior(this), dict(this.state["_addresses"])
    assert stream_handle != 0, "the default stream synchronizes more than it should; make one"
    if behavior.execution_fails or _free_sizes(this) is None or len(addresses) != this.engine.num_io_tensors:
        return False
    shapes = dict(this.state["_shapes"])

    def run() -> None:
        inputs = {}
        for tensor in this.engine.state["_plan"]["inputs"]:
            name, dtype = tensor["name"], np.dtype(_NUMPY[tensor["dtype"]])
            data = behavior.device.read(addresses[name], int(np.prod(shapes[name])) * dtype.itemsize)
            inputs[name] = np.frombuffer(data, dtype).reshape(shapes[name])
        outputs = behavior.compute(inputs) if behavior.compute else _run_graph(this.engine, inputs)
        for name, value in outputs.items():
            behavior.device.write(addresses[name], np.ascontiguousarray(value).tobytes())
        behavior.device.clock_ms += INFERENCE_MS

    behavior.device.enqueue(stream_handle, run)
    return True


def _run_graph(engine: Any, inputs: Arrays) -> Arrays:
    import onnxruntime

    if not engine.state["_session"]:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(engine.state["_model"], options, providers=["CPUExecutionProvider"])
        engine.state["_session"].append(session)
    (session,) = engine.state["_session"]
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))
