"""ONNX → plan, for TensorRT and TensorRT for RTX alike: parse, optimization profile, configuration, build."""

import hashlib
import time
from dataclasses import dataclass, field
from typing import Any

from segkc_deploy.errors import BuildError
from segkc_deploy.export.engines.base import BuildRequest
from segkc_deploy.export.engines.trt_inspector import layer_precision
from segkc_deploy.export.engines.trt_progress import build_with_progress
from segkc_deploy.manifest import Build, LayerPrecision
from segkc_deploy.tensorrt_library import Library, LogLines, collect_log

Shape = list[int]

_MIB = 1 << 20
_LISTED_ERRORS = 5

#: Flags that this package sets or that are set from the start and change what is computed.
_REPORTED_FLAGS = ("TF32", "VERSION_COMPATIBLE", "STRIP_PLAN", "REFIT_IDENTICAL")


@dataclass
class Session:
    """One build: the builder's objects, which belong together and live as long as it.

    Attributes:
        library: which of the two libraries it is.
        trt: its module.
        request: what to build.
        log: what the library says of failures.
        shapes: the optimization profile: input name to smallest, most usual and largest shape.
    """

    library: Library
    trt: Any
    request: BuildRequest
    log: LogLines = field(init=False)
    shapes: dict[str, list[Shape]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        self.title = f"{self.library.title} {self.trt.__version__}"
        self.log = collect_log(self.trt)
        self.builder = self.trt.Builder(self.log.logger)
        # Strongly typed: the graph's own types hold. Version 11 knows nothing else and ignores the flag.
        typed = 1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        self.network = self.builder.create_network(typed)
        self.config = self.builder.create_builder_config()
        self.config.profiling_verbosity = self.trt.ProfilingVerbosity.DETAILED
        self.model = self.request.model.SerializeToString()

    def prepare(self) -> None:
        """Read the graph and set the profile and what both libraries know of the options.

        Raises:
            BuildError: the parser refuses the graph; the message lists the nodes.
        """
        self._parse()
        self._set_profile()
        # On by default: FP32 products would then be computed with ten bits of mantissa, and nobody asked for that.
        self.config.clear_flag(self.trt.BuilderFlag.TF32)
        options = self.request.options
        if options.optimization_level is not None:
            self.config.builder_optimization_level = options.optimization_level
        if options.workspace_mib is not None:
            self.config.set_memory_pool_limit(self.trt.MemoryPoolType.WORKSPACE, options.workspace_mib * _MIB)

    def _parse(self) -> None:
        parser = self.trt.OnnxParser(self.network, self.log.logger)
        if parser.parse(self.model):
            return
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        listed = [_describe(error) for error in errors[:_LISTED_ERRORS]]
        more = f"; and {len(errors) - len(listed)} more" if len(errors) > len(listed) else ""
        raise BuildError(
            f"{self.request.path}: the parser of {self.title} refuses the graph: {'; '.join(listed)}{more}"
        )

    def _set_profile(self) -> None:
        assert self.network.num_inputs == 1, "the contract has one input"
        source = self.network.get_input(0)
        sides = (self.request.batch, self.request.heights, self.request.widths)
        bands = self.request.contract.bands
        shapes = [[*(getattr(side, which) for side in sides), bands] for which in ("min", "opt", "max")]
        profile = self.builder.create_optimization_profile()
        profile.set_shape(source.name, *shapes)
        index = self.config.add_optimization_profile(profile)
        assert index == 0, f"{shapes} is no optimization profile"
        self.shapes = {source.name: shapes}

    def set_flag(self, name: str) -> None:
        """Set a builder flag by its name, since its number differs from version to version."""
        self.config.set_flag(getattr(self.trt.BuilderFlag, name))

    def build(self) -> bytes:
        """Return the plan.

        Raises:
            BuildError: the builder failed; the message holds what it logged.
            KeyboardInterrupt: the user stopped the build.
        """
        description = f"building with {self.title}"
        plan = build_with_progress(self.trt, self.builder, self.network, self.config, description)
        if plan is None:
            raise BuildError(f"{self.request.path}: {self.title} could not build the engine: {self.log.reason()}")
        return bytes(plan)

    def describe(self, **options: Any) -> Build:
        """Return what the manifest says of this build; `options` are those that this library alone knows."""
        chosen = {
            "profile": self.shapes,
            "builder_optimization_level": self.config.builder_optimization_level,
            "workspace_mib": self.request.options.workspace_mib,
        }
        return Build(
            builder=self.library.builder,
            version=self.trt.__version__,
            onnx_sha256=hashlib.sha256(self.model).hexdigest(),
            flags=self._flags(),
            options=chosen | options,
            seconds=round(time.monotonic() - self.started, 3),
        )

    def _flags(self) -> tuple[str, ...]:
        flag = self.trt.BuilderFlag
        return ("STRONGLY_TYPED", *(name for name in _REPORTED_FLAGS if self.config.get_flag(getattr(flag, name))))

    def inspect(self, plan: bytes) -> LayerPrecision | None:
        """Return the precision of the plan's layers, or None where the plan cannot be loaded on this machine."""
        runtime = self.trt.Runtime(self.log.logger)
        # A version-compatible plan holds a runtime of its own.
        runtime.engine_host_code_allowed = self.request.options.version_compatible
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            return None
        inspector = engine.create_engine_inspector()
        context = engine.create_execution_context()
        # Without shapes the inspector does not tell the types of layers whose shape is free.
        usual = [(name, shapes[1]) for name, shapes in self.shapes.items()]
        if context is not None and all(context.set_input_shape(name, shape) for name, shape in usual):
            inspector.execution_context = context
        return layer_precision(inspector.get_engine_information(self.trt.LayerInformationFormat.JSON))


def _describe(error: Any) -> str:
    node = " ".join(part for part in (error.node_operator(), error.node_name()) if part) or "the graph"
    return " ".join(f"{node} ({error.code().name}): {error.desc()}".split())
