"""ONNX → TensorRT for RTX engine: built ahead of time, on any machine, for the GPUs of users' computers."""

from typing import Any

from segkc_deploy import atomic
from segkc_deploy.cuda_probe import cuda_obstacle, find_gpu
from segkc_deploy.engine_match import rtx_runs_on
from segkc_deploy.errors import ConfigError
from segkc_deploy.export.engines.base import BuildOptions, BuildRequest, Built, Engine
from segkc_deploy.export.engines.trt_build import Session
from segkc_deploy.export.engines.trt_options import check_common_options, check_precision, refuse
from segkc_deploy.runners.device_memory import import_cuda_core
from segkc_deploy.tensorrt_library import LIBRARIES

LIBRARY = LIBRARIES["trt-rtx"]

_INSTEAD = {
    "version_compatible": "its engines belong to one version; build again with the next",
    "hardware_compatible": "name the GPUs by their compute capabilities",
    "strip_weights": "its weights cannot be taken out without a GPU",
    "timing_cache": "it measures nothing during the build",
}


class TensorRTRTXEngine(Engine):
    """TensorRT for RTX 1.7. Building needs no GPU; the device compiles the kernels when it loads the engine.

    Without named compute capabilities the engine runs on 8.0, 8.6, 8.9, 12.0 and later.
    """

    name = "trt-rtx"
    fused_attention = False

    def check(self, options: BuildOptions, precision: str) -> None:
        """Raise a UserError at once if this machine cannot build.

        Raises:
            ConfigError: an option is out of range or not for this engine, or a named GPU lacks the precision.
            MissingDependencyError: TensorRT for RTX is missing or of another version, or cuda-core where a GPU here is
                to verify the engine.
        """
        check_common_options(options)
        refuse(options, self.name, _INSTEAD)
        _capabilities(LIBRARY.load(), options)
        for capability in options.compute_capabilities:
            check_precision(precision, capability, "--compute-capability names")
        if self.verification_device(precision, options):
            import_cuda_core()  # runs the engine when it is verified, after the build

    def build(self, request: BuildRequest) -> Built:
        """Write the plan to `request.path`, whole or not at all.

        Raises:
            BuildError: TensorRT for RTX refused the graph or failed.
            KeyboardInterrupt: the user stopped the build; nothing is written.
        """
        self.check(request.options, request.precision)
        session = Session(LIBRARY, LIBRARY.load(), request)
        session.prepare()
        _set_capabilities(session, request.options)
        plan = session.build()
        atomic.write_bytes(request.path, plan)
        return Built(
            build=session.describe(compute_capabilities=list(request.options.compute_capabilities)),
            # Only a GPU can load it, and the inspector needs it loaded.
            layer_precision=None if cuda_obstacle() else session.inspect(plan),
        )

    def verification_device(self, precision: str, options: BuildOptions) -> str:
        can_run = not cuda_obstacle() and rtx_runs_on(find_gpu(), options.compute_capabilities)
        return "cuda" if can_run else ""


def _capabilities(trt: Any, options: BuildOptions) -> list[object]:
    """Return the library's members for `8.9`, `12.0` and the like.

    Raises:
        ConfigError: the library builds for no such GPU; the message lists those it knows.
    """
    members = sorted(trt.ComputeCapability.__members__.items(), key=lambda item: int(item[1]))
    known = {_dotted(name): member for name, member in members if name.startswith("SM")}
    for asked in options.compute_capabilities:
        if asked not in known:
            raise ConfigError(
                f"compute capability {asked!r}: TensorRT for RTX {trt.__version__} builds for {', '.join(known)}"
            )
    return [known[asked] for asked in options.compute_capabilities]


def _dotted(name: str) -> str:
    """Return `8.9` for `SM89` and `12.0` for `SM120`."""
    digits = name.removeprefix("SM")
    return f"{digits[:-1]}.{digits[-1]}"


def _set_capabilities(session: Session, options: BuildOptions) -> None:
    members = _capabilities(session.trt, options)
    if not members:
        return
    session.config.num_compute_capabilities = len(members)
    for index, member in enumerate(members):
        taken = session.config.set_compute_capability(member, index)
        assert taken, member
