"""TensorRT's build path on a strict stand-in of every version that is supported, and everything that can go wrong."""

import ctypes
import errno
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_cuda_core
import numpy as np
import pytest
from strict_api import Api
from strict_tensorrt import RTX, VERSIONS, Behavior, StandIn, plan_version, stand_in
from tiny_artifact import expected_mask
from trt_request import GPU, build_request

from segkc_deploy import atomic, cuda_probe, progress
from segkc_deploy.cuda_probe import Gpu, cuda_obstacle, find_gpu
from segkc_deploy.errors import BuildError, ConfigError, MissingDependencyError, UserError
from segkc_deploy.export.engines import trt_engine, trt_rtx_engine
from segkc_deploy.export.engines.base import BuildOptions
from segkc_deploy.export.engines.trt_engine import TensorRTEngine
from segkc_deploy.export.engines.trt_inspector import layer_precision
from segkc_deploy.export.engines.trt_progress import BuildProgress
from segkc_deploy.export.engines.trt_rtx_engine import TensorRTRTXEngine
from segkc_deploy.export.export_run import export_run
from segkc_deploy.export.settings import ExportSettings


@pytest.fixture
def behavior() -> Behavior:
    return Behavior()


@pytest.fixture(params=VERSIONS)
def library(request: pytest.FixtureRequest, behavior: Behavior, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return use(request.param, behavior, monkeypatch)


@pytest.fixture
def newest(behavior: Behavior, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return use(VERSIONS[-1], behavior, monkeypatch)


def use(version: str, behavior: Behavior, monkeypatch: pytest.MonkeyPatch, gpu: Gpu = GPU) -> StandIn:
    """Install the stand-in of `version`, and pretend that there is a GPU."""
    module = stand_in(version, behavior)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(trt_engine, "find_gpu", lambda: gpu)
    fake_cuda_core.install(monkeypatch, behavior.device)
    return module


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


# --- the stand-in itself: a check that cannot fail would be none --------------------------------------------------


def _config(module: StandIn) -> Any:
    return module.Builder(module.Logger()).create_builder_config()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda trt: trt.NoSuchClass,
        lambda trt: trt.BuilderFlag.NO_SUCH_FLAG,
        lambda trt: _config(trt).no_such_method,
        lambda trt: setattr(_config(trt), "no_such_attribute", 1),
        lambda trt: setattr(_config(trt), "num_optimization_profiles", 1),
        lambda trt: setattr(_config(trt), "builder_optimization_level", "3"),
        lambda trt: setattr(_config(trt), "profiling_verbosity", 2),
        lambda trt: _config(trt).set_flag(6),
        lambda trt: _config(trt).set_flag(trt.DataType.FLOAT),
        lambda trt: _config(trt).set_timing_cache(None, False),
        lambda trt: _config(trt).create_timing_cache(),
        lambda trt: trt.Builder(trt.Logger()).create_network(flag=1),
        lambda trt: trt.Builder(trt.Logger()).create_network(1, 2),
        lambda trt: trt.Builder("no logger"),
        lambda trt: trt.IBuilderConfig(),
        lambda trt: trt.Builder(type("Forgetful", (trt.ILogger,), {"__init__": lambda self: None})()),
    ],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_stand_in_refuses_what_the_bindings_refuse(version: str, wrong: Callable[[Any], Any]) -> None:
    with pytest.raises((AttributeError, TypeError)):
        wrong(stand_in(version))


def test_the_stand_ins_differ_as_the_versions_do() -> None:
    old, new = stand_in("10.13"), stand_in("11.4")
    assert old.BuilderFlag.FP16.value == 0
    with pytest.raises(AttributeError):
        new.BuilderFlag.FP16  # noqa: B018
    assert int(old.NetworkDefinitionCreationFlag.STRONGLY_TYPED) == 1
    assert int(new.NetworkDefinitionCreationFlag.STRONGLY_TYPED) == 0
    assert old.BuilderFlag.STRIP_PLAN.value != new.BuilderFlag.STRIP_PLAN.value
    assert new.__version__.startswith("11.4")


# --- the build ---------------------------------------------------------------------------------------------------


def test_a_plan_is_built_and_gives_the_networks_masks(library: StandIn, behavior: Behavior, tmp_path: Path) -> None:
    request = build_request(tmp_path / "tiny.engine")
    built = TensorRTEngine().build(request)
    plan = request.path.read_bytes()
    assert plan[:4] == b"ftrt"
    assert ".".join(map(str, plan_version(plan))).startswith(library.__version__[:5])
    assert names(tmp_path) == ["tiny.engine"]

    (record,) = behavior.builds
    assert record["network_flags"] == ["STRONGLY_TYPED"]
    assert record["verbosity"] == "DETAILED"
    assert record["profiles"] == [{"images": [(1, 8, 12, 3), (2, 8, 12, 3), (4, 8, 12, 3)]}]
    assert record["flags"] == []  # and so not TF32, which is on by default
    assert record["cache"] == b""  # nothing was measured before

    assert built.build is not None
    assert built.build.builder == "tensorrt"
    assert built.build.version == library.__version__
    assert built.build.onnx_sha256 == hashlib.sha256(request.model.SerializeToString()).hexdigest()
    assert (built.build.gpu, built.build.compute_capability, built.build.driver) == (
        GPU.name,
        GPU.compute_capability,
        GPU.driver,
    )
    assert built.build.flags == ("STRONGLY_TYPED",)
    assert built.build.options["profile"] == {"images": [[1, 8, 12, 3], [2, 8, 12, 3], [4, 8, 12, 3]]}
    # A manifest is compared after a way through JSON.
    assert type(built.build).model_validate_json(built.build.model_dump_json()) == built.build
    assert built.layer_precision is not None
    assert built.layer_precision.source == "inspector"
    assert built.layer_precision.layers == {"fp16": {"Conv": 1}, "fp32": {"SoftMax": 1}}

    images = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3)).astype(np.uint8)
    assert (run_plan(library, plan, images) == np.stack([expected_mask(image) for image in images])).all()


def run_plan(library: StandIn, plan: bytes, images: np.ndarray) -> np.ndarray:
    """Run a plan with as few calls as possible; `masks` are returned."""
    engine = library.Runtime(library.Logger()).deserialize_cuda_engine(plan)
    context, device = engine.create_execution_context(), library.behavior.device
    assert context.set_input_shape("images", images.shape)
    source, target = device.allocate(images.nbytes), device.allocate(images[..., 0].size)
    device.write(source, images.tobytes())
    stream = device.create_stream()
    assert context.set_tensor_address("images", source)
    assert context.set_tensor_address("masks", target)
    assert context.execute_async_v3(stream)
    device.synchronize(stream)
    return np.frombuffer(device.read(target, images[..., 0].size), np.uint8).reshape(images.shape[:3])


def test_a_wrong_profile_would_not_be_built(newest: StandIn, tmp_path: Path) -> None:
    request = build_request(tmp_path / "tiny.engine", size=(8, 12))
    other = build_request(tmp_path / "tiny.engine", model=request.model, size=(16, 12))
    with pytest.raises(BuildError, match="profile"):
        TensorRTEngine().build(other)


def test_options_become_flags_by_name(library: StandIn, behavior: Behavior, tmp_path: Path) -> None:
    request = build_request(
        tmp_path / "tiny.engine",
        workspace_mib=512,
        optimization_level=5,
        version_compatible=True,
        hardware_compatible="ampere_plus",
    )
    built = TensorRTEngine().build(request)
    (record,) = behavior.builds
    assert record["flags"] == ["VERSION_COMPATIBLE"]
    assert record["pools"] == {"WORKSPACE": 512 << 20}
    assert record["level"] == 5
    assert record["hardware"] == "AMPERE_PLUS"
    assert built.build is not None
    assert built.build.flags == ("STRONGLY_TYPED", "VERSION_COMPATIBLE")
    assert built.build.options["hardware_compatible"] == "ampere_plus"
    assert built.build.options["builder_optimization_level"] == 5
    assert built.build.options["workspace_mib"] == 512


def test_a_stripped_plan_can_be_refitted_with_the_same_weights(
    library: StandIn, behavior: Behavior, tmp_path: Path
) -> None:
    request = build_request(tmp_path / "tiny.engine", strip_weights=True)
    built = TensorRTEngine().build(request)
    # Plain REFIT may drop a bias.
    assert behavior.builds[0]["flags"] == ["REFIT_IDENTICAL", "STRIP_PLAN"]
    assert built.build is not None
    assert built.build.flags == ("STRONGLY_TYPED", "STRIP_PLAN", "REFIT_IDENTICAL")
    weights = (tmp_path / "tiny.weights.onnx").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == built.build.onnx_sha256

    logger = library.Logger()
    engine = library.Runtime(logger).deserialize_cuda_engine(request.path.read_bytes())
    assert engine.create_execution_context() is None
    refitter = library.Refitter(engine, logger)
    assert library.OnnxParserRefitter(refitter, logger).refit_from_bytes(weights)
    assert refitter.refit_cuda_engine()
    assert engine.create_execution_context() is not None
    assert built.layer_precision is None  # without weights no shapes can be set, and without shapes no type is told


def test_an_fp8_engine_needs_a_gpu_that_has_fp8(
    behavior: Behavior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use("11.4", behavior, monkeypatch, Gpu("NVIDIA A100", "8.0", "580.65.06"))
    TensorRTEngine().check(BuildOptions(), "bf16")
    with pytest.raises(ConfigError, match=r"fp8 .* 8\.9, and the NVIDIA A100 has 8\.0"):
        TensorRTEngine().check(BuildOptions(), "fp8")
    with pytest.raises(ConfigError, match="fp8"):
        TensorRTEngine().build(build_request(tmp_path / "a.engine", precision="fp8"))
    assert names(tmp_path) == []
    # Before anything is read, let alone calibrated: there is no such run.
    with pytest.raises(ConfigError, match="fp8"):
        export_run(tmp_path / "none", settings=ExportSettings(engine="trt", precision="fp8"))
    use("11.4", behavior, monkeypatch, Gpu("NVIDIA T4", "7.5", "580.65.06"))
    with pytest.raises(ConfigError, match="bf16"):
        TensorRTEngine().check(BuildOptions(), "bf16")
    with pytest.raises(ConfigError, match="Ampere"):
        TensorRTEngine().check(BuildOptions(hardware_compatible="ampere_plus"), "fp32")


@pytest.mark.parametrize(("precision", "named"), [("fp8", "8.6"), ("bf16", "7.5")])
def test_rtx_refuses_a_precision_that_a_named_gpu_lacks(
    precision: str, named: str, behavior: Behavior, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(RTX, behavior, monkeypatch)
    TensorRTRTXEngine().check(BuildOptions(), precision)
    TensorRTRTXEngine().check(BuildOptions(compute_capabilities=("8.9", "12.0")), precision)
    with pytest.raises(ConfigError, match=f"{precision} needs .* names {named}; use fp16 or int8"):
        TensorRTRTXEngine().check(BuildOptions(compute_capabilities=("8.9", named)), precision)


# --- the timing cache ---------------------------------------------------------------------------------------------


def _build_with_cache(tmp_path: Path) -> None:
    TensorRTEngine().build(build_request(tmp_path / "tiny.engine", timing_cache=tmp_path / "cache"))


def test_the_timing_cache_is_kept_and_used(library: StandIn, behavior: Behavior, tmp_path: Path) -> None:
    _build_with_cache(tmp_path)
    _build_with_cache(tmp_path)
    first, second = (record["cache"] for record in behavior.builds)
    assert first == b""
    assert second == b"timings."
    (path,) = (tmp_path / "cache").iterdir()
    for part in ("Pretended-4090", "cc8.9", "580.65.06", library.__version__):
        assert part in path.name


def test_another_version_has_a_cache_of_its_own(
    behavior: Behavior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("10.16", "11.4"):
        use(version, behavior, monkeypatch)
        _build_with_cache(tmp_path)
    assert [record["cache"] for record in behavior.builds] == [b"", b""]
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize("damage", [lambda content: content[:20], lambda content: content[:-1] + b"?"])
def test_a_damaged_cache_is_left_aside(
    newest: StandIn,
    behavior: Behavior,
    tmp_path: Path,
    damage: Callable[[bytes], bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    _build_with_cache(tmp_path)
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(damage(path.read_bytes()))
    capsys.readouterr()
    _build_with_cache(tmp_path)
    assert behavior.builds[1]["cache"] == b""
    assert "is damaged; building without it" in capsys.readouterr().err.replace("\n", "")
    _build_with_cache(tmp_path)
    assert behavior.builds[2]["cache"] == b"timings."


def test_a_cache_that_cannot_be_written_costs_a_note(
    newest: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    _build_with_cache(tmp_path)
    assert (tmp_path / "tiny.engine").is_file()
    said = capsys.readouterr().err
    assert "cannot be read" in said
    assert "was not kept" in said


# --- what can go wrong --------------------------------------------------------------------------------------------


def test_ctrl_c_stops_the_build_and_leaves_nothing(library: StandIn, behavior: Behavior, tmp_path: Path) -> None:
    seen: list[int] = []

    def interrupt(step: int) -> None:
        seen.append(step)
        if step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        if step >= 1:
            time.sleep(0.2)  # the main thread has to hear of it

    behavior.steps, behavior.at_step = 50, interrupt
    with pytest.raises(KeyboardInterrupt):
        _build_with_cache(tmp_path)
    assert 1 < len(seen) < 10
    assert names(tmp_path) == []


def test_what_the_parser_refuses_is_listed(library: StandIn, behavior: Behavior, tmp_path: Path) -> None:
    behavior.parse_errors = [(f"/decoder/node_{index}", "Resize", "antialias is\nnot supported") for index in range(7)]
    with pytest.raises(BuildError) as caught:
        TensorRTEngine().build(build_request(tmp_path / "tiny.engine"))
    message = str(caught.value)
    assert "\n" not in message
    assert f"the parser of TensorRT {library.__version__} refuses the graph" in message
    assert "Resize /decoder/node_0 (UNSUPPORTED_NODE): antialias is not supported" in message
    assert "/decoder/node_4" in message
    assert "and 2 more" in message
    assert caught.value.exit_code == 1
    assert names(tmp_path) == []


def test_a_failed_build_says_what_the_library_logged(library: StandIn, behavior: Behavior, tmp_path: Path) -> None:
    behavior.build_errors = ["first", "second", "third", "Could not find any implementation\nfor node {ForeignNode}"]
    with pytest.raises(BuildError) as caught:
        _build_with_cache(tmp_path)
    assert str(caught.value).endswith("second; third; Could not find any implementation for node {ForeignNode}")
    assert "tiny.engine" in str(caught.value)
    assert names(tmp_path) == []


def test_a_full_disk_leaves_no_half_plan(newest: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(atomic, "_fsync", full)  # where a full disk is often first noticed
    with pytest.raises(OSError, match="No space left"):
        TensorRTEngine().build(build_request(tmp_path / "tiny.engine"))
    assert names(tmp_path) == []


@pytest.mark.parametrize("engine", [TensorRTEngine(), TensorRTRTXEngine()], ids=lambda engine: engine.name)
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trt_engine, "find_gpu", lambda: GPU)
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError) as caught:
        engine.check(BuildOptions(), "fp32")
    assert "pip install" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_cuda_core_is_told_before_the_build(newest: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    with pytest.raises(MissingDependencyError, match="pip install 'cuda-core"):
        TensorRTEngine().check(BuildOptions(), "fp32")


@pytest.mark.parametrize("version", ["8.6.1", "10.12.0.36", "12.0.0", "unknown"])
def test_another_version_of_tensorrt_is_refused(newest: StandIn, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newest, "__version__", version)
    with pytest.raises(MissingDependencyError, match=r"10\.13 .*12\.0"):
        TensorRTEngine().check(BuildOptions(), "fp32")


def test_without_a_driver_tensorrt_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    class Untouchable:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"tensorrt.{name} was used before CUDA was known to be there")

    def nothing(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setitem(sys.modules, "tensorrt", Untouchable())
    monkeypatch.setattr(cuda_probe.ctypes, "CDLL", nothing)
    with pytest.raises(ConfigError, match="no NVIDIA driver"):
        TensorRTEngine().check(BuildOptions(), "fp32")


@pytest.mark.parametrize(
    ("engine", "options", "says"),
    [
        (TensorRTEngine(), {"compute_capabilities": ("8.9",)}, "trt-rtx"),
        (TensorRTEngine(), {"optimization_level": 6}, "0 .* 5"),
        (TensorRTEngine(), {"workspace_mib": 0}, "1 or more"),
        (TensorRTEngine(), {"hardware_compatible": "hopper"}, "ampere_plus or same_compute_capability"),
        (TensorRTRTXEngine(), {"version_compatible": True}, "not for the engine trt-rtx"),
        (TensorRTRTXEngine(), {"hardware_compatible": "ampere_plus"}, "not for the engine trt-rtx"),
        (TensorRTRTXEngine(), {"strip_weights": True}, "not for the engine trt-rtx"),
        (TensorRTRTXEngine(), {"timing_cache": Path("cache")}, "not for the engine trt-rtx"),
        (TensorRTRTXEngine(), {"optimization_level": -1}, "0 .* 5"),
        (TensorRTRTXEngine(), {"compute_capabilities": ("9.0",)}, "7.5, 8.0, 8.6, 8.9, 12.0, 12.1"),
    ],
)
def test_an_option_that_cannot_be_is_refused_before_any_work(
    newest: StandIn, engine: Any, options: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(RTX, Behavior(), monkeypatch)
    with pytest.raises(UserError, match=says):
        engine.check(BuildOptions(**options), "fp32")


# --- TensorRT for RTX -----------------------------------------------------------------------------------------------


def test_rtx_builds_for_named_gpus_without_one(
    behavior: Behavior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = use(RTX, behavior, monkeypatch)
    monkeypatch.setattr(trt_rtx_engine, "cuda_obstacle", lambda: "there is no GPU")
    request = build_request(tmp_path / "tiny.rtx", compute_capabilities=("8.9", "12.0"))
    built = TensorRTRTXEngine().build(request)
    (record,) = behavior.builds
    assert record["capabilities"] == ["SM89", "SM120"]
    assert record["network_flags"] == ["STRONGLY_TYPED"]
    assert request.path.read_bytes()[:4] == b"vtrt"
    assert built.build is not None
    assert built.build.builder == "tensorrt-rtx"
    assert built.build.version == library.__version__
    assert built.build.options["compute_capabilities"] == ["8.9", "12.0"]
    assert built.build.gpu is None
    assert built.layer_precision is None
    assert TensorRTRTXEngine().verification_device("fp16", BuildOptions()) == ""
    TensorRTRTXEngine().build(build_request(tmp_path / "other.rtx"))
    assert behavior.builds[1]["capabilities"] == []


def test_rtx_inspects_the_plan_where_there_is_a_gpu(
    behavior: Behavior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(RTX, behavior, monkeypatch)
    monkeypatch.setattr(trt_rtx_engine, "cuda_obstacle", lambda: "")
    monkeypatch.setattr(trt_rtx_engine, "find_gpu", lambda: Gpu("a GPU", "8.9", "580.65.06"))
    monkeypatch.setattr(trt_rtx_engine, "import_cuda_core", lambda: None)
    assert TensorRTRTXEngine().verification_device("fp16", BuildOptions()) == "cuda"
    built = TensorRTRTXEngine().build(build_request(tmp_path / "tiny.rtx"))
    assert built.layer_precision is not None
    assert built.layer_precision.layers == {"fp16": {"Conv": 1}, "fp32": {"SoftMax": 1}}


# --- the inspector's words ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tensor", "tactic", "expected"),
    [
        ({"Format/Datatype": "Row major linear FP16 format"}, "", "fp16"),
        ({"Format/Datatype": "Half"}, "", "fp16"),
        ({"Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}, "", "int8"),
        ({"Format/Datatype": "Row major linear BFloat16 format"}, "", "bf16"),
        ({"Format/Datatype": "Row major linear FP8 format"}, "", "fp8"),
        ({"Format/Datatype": "Float"}, "sm80_xmma_gemm_f32f32", "fp32"),
        ({"Format/Datatype": "Float"}, "sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32", "tf32"),
        ({"Format/Datatype": "Row major linear UInt8 format"}, "", "uint8"),
        ({"Format": "Row major linear FP16 format (kLINEAR)", "DataType": "Half"}, "", "fp16"),
        ({"Format": "Channel major", "Datatype": "FP8"}, "", "fp8"),
        ({"DataType": "Int64"}, "", "int64"),
    ],
)
def test_a_layers_precision_is_read_from_what_it_reads(tensor: dict[str, str], tactic: str, expected: str) -> None:
    layer = {"LayerType": "gemm", "Inputs": [tensor], "Outputs": [], "TacticName": tactic}
    result = layer_precision(as_json([layer]))
    assert result is not None
    assert result.layers == {expected: {"gemm": 1}}


def test_layers_are_counted_and_the_untold_are_unknown() -> None:
    int8, half, untold = (
        {"Format/Datatype": text} for text in ("Int8", "Row major linear FP16 format", "N/A due to dynamic shapes")
    )
    result = layer_precision(
        as_json(
            [
                {"LayerType": "CaskConvolution", "Inputs": [int8], "Outputs": [half]},
                {"LayerType": "CaskConvolution", "Inputs": [int8], "Outputs": [int8]},
                {"LayerType": "Constant", "Inputs": [], "Outputs": [half]},
                {"LayerType": "kgen", "Inputs": [{"Format/Datatype": "Int64"}, half], "Outputs": [half]},
                {"LayerType": "NoOp", "Inputs": [untold], "Outputs": [untold]},
            ]
        )
    )
    assert result is not None
    assert result.layers == {
        "int8": {"CaskConvolution": 2},
        "fp16": {"Constant": 1, "kgen": 1},
        "unknown": {"NoOp": 1},
    }
    assert layer_precision(as_json(["conv + relu", "softmax"])) is None
    assert layer_precision(as_json([{"LayerType": "NoOp", "Inputs": [untold], "Outputs": []}])) is None


def as_json(layers: list[Any]) -> str:
    return json.dumps({"Layers": layers})


# --- progress -------------------------------------------------------------------------------------------------------


def test_progress_counts_phases_within_phases_and_never_falls() -> None:
    told: list[tuple[float, str]] = []
    build = BuildProgress(lambda share, what: told.append((share, what)))
    build.start("engine", None, 2)
    build.start("graph", "engine", 4)
    assert build.step("graph", 0)
    assert build.share == 1 / 8
    assert build.step("graph", 3)
    build.finish("graph")
    assert build.step("engine", 0)
    assert build.share == 1 / 2
    build.start("tactics", "engine", 10)
    build.step("tactics", 4)
    assert build.share == pytest.approx(3 / 4)
    build.start("tactics", "engine", 100)  # the same phase once more
    build.step("tactics", 0)
    assert build.share == pytest.approx(3 / 4)
    assert build.step("a phase that was never begun", 3)
    build.cancel()
    assert not build.step("tactics", 1)
    assert [what for _, what in told] == ["graph", "graph", "engine", "tactics", "tactics", "stopping after this step"]


def test_work_of_one_go_is_told_now_and_then_in_a_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 4.0, 12.0, 12.0, 15.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.progress("building") as tell:
        tell(0.1, "first")
        tell(0.25, "[second]")
        tell(0.3, "third")
    assert capsys.readouterr().err == "building: 25%, [second]\n"


# --- the probe ------------------------------------------------------------------------------------------------------


class FakeDriver:
    """`libcuda` with one GPU, or none; `libnvidia-ml` where it is asked for."""

    def __init__(self, count: int = 1, management: bool = True) -> None:
        self.count, self.management = count, management

    def __call__(self, name: str) -> "FakeDriver":
        if "ml" in name and not self.management:
            raise OSError(name)
        return self

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return 0 if self.count else 100

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.count
        return 0

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:  # noqa: N802
        return 0 if ordinal == 0 else 101

    def cuDeviceGetName(self, name: Any, length: int, device: Any) -> int:  # noqa: N802
        name.value = b"NVIDIA Pretended"
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        value._obj.value = {75: 12, 76: 1}[attribute]
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = 13020
        return 0

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0

    def nvmlSystemGetDriverVersion(self, text: Any, length: int) -> int:  # noqa: N802
        text.value = b"580.65.06"
        return 0

    def nvmlShutdown(self) -> int:  # noqa: N802
        return 0


def test_the_probe_describes_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", FakeDriver())
    assert cuda_obstacle() == ""
    assert find_gpu() == Gpu("NVIDIA Pretended", "12.1", "580.65.06")
    monkeypatch.setattr(ctypes, "CDLL", FakeDriver(management=False))
    assert find_gpu().driver == "CUDA 13.2"
    monkeypatch.setattr(ctypes, "CDLL", FakeDriver(count=0))
    with pytest.raises(ConfigError, match="finds no GPU"):
        find_gpu()


def test_the_trimmed_descriptions_are_of_the_versions_they_are_named_after() -> None:
    for version in (*VERSIONS, RTX):
        assert Api(f"trt-{version}", "any").version.startswith(version.removeprefix("rtx-") + ".")
