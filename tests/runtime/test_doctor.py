"""`segkc-deploy doctor`: right about what is there and about what works, and harmless."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from command_line import CommandLine

from segkc_deploy import doctor
from segkc_deploy.cuda_probe import Gpu
from segkc_deploy.doctor import Ability, diagnose
from segkc_deploy.errors import ConfigError

ENGINES = ["onnx on the CPU", "onnx on CUDA", "onnx on TensorRT", "trt", "trt-rtx", "openvino", "aoti"]
JOBS = ["predict", "train", "export", "benchmark", "serve"]
EXTRAS = ["annotations", "geo", "heic", "hub", "mlflow", "ray", "tiff", "video", "wandb"]
NO_GPU = "there is no NVIDIA driver (libcuda.so.1 was not found); install it"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capfd)


class Site:
    """A pretended machine: its packages, importable modules, shared libraries and GPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.packages: dict[str, str] = {}
        self.modules: dict[str, Path] = {}
        self.libraries: dict[str, str] = {}
        self.gpu: Gpu | None = None
        self.requires: list[str] = []
        self.smi: list[dict[str, object]] = []
        self.failures: dict[str, str] = {}
        self._folder = folder
        monkeypatch.setattr(doctor.metadata, "version", self._version)
        monkeypatch.setattr(doctor.metadata, "requires", lambda package: self.requires)
        monkeypatch.setattr(doctor, "_spec_folder", self.modules.get)
        monkeypatch.setattr(doctor.ctypes.util, "find_library", self.libraries.get)
        monkeypatch.setattr(doctor, "cuda_obstacle", lambda: "" if self.gpu else NO_GPU)
        monkeypatch.setattr(doctor, "find_gpu", lambda: self.gpu)
        monkeypatch.setattr(doctor, "describe_machine", lambda: {"gpus": self.smi})
        monkeypatch.setattr(doctor, "failure_of", lambda name: self.failures.get(name, ""))

    def install(self, package: str, version: str, module: str = "", files: tuple[str, ...] = ()) -> None:
        self.packages[package] = version
        if module:
            folder = self.modules[module] = self._folder / module
            for file in files:
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).touch()

    def ability(self, name: str) -> Ability:
        (found,) = (ability for ability in diagnose().abilities if ability.name == name)
        return found

    def lacks(self, name: str) -> list[str]:
        return [missing.what for missing in self.ability(name).missing]

    def _version(self, package: str) -> str:
        if package not in self.packages:
            raise metadata.PackageNotFoundError(package)
        return self.packages[package]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Site:
    return Site(monkeypatch, tmp_path)


H200 = Gpu("NVIDIA H200", "9.0", "580.65.06")


def test_the_command_names_every_engine_and_job_and_what_is_installed_works(run: CommandLine) -> None:
    """Everything that the tests need is installed, and a process that tries it must find no fault."""
    finished = run("doctor")
    assert "a trial that succeeds" not in finished.out
    assert finished.code == 0
    assert finished.err == ""
    named = re.findall(r"^  (?:works|lacks)  (\S+(?: \S+)*)", finished.out, re.MULTILINE)
    assert [re.split(r"  +", line)[0] for line in named] == ENGINES + JOBS + EXTRAS
    assert f"Python {sys.version_info.major}.{sys.version_info.minor}" in finished.out


def test_json_says_the_same(run: CommandLine) -> None:
    stored = json.loads(run("doctor", "--json", "--no-run").out)
    assert [ability["name"] for ability in stored["abilities"]] == ENGINES + JOBS + EXTRAS
    for ability in stored["abilities"]:
        assert ability["works"] == (not ability["missing"])
        assert all(entry["what"] and entry["fix"] for entry in ability["missing"])
    assert stored["machine"]["cores"] >= 1


def test_nothing_heavy_is_imported() -> None:
    heavy = ("torch", "onnxruntime", "onnx", "openvino", "tensorrt", "tensorrt_rtx_bindings", "cuda", "numpy", "cv2")
    code = (
        "import sys\nfrom segkc_deploy.doctor import diagnose\ndiagnose(run=False)\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


def test_an_empty_machine_lacks_everything_and_says_so(site: Site) -> None:
    site.requires = ["numpy>=1.26", 'torch>=2.11; extra == "train"', 'onnx>=1.18; extra == "export"', "jinja2"]
    diagnosis = diagnose()
    assert diagnosis.gpu_obstacle == NO_GPU
    # These ask for nothing.
    assert [ability.name for ability in diagnosis.abilities if ability.works] == ["benchmark", "serve", *EXTRAS]
    assert all(missing.fix for ability in diagnosis.abilities for missing in ability.missing)


def test_a_package_that_is_not_installed_itself(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(package: str) -> list[str]:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(doctor.metadata, "requires", none)
    assert site.lacks("train") == ["the package segkc-deploy"]


def test_a_gpu_and_everything_for_it(site: Site) -> None:
    site.gpu = H200
    site.install(
        "onnxruntime-gpu",
        "1.31.1",
        "onnxruntime",
        tuple(f"capi/libonnxruntime_providers_{p}.so" for p in ("cuda", "tensorrt")),
    )
    site.install("cudnn", "9", "nvidia.cudnn")
    site.libraries |= {"cublas": "libcublas.so.13", "nvinfer": "libnvinfer.so.10"}
    site.install("tensorrt", "10.16.1.11", "tensorrt")
    site.install("tensorrt-rtx-cu13-bindings", "1.7.1.116", "tensorrt_rtx_bindings")
    site.install("cuda-core", "1.2.2")
    for engine in ENGINES[:5]:
        assert site.lacks(engine) == [], engine
    assert site.ability("trt").found == ("TensorRT 10.16.1.11", "cuda-core 1.2.2")
    # Without nvidia-smi, as on Jetson boards, CUDA's own answer is shown.
    assert diagnose().machine["gpus"] == [
        {"name": "NVIDIA H200", "driver": "580.65.06", "memory_mib": None, "compute_capability": "9.0"}
    ]


def test_the_first_gpu_that_cuda_counts_gets_its_compute_capability(site: Site) -> None:
    site.gpu = H200
    site.smi = [{"name": "NVIDIA T4", "driver": "580"}, {"name": "NVIDIA H200", "driver": "580"}]
    assert [gpu.get("compute_capability") for gpu in diagnose().machine["gpus"]] == [None, "9.0"]


def test_a_driver_that_does_not_describe_its_gpu(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Gpu:
        raise ConfigError("the NVIDIA driver does not describe its GPU (CUDA error 999); check nvidia-smi")

    site.gpu = H200
    monkeypatch.setattr(doctor, "find_gpu", fail)
    assert "CUDA error 999" in diagnose().gpu_obstacle
    assert "an NVIDIA GPU" in site.lacks("trt")


@pytest.mark.parametrize(
    ("tensorrt", "core", "expected"),
    [
        ("10.13.3.9.post1", "1.0.0", []),
        ("11.4.0.106", "1.2.2", []),
        ("10.3.0", "1.2.2", ["TensorRT 10.13 or later, below 12 (installed: 10.3.0)"]),
        ("12.0.0.1", "1.2.2", ["TensorRT 10.13 or later, below 12 (installed: 12.0.0.1)"]),
        ("11.4.0.106", "0.7.0", ["cuda-core 1.x (installed: 0.7.0)"]),
        ("11.4.0.106", "", ["cuda-core 1.x"]),
        ("", "1.2.2", ["TensorRT"]),
    ],
)
def test_versions_of_tensorrt_and_cuda_core(site: Site, tensorrt: str, core: str, expected: list[str]) -> None:
    site.gpu = H200
    if tensorrt:
        site.install("tensorrt", tensorrt, "tensorrt")
    if core:
        site.install("cuda-core", core)
    assert site.lacks("trt") == expected


def test_tensorrt_for_rtx_builds_without_a_gpu(site: Site) -> None:
    site.install("tensorrt-rtx-cu13-bindings", "1.7.1.116", "tensorrt_rtx_bindings")
    site.install("cuda-core", "1.2.2")
    ability = site.ability("trt-rtx")
    assert [missing.what for missing in ability.missing] == ["an NVIDIA GPU"]
    assert "builds here, for other machines" in ability.found


def test_the_tensorrt_that_onnxruntime_needs(site: Site) -> None:
    site.gpu = H200
    site.install("onnxruntime-gpu", "1.31.1", "onnxruntime", ("capi/libonnxruntime_providers_tensorrt.so",))
    site.libraries["nvinfer"] = "libnvinfer.so.11"
    assert site.lacks("onnx on TensorRT") == [
        "onnxruntime with CUDA",
        "libnvinfer.so.10 (onnxruntime uses TensorRT 10)",
    ]
    site.install("tensorrt", "10.16.1.11", "tensorrt_libs", ("libnvinfer.so.10",))
    assert site.lacks("onnx on TensorRT") == ["onnxruntime with CUDA"]


def test_what_is_installed_and_fails_does_not_work(site: Site) -> None:
    site.install("openvino", "2026.1.0")
    site.install("onnxruntime", "1.31.1", "onnxruntime", ("capi/libonnxruntime.so",))
    assert site.ability("openvino").works
    site.failures["openvino"] = "libtbb.so.12 is missing"
    ability = site.ability("openvino")
    assert not ability.works
    assert ability.found == ("openvino 2026.1.0",)
    assert [(missing.what, missing.fix) for missing in ability.missing] == [
        ("a trial that succeeds", "libtbb.so.12 is missing")
    ]
    assert site.ability("onnx on the CPU").works
    site.failures["trt"] = "is never tried, since there is no GPU"
    assert "a trial that succeeds" not in site.lacks("trt")


@pytest.mark.parametrize("package", ["opencv-python", "opencv-python-headless", "opencv-contrib-python-headless"])
def test_every_build_of_opencv_is_opencv(site: Site, package: str) -> None:
    site.requires = ["opencv-python>=4.11"]
    site.install(package, "4.12.0.88")
    assert site.ability("predict").works
    assert site.ability("predict").found == (f"{package} 4.12.0.88",)
    site.install(package, "4.9.0.80")
    assert site.lacks("predict") == ["opencv-python>=4.11 (installed: 4.9.0.80)"]


def test_the_cpu_build_of_onnxruntime(site: Site) -> None:
    site.gpu = H200
    site.install("onnxruntime", "1.31.1", "onnxruntime", ("capi/libonnxruntime.so",))
    assert site.lacks("onnx on the CPU") == []
    assert site.lacks("onnx on CUDA") == ["onnxruntime with CUDA"]


def test_extras_are_read_from_the_package_itself(site: Site) -> None:
    site.requires = [
        "numpy>=1.26",
        'torch>=2.11; extra == "train"',
        'only-elsewhere; sys_platform == "none" and extra == "train"',
        'segkc-deploy[train]; extra == "export"',
        'onnx<2,>=1.18; extra == "export"',
    ]
    site.install("numpy", "2.4.6")
    site.install("torch", "2.15.0+cu130")
    site.install("onnx", "1.16.0")
    assert site.ability("predict").found == ("numpy 2.4.6",)
    assert site.ability("train").found[0] == "torch 2.15.0+cu130"
    export = site.ability("export")
    assert [missing.what for missing in export.missing] == ["onnx<2,>=1.18 (installed: 1.16.0)"]
    assert export.missing[0].fix == 'pip install "segkc-deploy[export]"'
    assert export.found == ("torch 2.15.0+cu130",)


@pytest.mark.parametrize(
    ("torch", "gpu", "expected"),
    [("2.15.0+cu130", H200, None), ("2.15.0+cpu", H200, "this torch is built for the CPU"), ("2.15.0", None, "no GPU")],
)
def test_training_without_a_gpu_is_told(site: Site, torch: str, gpu: Gpu | None, expected: str | None) -> None:
    site.gpu = gpu
    site.requires = ['torch>=2.11; extra == "train"']
    site.install("torch", torch)
    train = site.ability("train")
    assert train.works
    assert len(train.found) == (1 if expected is None else 2)
    assert expected is None or expected in train.found[1]


def test_the_extras_in_its_commands_exist() -> None:
    root = Path(__file__).parents[2]
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    text = (root / "segkc_deploy/doctor.py").read_text() + (root / "segkc_deploy/tensorrt_library.py").read_text()
    named = set(re.findall(r"(?:segkc-deploy|\{_PACKAGE\})\[(\w[\w-]*)\]", text)) | {"train", "export", "benchmark"}
    assert named <= set(extras)
    assert {"train", "trt"} <= named


def test_every_extra_is_listed() -> None:
    root = Path(__file__).parents[2]
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {*ENGINES, *JOBS, *EXTRAS} >= set(extras) - {"all", "dev"}
    assert set(EXTRAS) <= set(extras)


def test_modules_are_found_without_importing_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "explosive").mkdir()
    (tmp_path / "explosive" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "spread" / "inner").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    find: Callable[[str], Path | None] = doctor._spec_folder
    assert find("explosive") == tmp_path / "explosive"
    assert find("spread.inner") == tmp_path / "spread" / "inner"
    assert find("spread.absent") is None
    assert find("absent.inner") is None
    monkeypatch.setitem(sys.modules, "explosive", None)
    assert find("explosive") is None
