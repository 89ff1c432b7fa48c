"""ONNX → TensorRT engine: a plain plan for this machine's GPU, which trtexec and Triton load as it is."""

from segkc_deploy import atomic
from segkc_deploy.cuda_probe import Gpu, find_gpu
from segkc_deploy.errors import ConfigError
from segkc_deploy.export.engines.base import BuildOptions, BuildRequest, Built, Engine
from segkc_deploy.export.engines.trt_build import Session
from segkc_deploy.export.engines.trt_cache import cache_path, read_cache, write_cache
from segkc_deploy.export.engines.trt_options import check_common_options, check_precision, parse_capability, refuse
from segkc_deploy.manifest import companion_path
from segkc_deploy.runners.device_memory import import_cuda_core
from segkc_deploy.tensorrt_library import LIBRARIES, WEIGHTS
from segkc_deploy.user_cache import cache_folder

LIBRARY = LIBRARIES["trt"]

_HARDWARE = ("ampere_plus", "same_compute_capability")


class TensorRTEngine(Engine):
    """TensorRT 10.13 to 11.x. Building needs the GPU that the engine is for."""

    name = "trt"
    companion_suffixes = (WEIGHTS,)
    fused_attention = False

    def check(self, options: BuildOptions, precision: str) -> None:
        """Raise a UserError at once if this machine cannot build.

        Raises:
            ConfigError: there is no GPU, it lacks the precision, or an option is out of range or not for this engine.
            MissingDependencyError: TensorRT or cuda-core is missing or of another version.
        """
        _check_options(options)
        # A runtime without a driver can crash instead of failing: TensorRT comes after CUDA.
        _check_gpu(find_gpu(), options, precision)
        LIBRARY.load()
        import_cuda_core()  # runs the engine when it is verified, after a build of minutes

    def build(self, request: BuildRequest) -> Built:
        """Write the plan to `request.path`, whole or not at all; a stripped one with its ONNX file beside it.

        Raises:
            BuildError: TensorRT refused the graph or failed.
            KeyboardInterrupt: the user stopped the build; nothing is written.
        """
        self.check(request.options, request.precision)
        gpu, options = find_gpu(), request.options
        session = Session(LIBRARY, LIBRARY.load(), request)
        session.prepare()
        _configure(session, options)
        plan = _build_with_cache(session, options, gpu)
        if options.strip_weights:
            # The runner takes the weights from there; the plan comes last, since without them it is none.
            atomic.write_bytes(companion_path(request.path, WEIGHTS), session.model)
        atomic.write_bytes(request.path, plan)
        build = session.describe(hardware_compatible=options.hardware_compatible)
        machine = {"gpu": gpu.name, "compute_capability": gpu.compute_capability, "driver": gpu.driver}
        return Built(build=build.model_copy(update=machine), layer_precision=session.inspect(plan))


def _check_options(options: BuildOptions) -> None:
    check_common_options(options)
    instead = {"compute_capabilities": "it builds for this machine's GPU; trt-rtx builds for named ones"}
    refuse(options, TensorRTEngine.name, instead)
    if options.hardware_compatible is not None and options.hardware_compatible not in _HARDWARE:
        raise ConfigError(
            f"hardware compatible with {options.hardware_compatible!r} is not known; use {' or '.join(_HARDWARE)}"
        )


def _check_gpu(gpu: Gpu, options: BuildOptions, precision: str) -> None:
    check_precision(precision, gpu.compute_capability, f"the {gpu.name} has")
    if options.hardware_compatible == "ampere_plus" and parse_capability(gpu.compute_capability) < (8, 0):
        raise ConfigError(
            f"hardware compatible with ampere_plus: the {gpu.name} has compute capability {gpu.compute_capability},"
            " below Ampere's 8.0; build without it"
        )


def _configure(session: Session, options: BuildOptions) -> None:
    if options.version_compatible:
        session.set_flag("VERSION_COMPATIBLE")
    if options.strip_weights:
        session.set_flag("STRIP_PLAN")
        # Plain REFIT may drop biases that are zero at build time.
        session.set_flag("REFIT_IDENTICAL")
    if options.hardware_compatible is not None:
        level = getattr(session.trt.HardwareCompatibilityLevel, options.hardware_compatible.upper())
        session.config.hardware_compatibility_level = level


def _build_with_cache(session: Session, options: BuildOptions, gpu: Gpu) -> bytes:
    """Build with the timings of earlier builds on this machine, and keep those of this one."""
    path = cache_path(options.timing_cache or cache_folder("tensorrt"), gpu, session.trt.__version__)
    config = session.config
    cache = config.create_timing_cache(read_cache(path))
    if cache is None or not config.set_timing_cache(cache, False):
        # Measured on another device or version in spite of its name: begin a new one.
        config.set_timing_cache(config.create_timing_cache(b""), False)
    plan = session.build()
    write_cache(path, bytes(config.get_timing_cache().serialize()))
    return plan
