"""TensorRT engines run: on strict stand-ins of every supported version, and on a real GPU where there is one."""

import importlib.util
import inspect
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import fake_cuda_core
import numpy as np
import onnx
import pytest
from fake_device import INFERENCE_MS
from strict_tensorrt import RTX, VERSIONS, Behavior, stand_in
from tiny_artifact import BIAS, WEIGHTS, expected_mask, expected_scores, make_artifact, manifest_of, network
from trt_request import GPU as BUILT_ON
from trt_request import build_request

import segkc_deploy
from segkc_deploy import cuda_probe, engine_match
from segkc_deploy.cuda_probe import Gpu, cuda_obstacle
from segkc_deploy.errors import ArtifactError, ConfigError, MissingDependencyError, SegKCError
from segkc_deploy.export.engines.registry import find_engine
from segkc_deploy.manifest import (
    Build,
    Contract,
    Manifest,
    TensorContract,
    companion_path,
    read_manifest,
    sha256_of,
    write_manifest,
)
from segkc_deploy.probes import PROBES
from segkc_deploy.runners.trt_runner import TensorRTRunner
from segkc_deploy.tensorrt_library import LIBRARIES, collect_log
from segkc_deploy.tensorrt_library import WEIGHTS as COMPANION

GPU = Gpu("NVIDIA H200", "9.0", "580.65.06")
SIZE = (8, 12)
Shape = tuple[int, ...]
Profile = tuple[Shape, Shape, Shape]
#: for batches of 1 to 4
PROFILE: Profile = ((1, *SIZE, 3), (2, *SIZE, 3), (4, *SIZE, 3))


# --- engines -----------------------------------------------------------------------------------------------------


def plan_of(
    trt: Any, model: onnx.ModelProto, profile: tuple[Shape, Shape, Shape], flags: tuple[str, ...] = ()
) -> bytes:
    """Build a plan, with a stand-in or with the real library."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    built = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(built, logger)
    assert parser.parse(model.SerializeToString()), [parser.get_error(i).desc() for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    for flag in flags:
        config.set_flag(getattr(trt.BuilderFlag, flag))
    shapes = builder.create_optimization_profile()
    shapes.set_shape("images", *profile)
    config.add_optimization_profile(shapes)
    return bytes(builder.build_serialized_network(built, config))


#: a network of free batch, height and width with a float32 output beside its masks
FREE_OUTPUTS = (
    TensorContract(name="masks", dtype="uint8", layout="NHW"),
    TensorContract(name="logits", dtype="float32", layout="NHWC"),
)


def free_network() -> onnx.ModelProto:
    return network(None, -1, [tensor.name for tensor in FREE_OUTPUTS])


def build_of(trt: Any, engine: str, gpu: Gpu, **changes: Any) -> Build:
    fields = {
        "builder": LIBRARIES[engine].builder,
        "version": trt.__version__,
        "gpu": gpu.name,
        "compute_capability": gpu.compute_capability,
        "driver": gpu.driver,
        "flags": ("STRONGLY_TYPED",),
    }
    return Build(**(fields | changes))


@dataclass
class Machine:
    """A pretended machine: TensorRT, CUDA and a folder."""

    trt: Any
    behavior: Behavior
    cuda: fake_cuda_core.Gpu
    folder: Path
    monkeypatch: pytest.MonkeyPatch
    engine: str = "trt"

    def artifact(
        self,
        model: onnx.ModelProto | None = None,
        profile: Profile = PROFILE,
        flags: tuple[str, ...] = (),
        outputs: tuple[TensorContract, ...] | None = None,
        **build: Any,
    ) -> Path:
        """Write an engine for batches of 1 to 4 and its manifest."""
        model = model or network(SIZE, -1)
        path = self.folder / "junior-fp16.engine"
        path.write_bytes(plan_of(self.trt, model, profile, flags))
        masks = TensorContract(name="masks", dtype="uint8", layout="NHW")
        contract = Contract(
            input=TensorContract(name="images", dtype="uint8", layout="NHWC"), outputs=outputs or (masks,), size=SIZE
        )
        manifest = manifest_of(
            path,
            engine=self.engine,
            precision="fp16",
            contract=contract,
            build=build_of(self.trt, self.engine, GPU, flags=("STRONGLY_TYPED", *flags), **build),
        )
        write_manifest(path, manifest)
        return path

    def runner(self, path: Path, **options: Any) -> TensorRTRunner:
        return TensorRTRunner(path, read_manifest(path), **options)

    def has_gpu(self, gpu: Gpu) -> None:
        self.monkeypatch.setattr("segkc_deploy.runners.trt_runner.find_gpu", lambda: gpu)


@pytest.fixture
def machine_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Machine]]:
    machines = []

    def make(version: str) -> Machine:
        behavior = Behavior()
        trt = stand_in(version, behavior)
        engine = "trt-rtx" if version == RTX else "trt"
        monkeypatch.setitem(sys.modules, "tensorrt_rtx" if version == RTX else "tensorrt", trt)
        cuda = fake_cuda_core.install(monkeypatch, behavior.device)
        machines.append(Machine(trt, behavior, cuda, tmp_path, monkeypatch, engine))
        machines[-1].has_gpu(GPU)
        return machines[-1]

    yield make
    for machine in machines:
        assert machine.cuda.leaks == []


@pytest.fixture(params=[*VERSIONS, RTX])
def machine(request: pytest.FixtureRequest, machine_of: Callable[[str], Machine]) -> Machine:
    return machine_of(request.param)


@pytest.fixture
def newest(machine_of: Callable[[str], Machine]) -> Machine:
    return machine_of("11.4")


def batch_of(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def masks_of(images: np.ndarray) -> np.ndarray:
    return np.stack([expected_mask(image) for image in images])


def assert_right_on_a_gpu(masks: np.ndarray, images: np.ndarray) -> None:
    """Every pixel has a class of the highest score: which one of several, TensorRT does not promise."""
    scores = np.stack([expected_scores(image) for image in images])
    given = np.take_along_axis(scores, masks[..., None].astype(np.int64), axis=-1)[..., 0]
    np.testing.assert_array_equal(given, scores.max(axis=-1))


def refusal(activate: Callable[[], object], kind: type[SegKCError]) -> str:
    """Return the one line with which `activate` has to fail."""
    with pytest.raises(kind) as refused:
        activate()
    assert refused.type is kind
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_probe_of_doctor_builds_an_engine_and_runs_it(machine: Machine) -> None:
    machine.monkeypatch.setattr(cuda_probe, "find_gpu", lambda: GPU)
    PROBES[machine.engine]()


# --- the run path ------------------------------------------------------------------------------------------------


def test_batches_of_any_size_reuse_the_buffers(machine: Machine) -> None:
    with machine.runner(machine.artifact()) as runner:
        allocated = set(machine.cuda.device.memory) | set(machine.cuda.host)
        kept = []
        for seed, count in enumerate((2, 4, 1, 4, 3)):
            images = batch_of(count, *SIZE, seed=seed)
            kept.append((runner.infer(images), images))
        assert set(machine.cuda.device.memory) | set(machine.cuda.host) == allocated
        for outputs, images in kept:  # what an earlier call returned is not overwritten by a later one
            assert list(outputs) == ["masks"]
            assert outputs["masks"].dtype == np.uint8
            np.testing.assert_array_equal(outputs["masks"], masks_of(images))
        assert runner.description == f"{LIBRARIES[machine.engine].title} {machine.trt.__version__} NVIDIA H200"


def test_free_height_and_width_and_outputs_of_other_types(machine: Machine) -> None:
    profile = ((1, 4, 4, 3), (1, 8, 12, 3), (2, 16, 20, 3))
    with machine.runner(machine.artifact(free_network(), profile, outputs=FREE_OUTPUTS)) as runner:
        for shape in ((1, 16, 4), (2, 4, 20), (2, 16, 20), (1, 8, 12)):
            images = batch_of(*shape)
            found = runner.infer(images)
            np.testing.assert_array_equal(found["masks"], masks_of(images))
            assert found["logits"].dtype == np.float32
            np.testing.assert_array_equal(found["logits"], images.astype(np.float32) @ WEIGHTS.T + BIAS)


def test_a_fixed_shape_needs_no_profile_entry(newest: Machine) -> None:
    shape = (2, *SIZE, 3)
    images = batch_of(2, *SIZE)
    with newest.runner(newest.artifact(network(SIZE, 2), (shape, shape, shape))) as runner:
        np.testing.assert_array_equal(runner.infer(images)["masks"], masks_of(images))


def test_images_that_are_not_contiguous(newest: Machine) -> None:
    images = batch_of(2, SIZE[0], SIZE[1] * 2)[:, :, ::2]
    with newest.runner(newest.artifact()) as runner:
        np.testing.assert_array_equal(runner.infer(images)["masks"], masks_of(images))


def test_calls_from_several_threads(newest: Machine) -> None:
    batches = [batch_of(1 + seed % 4, *SIZE, seed=seed) for seed in range(12)]
    found: dict[int, np.ndarray] = {}
    with newest.runner(newest.artifact()) as runner:
        current = newest.cuda.current

        def work(index: int) -> None:
            found[index] = runner.infer(batches[index])["masks"]

        threads = [threading.Thread(target=work, args=(index,)) for index in range(len(batches))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert newest.cuda.current >= current + len(batches), "the device is current in one thread only"
    for index, images in enumerate(batches):
        np.testing.assert_array_equal(found[index], masks_of(images))


@pytest.mark.parametrize("version", VERSIONS)
def test_cuda_graphs_are_recorded_once_for_each_shape(version: str, machine_of: Callable[[str], Machine]) -> None:
    machine = machine_of(version)
    batches = []

    def compute(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        batches.append(len(inputs["images"]))
        return {"masks": masks_of(inputs["images"])}

    machine.behavior.compute = compute
    with machine.runner(machine.artifact(), cuda_graph=True) as runner:
        for seed, count in enumerate((1, 3, 1, 3, 1)):
            images = batch_of(count, *SIZE, seed=seed)
            np.testing.assert_array_equal(runner.infer(images)["masks"], masks_of(images))
        assert machine.cuda.open_graphs == 2
        assert machine.cuda.launches == 5
        assert batches == [1, 1, 3, 3, 1, 3, 1]  # each shape is run once before it is recorded
        assert runner.description.endswith("NVIDIA H200 with CUDA graphs")


@pytest.mark.parametrize("cuda_graph", [False, True])
@pytest.mark.parametrize("version", VERSIONS)
def test_the_networks_own_time_on_the_gpu(version: str, cuda_graph: bool, machine_of: Callable[[str], Machine]) -> None:
    machine = machine_of(version)
    with machine.runner(machine.artifact(), cuda_graph=cuda_graph) as runner:
        for seed in range(2):
            runner.infer(batch_of(1, *SIZE, seed=seed))
        assert runner.last_device_ms is None
        assert machine.cuda.recorded_events == 0, "users pay for no events"
        for _ in range(2):  # may be asked for again
            runner.time_device(True)
            runner.time_device(True)
            for seed, count in enumerate((1, 3, 1)):
                images = batch_of(count, *SIZE, seed=seed)
                np.testing.assert_array_equal(runner.infer(images)["masks"], masks_of(images))
                assert runner.last_device_ms == INFERENCE_MS, "the copies do not count"
            runner.time_device(False)
            assert runner.last_device_ms is None
        recorded = machine.cuda.recorded_events
        images = batch_of(2, *SIZE)
        np.testing.assert_array_equal(runner.infer(images)["masks"], masks_of(images))
        assert (machine.cuda.recorded_events, runner.last_device_ms) == (recorded, None)
        runner.time_device(True)  # freed with the runner, which the fixture checks


def test_rtx_tells_its_time_too(machine_of: Callable[[str], Machine]) -> None:
    machine = machine_of(RTX)
    with machine.runner(machine.artifact()) as runner:
        runner.time_device(True)
        runner.infer(batch_of(1, *SIZE))
        assert runner.last_device_ms == INFERENCE_MS


def test_many_shapes_after_timing(newest: Machine) -> None:
    profile = ((1, 1, 1, 3), (1, 8, 12, 3), (1, 20, 12, 3))
    path = newest.artifact(free_network(), profile, outputs=FREE_OUTPUTS)
    with newest.runner(path, cuda_graph=True) as runner:
        for height in range(1, 9):
            runner.infer(batch_of(1, height, 12))
        runner.time_device(True)
        runner.infer(batch_of(1, 20, 12))  # the graph that gives way is forgotten already
        assert newest.cuda.open_graphs == 1


def test_a_predictor_is_loaded_with_cuda_graphs(newest: Machine, tmp_path: Path) -> None:
    images = [batch_of(*SIZE, seed=seed) for seed in range(2)]
    with segkc_deploy.load(newest.artifact(), cuda_graph=True) as predictor:
        predictor.time_device(True)
        for image, mask in zip(images, predictor.predict(images), strict=True):
            np.testing.assert_array_equal(mask, expected_mask(image))
        assert predictor.last_device_ms == INFERENCE_MS
        assert predictor.description.endswith("with CUDA graphs")
    onnx_path = make_artifact(tmp_path / "onnx")
    line = refusal(lambda: segkc_deploy.load(onnx_path, cuda_graph=True), ConfigError)
    assert line == f"{onnx_path}: CUDA graphs are for the engine trt; run this one without"


def test_of_many_shapes_the_oldest_graph_gives_way(newest: Machine) -> None:
    profile = ((1, 1, 1, 3), (1, 8, 12, 3), (1, 20, 12, 3))
    path = newest.artifact(free_network(), profile, outputs=FREE_OUTPUTS)
    with newest.runner(path, cuda_graph=True) as runner:
        for height in (*range(1, 21), 1, 20):
            images = batch_of(1, height, 12)
            np.testing.assert_array_equal(runner.infer(images)["masks"], masks_of(images))
        assert newest.cuda.open_graphs == 8


def test_a_runner_can_be_activated_again(newest: Machine) -> None:
    runner = newest.runner(newest.artifact(), cuda_graph=True)
    images = batch_of(1, *SIZE)
    for _ in range(2):
        with runner:
            np.testing.assert_array_equal(runner.infer(images)["masks"], masks_of(images))
        assert newest.cuda.leaks == []


# --- the machine is compared before anything native is touched -----------------------------------------------------


def _forbid_import(machine: Machine) -> None:
    class Untouchable(ModuleType):
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(f"TensorRT was touched: {name}")

    machine.monkeypatch.setitem(sys.modules, "tensorrt", Untouchable("tensorrt"))


def test_no_driver(newest: Machine) -> None:
    path = newest.artifact()
    newest.monkeypatch.setattr("segkc_deploy.runners.trt_runner.find_gpu", cuda_probe.find_gpu)
    newest.monkeypatch.setattr(cuda_probe, "_load", lambda name: None)
    _forbid_import(newest)
    line = refusal(newest.runner(path).activate, ConfigError)
    assert "there is no NVIDIA driver" in line


def test_tensorrt_is_not_installed(newest: Machine) -> None:
    path = newest.artifact()
    newest.monkeypatch.setitem(sys.modules, "tensorrt", None)
    line = refusal(newest.runner(path).activate, MissingDependencyError)
    assert line.endswith('pip install --extra-index-url https://pypi.nvidia.com "segkc-deploy[trt]"')


def test_a_shared_library_of_tensorrt_is_missing(newest: Machine, tmp_path: Path) -> None:
    path = newest.artifact()
    (tmp_path / "site").mkdir()
    broken = "raise OSError('libnvinfer.so.11: cannot open shared object file:\\nNo such file or directory')\n"
    (tmp_path / "site" / "tensorrt.py").write_text(broken)
    newest.monkeypatch.syspath_prepend(tmp_path / "site")
    newest.monkeypatch.delitem(sys.modules, "tensorrt")
    assert "libnvinfer.so.11: cannot open" in refusal(newest.runner(path).activate, MissingDependencyError)


def test_cuda_core_is_not_installed(newest: Machine) -> None:
    path = newest.artifact()
    newest.monkeypatch.setitem(sys.modules, "cuda.core", None)
    assert "pip install 'cuda-core" in refusal(newest.runner(path).activate, MissingDependencyError)


def test_cuda_core_of_before_its_stable_names(newest: Machine) -> None:
    path = newest.artifact()
    old = ModuleType("cuda.core")
    old.__dict__["__version__"] = "0.4.2"
    newest.monkeypatch.setitem(sys.modules, "cuda.core", old)
    assert "cuda-core 0.4.2 is too old" in refusal(newest.runner(path).activate, MissingDependencyError)


def test_another_version(machine_of: Callable[[str], Machine]) -> None:
    path = machine_of("10.13").artifact()
    machine = machine_of("11.4")
    machine.monkeypatch.setattr(type(machine.trt), "Runtime", None, raising=False)  # nothing may be made of it
    line = refusal(machine.runner(path).activate, ArtifactError)
    assert "built for TensorRT 10.13.3.9.post1, but this machine has TensorRT 11.4.0.106; build it here with" in line
    assert line.endswith("`segkc-deploy export runs/tiny --engine trt --precision fp16`")


def test_another_gpu_and_the_command_that_made_it(newest: Machine) -> None:
    path = newest.artifact()
    manifest = read_manifest(path).model_copy(update={"command": "segkc-deploy export runs/a --engine trt --batch 1:8"})
    write_manifest(path, manifest)
    newest.has_gpu(Gpu("NVIDIA A10", "8.6", "580.65.06"))
    assert refusal(newest.runner(path).activate, ArtifactError) == (
        f"{path}: built for the GPU NVIDIA H200 (compute capability 9.0), but this machine has the GPU NVIDIA A10"
        " (compute capability 8.6); build it here with `segkc-deploy export runs/a --engine trt --batch 1:8`"
    )


FITS = [
    # flags, options, GPU here, version here, what differs
    ((), {}, GPU, "11.4.0.106", []),
    ((), {}, Gpu("NVIDIA H200", "9.0", "999.1"), "11.4.0.106.post1", []),
    ((), {}, Gpu("NVIDIA H100 PCIe", "9.0", ""), "11.4.0.106", ["the GPU"]),
    ((), {"hardware_compatible": "same_compute_capability"}, Gpu("NVIDIA H100 PCIe", "9.0", ""), "11.4.0.106", []),
    ((), {"hardware_compatible": "same_compute_capability"}, Gpu("RTX", "12.0", ""), "11.4.0.106", ["the GPU"]),
    ((), {"hardware_compatible": "ampere_plus"}, Gpu("NVIDIA A10", "8.6", ""), "11.4.0.106", []),
    ((), {"hardware_compatible": "ampere_plus"}, Gpu("RTX", "12.0", ""), "11.4.0.106", []),
    ((), {"hardware_compatible": "ampere_plus"}, Gpu("T4", "7.5", ""), "11.4.0.106", ["the GPU"]),
    ((), {}, GPU, "11.4.0.107", ["TensorRT"]),
    ((), {}, Gpu("T4", "7.5", ""), "11.5.0.1", ["TensorRT", "the GPU"]),
    (("VERSION_COMPATIBLE",), {}, GPU, "11.5.0.1", []),
    (("VERSION_COMPATIBLE",), {}, GPU, "11.3.9.9", ["TensorRT"]),
    (("VERSION_COMPATIBLE",), {}, GPU, "12.0.0.1", ["TensorRT"]),
]


@pytest.mark.parametrize(("flags", "options", "gpu", "version", "expected"), FITS)
def test_what_an_engine_is_tied_to(
    flags: tuple[str, ...], options: dict[str, str], gpu: Gpu, version: str, expected: list[str], tmp_path: Path
) -> None:
    path = make_artifact(tmp_path)
    build = Build(
        builder="tensorrt",
        version="11.4.0.106",
        gpu=GPU.name,
        compute_capability=GPU.compute_capability,
        driver=GPU.driver,
        flags=flags,
        options=options,
    )
    manifest = manifest_of(path, engine="trt", build=build)
    assert [found.what for found in engine_match.differences(manifest, gpu, version)] == expected


def test_version_compatible_engines_cross_one_pair_of_majors(tmp_path: Path) -> None:
    path = make_artifact(tmp_path)
    build = Build(builder="tensorrt", version="10.13.3.9.post1", gpu=GPU.name, compute_capability="9.0")
    compatible = build.model_copy(update={"flags": ("VERSION_COMPATIBLE",)})
    assert engine_match.differences(manifest_of(path, engine="trt", build=compatible), GPU, "11.4.0.106") == []
    assert engine_match.differences(manifest_of(path, engine="trt", build=build), GPU, "11.4.0.106") != []


@pytest.mark.parametrize(
    ("built_for", "here", "version", "expected"),
    [
        ([], "8.6", "1.7.1.116", []),
        ([], "12.0", "1.7.1.116", []),
        ([], "7.5", "1.7.1.116", ["a GPU of"]),
        (["7.5"], "7.5", "1.7.1.116", []),
        (["8.9", "12.0"], "8.6", "1.7.1.116", ["a GPU of"]),
        (["8.9", "12.0"], "12.0", "1.8.0.1", ["TensorRT for RTX"]),
    ],
)
def test_what_an_rtx_engine_is_tied_to(
    built_for: list[str], here: str, version: str, expected: list[str], tmp_path: Path
) -> None:
    path = make_artifact(tmp_path)
    build = Build(builder="tensorrt-rtx", version="1.7.1.116", options={"compute_capabilities": built_for})
    manifest = manifest_of(path, engine="trt-rtx", build=build)
    found = engine_match.differences(manifest, Gpu("a GPU", here, "580"), version)
    assert [entry.what for entry in found] == expected


def test_a_manifest_without_a_build(newest: Machine) -> None:
    path = newest.artifact()
    write_manifest(path, read_manifest(path).model_copy(update={"build": None}))
    assert "does not say what built it" in refusal(newest.runner(path).activate, ArtifactError)


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_devices_that_are_no_gpu(newest: Machine, device: str) -> None:
    path = newest.artifact()
    assert f"not on the device '{device}'" in refusal(lambda: newest.runner(path, device=device), ConfigError)


def test_no_cuda_graphs_with_rtx(machine_of: Callable[[str], Machine]) -> None:
    machine = machine_of(RTX)
    path = machine.artifact()
    assert "CUDA graphs are for the engine trt" in refusal(lambda: machine.runner(path, cuda_graph=True), ConfigError)


# --- damaged files -----------------------------------------------------------------------------------------------


def _change(path: Path, content: bytes, **changes: Any) -> Manifest:
    """Write other bytes, and return a manifest that vouches for them."""
    manifest = read_manifest(path)
    path.write_bytes(content)
    return manifest.model_copy(update={"sha256": sha256_of(path), **changes})


def test_a_flipped_byte(newest: Machine) -> None:
    path = newest.artifact()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "sha256 differs" in refusal(lambda: read_manifest(path), ArtifactError)


def test_a_plan_cut_short(newest: Machine) -> None:
    path = newest.artifact()
    whole = path.read_bytes()
    manifest = _change(path, whole[:-100])
    line = refusal(TensorRTRunner(path, manifest).activate, ArtifactError)
    assert f"cut short: {len(whole) - 100} of {len(whole)} bytes" in line


@pytest.mark.parametrize("count", [0, 3, 31])
def test_a_plan_shorter_than_its_header(newest: Machine, count: int) -> None:
    path = newest.artifact()
    manifest = _change(path, path.read_bytes()[:count], bytes=0)
    assert f"cut short: {count} of 32" in refusal(TensorRTRunner(path, manifest).activate, ArtifactError)


def test_files_of_other_formats(newest: Machine) -> None:
    path = newest.artifact()
    plan = path.read_bytes()
    original = read_manifest(path)
    rtx = _change(path, b"vtrt" + plan[4:])
    assert "it begins with b'vtrt', not with b'ftrt'" in refusal(TensorRTRunner(path, rtx).activate, ArtifactError)
    path.write_bytes(b'\x10\x00\x00\x00{"stride": 32}  ' + plan)
    glued = original.model_copy(update={"sha256": sha256_of(path)})
    assert "metadata stands before the plan" in refusal(TensorRTRunner(path, glued).activate, ArtifactError)


def test_what_tensorrt_cannot_load(machine: Machine) -> None:
    path = machine.artifact(driver="570.1")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    manifest = _change(path, bytes(content))
    line = refusal(TensorRTRunner(path, manifest).activate, ArtifactError)
    assert "cannot load it (built with driver 570.1, this machine has 580.65.06): Serialization assertion" in line
    assert "segkc-deploy export runs/tiny" in line


# --- versions, weights and contracts -----------------------------------------------------------------------------


def test_version_compatible_plans_may_run_their_own_code(machine_of: Callable[[str], Machine]) -> None:
    path = machine_of("10.13").artifact(flags=("VERSION_COMPATIBLE",))
    machine = machine_of("10.16")
    images = batch_of(1, *SIZE)
    with machine.runner(path) as runner:  # the stand-in loads it only where host code is allowed
        np.testing.assert_array_equal(runner.infer(images)["masks"], masks_of(images))


def _stripped(machine: Machine) -> tuple[Path, Path]:
    """Return a plan without weights, and the ONNX file that has them."""
    onnx_path = machine.folder / "junior-fp16.weights.onnx"
    onnx_path.write_bytes(network(SIZE, -1).SerializeToString())
    path = machine.artifact(flags=("STRIP_PLAN", "REFIT_IDENTICAL"), onnx_sha256=sha256_of(onnx_path))
    return path, onnx_path


@pytest.mark.parametrize("version", VERSIONS)
def test_a_stripped_plan_gets_its_weights(version: str, machine_of: Callable[[str], Machine]) -> None:
    machine = machine_of(version)
    path, _ = _stripped(machine)
    assert WEIGHTS.astype(np.float32).tobytes() not in path.read_bytes()
    images = batch_of(2, *SIZE)
    with machine.runner(path) as runner:
        np.testing.assert_array_equal(runner.infer(images)["masks"], masks_of(images))


def test_weights_that_are_missing_or_others(newest: Machine) -> None:
    path, onnx_path = _stripped(newest)
    onnx_path.write_bytes(b"other weights")
    assert "its sha256 differs from the manifest's" in refusal(newest.runner(path).activate, ArtifactError)
    onnx_path.unlink()
    assert "junior-fp16.weights.onnx, which is missing" in refusal(newest.runner(path).activate, ArtifactError)


def test_weights_that_are_refused(newest: Machine) -> None:
    path, _ = _stripped(newest)
    trt = newest.trt

    def fail(refitter: Any) -> bool:
        refitter.state["_engine"].state["_logger"].log(trt.ILogger.ERROR, "Missing weights of\nConv_1")
        return False

    with newest.monkeypatch.context() as patch:
        patch.setattr(trt.Refitter, "refit_cuda_engine", fail)
        line = refusal(newest.runner(path).activate, SegKCError)
        assert "TensorRT could not refit the engine: Missing weights of Conv_1" in line
    error = trt.strict_api.make("ParserError", _error=(None, "Conv_1", "Conv", "no weights of\nthis name"))
    newest.monkeypatch.setattr(trt.OnnxParserRefitter, "refit_from_file", _false)
    newest.monkeypatch.setattr(trt.OnnxParserRefitter, "num_errors", 1)
    newest.monkeypatch.setattr(trt.OnnxParserRefitter, "get_error", lambda parser, index: error)
    line = refusal(newest.runner(path).activate, ArtifactError)
    assert line.endswith("cannot take the weights of junior-fp16.weights.onnx: no weights of this name")


def test_outputs_that_the_manifest_does_not_name(newest: Machine) -> None:
    profile = ((1, 4, 4, 3), (1, 8, 12, 3), (2, 16, 20, 3))
    path = newest.artifact(free_network(), profile)
    line = refusal(newest.runner(path).activate, ArtifactError)
    assert "takes images and gives logits, masks, which is not what its manifest says" in line


# --- failures while running --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_tensorrt_fails_to_run(newest: Machine, cuda_graph: bool) -> None:
    with newest.runner(newest.artifact(), cuda_graph=cuda_graph) as runner:
        newest.behavior.execution_fails = True
        line = refusal(lambda: runner.infer(batch_of(1, *SIZE)), SegKCError)
        assert "TensorRT could not run a batch of shape (1, 8, 12, 3): it gave no reason" in line
        newest.behavior.execution_fails = False
        images = batch_of(1, *SIZE)
        np.testing.assert_array_equal(runner.infer(images)["masks"], masks_of(images))


def test_a_capture_that_fails_leaves_the_stream_usable(newest: Machine) -> None:
    with newest.runner(newest.artifact(), cuda_graph=True) as runner:
        begin = newest.behavior.device.begin_capture

        def begin_and_fail(stream: int) -> None:
            begin(stream)
            newest.behavior.execution_fails = True

        newest.behavior.device.begin_capture = begin_and_fail  # type: ignore[method-assign]
        refusal(lambda: runner.infer(batch_of(1, *SIZE)), SegKCError)
        newest.behavior.device.begin_capture = begin  # type: ignore[method-assign]
        newest.behavior.execution_fails = False
        images = batch_of(1, *SIZE)
        np.testing.assert_array_equal(runner.infer(images)["masks"], masks_of(images))


def test_the_gpu_reports_an_error(newest: Machine) -> None:
    with newest.runner(newest.artifact()) as runner:
        newest.cuda.sync_error = "CUDA_ERROR_ILLEGAL_ADDRESS: while executing a kernel,\nthe device met an error"
        line = refusal(lambda: runner.infer(batch_of(1, *SIZE)), SegKCError)
        assert "CUDA failed while running" in line
        assert "CUDA_ERROR_ILLEGAL_ADDRESS" in line
        newest.behavior.device.streams = {handle: [] for handle in newest.behavior.device.streams}


def test_batches_that_the_engine_was_not_built_for(newest: Machine) -> None:
    with newest.runner(newest.artifact()) as runner:
        for images in (batch_of(5, *SIZE), batch_of(1, 8, 13), batch_of(1, *SIZE).astype(np.float32), batch_of(8, 12)):
            line = refusal(lambda images=images: runner.infer(images), ArtifactError)  # type: ignore[misc]
            assert "export it again with another --batch or --size" in line
        assert "takes 1 to 4 x 8 x 12 x 3, not a uint8 batch of shape (5, 8, 12, 3)" in refusal(
            lambda: runner.infer(batch_of(5, *SIZE)), ArtifactError
        )


def _false(*arguments: Any, **named: Any) -> bool:
    return False


def test_tensorrt_refuses_a_shape_or_an_address(newest: Machine) -> None:
    path = newest.artifact()
    context = newest.trt.IExecutionContext
    with newest.monkeypatch.context() as patch:
        patch.setattr(context, "set_tensor_address", _false)
        assert "TensorRT refused the address of images" in refusal(newest.runner(path).activate, SegKCError)
    with newest.runner(path) as runner:
        newest.monkeypatch.setattr(context, "set_input_shape", _false)
        line = refusal(lambda: runner.infer(batch_of(1, *SIZE)), SegKCError)
        assert "TensorRT refused the input shape (1, 8, 12, 3)" in line


def test_not_enough_memory(newest: Machine) -> None:
    path = newest.artifact()
    newest.cuda.free_bytes = 4 * 8 * 12 * 3 + 10  # the input fits, the masks do not
    line = refusal(newest.runner(path).activate, SegKCError)
    assert "CUDA_ERROR_OUT_OF_MEMORY" in line
    assert "a smaller --batch or --size" in line
    newest.cuda.free_bytes = 1 << 30
    newest.cuda.pinned_fails = True
    assert "CUDA_ERROR_OUT_OF_MEMORY" in refusal(newest.runner(path).activate, SegKCError)
    newest.cuda.pinned_fails = False
    newest.monkeypatch.setattr(newest.trt.ICudaEngine, "create_execution_context", lambda engine: None)
    assert "could not make an execution context" in refusal(newest.runner(path).activate, SegKCError)


# --- from the engine that builds to the one that runs ------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "options", "here"),
    [
        ("10.13", {}, BUILT_ON),
        ("11.4", {"timing_cache": Path("cache")}, BUILT_ON),
        ("11.4", {"version_compatible": True}, BUILT_ON),
        ("10.16", {"hardware_compatible": "same_compute_capability"}, Gpu("another", "8.9", "")),
        ("11.4", {"hardware_compatible": "ampere_plus"}, Gpu("another", "12.0", "")),
        (RTX, {}, Gpu("another", "8.6", "")),
        (RTX, {"compute_capabilities": ("8.9", "12.0")}, Gpu("another", "12.0", "")),
    ],
)
def test_what_the_exporter_builds_is_loaded(
    version: str, options: dict[str, Any], here: Gpu, machine_of: Callable[[str], Machine], tmp_path: Path
) -> None:
    machine = machine_of(version)
    machine.monkeypatch.chdir(tmp_path)
    machine.monkeypatch.setattr("segkc_deploy.export.engines.trt_engine.find_gpu", lambda: BUILT_ON)
    machine.monkeypatch.setattr(
        "segkc_deploy.export.engines.trt_rtx_engine.cuda_obstacle", lambda: "no GPU to build on"
    )
    path = tmp_path / "junior"
    request = build_request(path, **options)
    built = find_engine(machine.engine).build(request)
    manifest = manifest_of(path, engine=machine.engine, contract=request.contract, build=built.build)
    write_manifest(path, manifest)
    machine.has_gpu(here)
    images = [batch_of(*SIZE, seed=seed) for seed in range(3)]
    with segkc_deploy.load(path) as predictor:
        for image, mask in zip(images, predictor.predict(images), strict=True):
            np.testing.assert_array_equal(mask, expected_mask(image))
    machine.has_gpu(Gpu("an old one", "7.5", ""))
    assert "build it here with" in refusal(lambda: segkc_deploy.load(path), ArtifactError)


def test_companions_are_counted_in_the_manifest_but_not_in_the_plan(newest: Machine) -> None:
    path, onnx_path = _stripped(newest)
    manifest = read_manifest(path)
    whole = {"bytes": manifest.bytes + onnx_path.stat().st_size, "companions": {".weights.onnx": sha256_of(onnx_path)}}
    write_manifest(path, manifest.model_copy(update=whole))
    with newest.runner(path):
        pass


# --- the real cuda.core, the real TensorRT -------------------------------------------------------------------------


@pytest.mark.parametrize(("fake", "module", "name"), fake_cuda_core.REAL)
def test_cuda_core_takes_what_its_stand_in_takes(fake: type, module: str, name: str) -> None:
    pytest.importorskip("cuda.core", reason="cuda-core is not installed")
    real = getattr(importlib.import_module(module), name)
    for method in (key for key in vars(fake) if not key.startswith("_")):
        ours = inspect.signature(getattr(fake, method)).parameters
        theirs = inspect.signature(getattr(real, method)).parameters
        for key, parameter in ours.items():
            kinds = {parameter.kind, theirs[key].kind}
            assert len(kinds) == 1 or parameter.kind is parameter.KEYWORD_ONLY, f"{name}.{method}({key})"
        for key, parameter in theirs.items():
            assert key in ours or parameter.default is not parameter.empty, f"{name}.{method} needs {key}"
    for attribute in inspect.get_annotations(fake):
        assert attribute in ("_gpu", "owns") or hasattr(real, attribute), attribute


def test_cuda_core_has_the_error_that_is_caught() -> None:
    pytest.importorskip("cuda.core", reason="cuda-core is not installed")
    utilities = importlib.import_module("cuda.core._utils.cuda_utils")
    assert issubclass(utilities.CUDAError, Exception)


@pytest.mark.trt_rtx
def test_the_real_library_logs_its_reasons() -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")
    trt = LIBRARIES["trt-rtx"].load()
    log = collect_log(trt)
    builder = trt.Builder(log.logger)
    empty = builder.create_network(0)  # the parser does not keep it alive
    parser = trt.OnnxParser(empty, log.logger)
    assert log.reason() == "it gave no reason"
    assert not parser.parse(b"no graph")
    assert "parse the ONNX model" in log.reason()
    assert log.reason() == "it gave no reason"


@pytest.mark.trt_rtx
def test_the_real_library_writes_the_header_that_is_checked(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")
    trt = LIBRARIES["trt-rtx"].load()
    path = tmp_path / "tiny.rtx"
    path.write_bytes(plan_of(trt, network(SIZE, -1), PROFILE))
    engine_match.check_plan(path, manifest_of(path, engine="trt-rtx"))
    assert "b'ftrt'" in refusal(lambda: engine_match.check_plan(path, manifest_of(path, engine="trt")), ArtifactError)


def _no_tensorrt() -> str:
    if cuda_obstacle():
        return cuda_obstacle()
    for module in ("tensorrt", "cuda.core"):
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            return f"{module} is not installed"
    return ""


@pytest.mark.gpu
@pytest.mark.tensorrt
@pytest.mark.skipif(bool(_no_tensorrt()), reason=_no_tensorrt() or "runs")
@pytest.mark.parametrize("cuda_graph", [False, True])
@pytest.mark.parametrize("flags", [(), ("VERSION_COMPATIBLE",), ("STRIP_PLAN", "REFIT_IDENTICAL")])
def test_a_real_engine_gives_the_right_masks(tmp_path: Path, flags: tuple[str, ...], cuda_graph: bool) -> None:
    trt = LIBRARIES["trt"].load()
    gpu = cuda_probe.find_gpu()
    onnx_path = make_artifact(tmp_path, "tiny.onnx")
    path = tmp_path / "tiny.engine"
    path.write_bytes(plan_of(trt, onnx.load(onnx_path), PROFILE, flags))
    if "STRIP_PLAN" in flags:
        shutil.copy(onnx_path, companion_path(path, COMPANION))
    build = build_of(trt, "trt", gpu, flags=flags, onnx_sha256=sha256_of(onnx_path))
    write_manifest(path, manifest_of(path, engine="trt", build=build))
    with TensorRTRunner(path, read_manifest(path), cuda_graph=cuda_graph) as runner:
        assert runner.description.startswith(f"TensorRT {trt.__version__} {gpu.name}")
        for seed, count in enumerate((1, 4, 2, 1, 4)):
            images = batch_of(count, *SIZE, seed=seed)
            assert_right_on_a_gpu(runner.infer(images)["masks"], images)


@pytest.mark.gpu
@pytest.mark.tensorrt
@pytest.mark.skipif(bool(_no_tensorrt()), reason=_no_tensorrt() or "runs")
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_a_real_engine_tells_its_time_on_the_gpu(tmp_path: Path, cuda_graph: bool) -> None:
    trt = LIBRARIES["trt"].load()
    onnx_path = make_artifact(tmp_path, "tiny.onnx")
    path = tmp_path / "tiny.engine"
    path.write_bytes(plan_of(trt, onnx.load(onnx_path), PROFILE))
    write_manifest(path, manifest_of(path, engine="trt", build=build_of(trt, "trt", cuda_probe.find_gpu())))
    with TensorRTRunner(path, read_manifest(path), cuda_graph=cuda_graph) as runner:
        images = batch_of(4, *SIZE)
        runner.infer(images)
        assert runner.last_device_ms is None
        runner.time_device(True)
        for _ in range(5):
            began = time.perf_counter()
            assert_right_on_a_gpu(runner.infer(images)["masks"], images)
            whole_ms = 1e3 * (time.perf_counter() - began)
            assert runner.last_device_ms is not None
            assert 0 < runner.last_device_ms < whole_ms
        runner.time_device(False)
        assert_right_on_a_gpu(runner.infer(images)["masks"], images)


@pytest.mark.gpu
@pytest.mark.skipif(bool(cuda_obstacle()), reason=cuda_obstacle() or "runs")
def test_a_real_rtx_engine_gives_the_right_masks(tmp_path: Path) -> None:
    pytest.importorskip("cuda.core", reason="cuda-core is not installed")
    if not any(importlib.util.find_spec(name) for name in LIBRARIES["trt-rtx"].modules):
        pytest.skip("TensorRT for RTX is not installed")
    trt = LIBRARIES["trt-rtx"].load()
    onnx_path = make_artifact(tmp_path, "tiny.onnx")
    path = tmp_path / "tiny.rtx"
    path.write_bytes(plan_of(trt, onnx.load(onnx_path), PROFILE))
    write_manifest(path, manifest_of(path, engine="trt-rtx", build=build_of(trt, "trt-rtx", cuda_probe.find_gpu())))
    images = batch_of(3, *SIZE)
    with TensorRTRunner(path, read_manifest(path)) as runner:
        assert_right_on_a_gpu(runner.infer(images)["masks"], images)
