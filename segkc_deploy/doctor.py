"""What this machine can do with this package, and what it still needs.

What is missing is read from package metadata, from files and from the driver. What seems to be there is then tried,
each engine and job in a process of its own (`segkc_deploy.probes`): no framework is imported here, so nothing crashes.
"""

import ctypes.util
import importlib.util
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from segkc_deploy.cuda_probe import cuda_obstacle, find_gpu
from segkc_deploy.engine_choice import EngineChoice, stored_choices
from segkc_deploy.engines import ENGINES
from segkc_deploy.errors import ConfigError
from segkc_deploy.machine import describe_machine
from segkc_deploy.probes import failure_of
from segkc_deploy.tensorrt_library import LIBRARIES, Library

_PACKAGE = "segkc-deploy"

_CUDA_CORE = Requirement("cuda-core>=1,<2")
_INSTALL_CUDA_CORE = "pip install 'cuda-core[cu13]>=1,<2'  (cu12 with a CUDA 12 driver)"
_INSTALL_ORT_CUDA = 'pip install "onnxruntime-gpu[cuda,cudnn]"'
#: title, shared library, packages of pip's that hold it (for CUDA 13 and 12)
_CUDA_LIBRARIES = (("cuDNN", "cudnn", "nvidia.cudnn"), ("cuBLAS", "cublas", "nvidia.cu13", "nvidia.cublas"))
#: What onnxruntime's TensorRT provider is linked to, whatever TensorRT the engine trt uses.
_ORT_TENSORRT = "libnvinfer.so.10"
_INSTALL_ORT_TENSORRT = 'pip install --extra-index-url https://pypi.nvidia.com "tensorrt>=10.13,<11"'


#: Packages that hold the same module as another one, and so satisfy a requirement of it.
_SAME_MODULE = {
    "opencv-python": ("opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
    "onnxruntime-gpu": ("onnxruntime",),
}


#: Extras of `pyproject.toml` that add to what the jobs do.
OPTIONAL_EXTRAS = ("annotations", "geo", "heic", "hub", "mlflow", "ray", "tiff", "video", "wandb")


@dataclass(frozen=True)
class Missing:
    """Something that is not there, and the command that brings it or what else to do."""

    what: str
    fix: str


@dataclass(frozen=True)
class Ability:
    """An engine that runs here, a job that can be done here or an extra that it can use, or what keeps it from that.

    Attributes:
        name: such as `trt`, `train` or `video`.
        kind: `engine`, `job` or `extra`.
        found: the packages it uses with their versions, and remarks.
        missing: nothing if it works.
    """

    name: str
    kind: str
    found: tuple[str, ...]
    missing: tuple[Missing, ...]

    @property
    def works(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing


@dataclass(frozen=True)
class Diagnosis:
    """The machine (`machine.describe_machine`, its GPUs with `compute_capability`) and what it is able to do.

    `choices` are the fastest engines that `export --engine auto` found on it.
    """

    machine: dict[str, Any]
    gpu_obstacle: str
    abilities: tuple[Ability, ...]
    choices: tuple[EngineChoice, ...]


def diagnose(run: bool = True) -> Diagnosis:
    """Look at this machine; with `run`, try what nothing is missing for, which takes seconds. Raises nothing."""
    _version.cache_clear()
    machine = describe_machine()
    obstacle = cuda_obstacle()
    if not obstacle:
        try:
            gpu = find_gpu()
            gpus = machine["gpus"] or [{"name": gpu.name, "driver": gpu.driver, "memory_mib": None}]
            # nvidia-smi counts all GPUs, CUDA those it may use; the first that CUDA counts is the one engines run on.
            same = next((entry for entry in gpus if entry["name"] == gpu.name), gpus[0])
            same["compute_capability"] = gpu.compute_capability
            machine["gpus"] = gpus
        except ConfigError as error:
            obstacle = str(error)
    extras = (_extra_ability(extra, extra, "extra") for extra in OPTIONAL_EXTRAS)
    abilities = (*_engines(obstacle), *_jobs(obstacle), *extras)
    return Diagnosis(machine, obstacle, _tried(abilities) if run else abilities, tuple(stored_choices()))


def _tried(abilities: Sequence[Ability]) -> tuple[Ability, ...]:
    """Run what seems to work; what fails lacks a run that succeeds."""
    seeming = [ability for ability in abilities if ability.works]
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        failures = dict(zip((one.name for one in seeming), executor.map(_failure, seeming), strict=True))
    return tuple(
        replace(ability, missing=(Missing("a trial that succeeds", failures[ability.name]),))
        if failures.get(ability.name)
        else ability
        for ability in abilities
    )


def _failure(ability: Ability) -> str:
    return failure_of(ability.name)


def _engines(obstacle: str) -> Iterator[Ability]:
    gpu = () if not obstacle else (Missing("an NVIDIA GPU", obstacle),)
    yield _ability("onnx on the CPU", "engine", _onnxruntime(), ())
    yield _ability("onnx on CUDA", "engine", _onnxruntime(), (*gpu, *_onnxruntime_cuda()))
    yield _ability("onnx on TensorRT", "engine", _onnxruntime(), (*gpu, *_onnxruntime_cuda(), *_onnxruntime_tensorrt()))
    for entry in ENGINES.values():
        if entry.name in LIBRARIES:
            yield _tensorrt(entry.name, LIBRARIES[entry.name], gpu)
        elif entry.name != "onnx":
            install = f'pip install "{_PACKAGE}[{entry.extra}]"'
            yield _ability(entry.name, "engine", _package(entry.packages[0], install), ())


def _jobs(obstacle: str) -> Iterator[Ability]:
    yield _extra_ability("predict", "")
    train = _extra_ability("train", "train")
    if train.works and (obstacle or _version("torch").endswith("+cpu")):
        reason = "there is no GPU" if obstacle else "this torch is built for the CPU; https://pytorch.org has others"
        train = Ability(train.name, train.kind, (*train.found, f"on the CPU, for small trials: {reason}"), ())
    yield train
    yield _extra_ability("export", "export")
    yield _extra_ability("benchmark", "benchmark")
    yield _extra_ability("serve", "serve")


def _ability(name: str, kind: str, found: str | Missing, missing: tuple[Missing, ...]) -> Ability:
    """Return an ability whose own package is `found`, as text, or missing."""
    if isinstance(found, Missing):
        return Ability(name, kind, (), (found, *missing))
    return Ability(name, kind, (found,), missing)


def _onnxruntime() -> str | Missing:
    for package in ENGINES["onnx"].packages:
        if version := _version(package):
            return f"{package} {version}"
    return Missing("onnxruntime", f"pip install {_PACKAGE}")


def _onnxruntime_cuda() -> tuple[Missing, ...]:
    """Return what the CUDA provider lacks besides a GPU."""
    if not _has_provider("cuda"):
        return (Missing("onnxruntime with CUDA", "pip uninstall onnxruntime; pip install onnxruntime-gpu"),)
    lost = [title for title, library, *modules in _CUDA_LIBRARIES if not _has_library(library, modules)]
    return tuple(Missing(title, _INSTALL_ORT_CUDA) for title in lost)


def _onnxruntime_tensorrt() -> tuple[Missing, ...]:
    if not _has_provider("tensorrt"):
        return (Missing("onnxruntime with TensorRT", "pip install onnxruntime-gpu"),)
    packaged = _spec_folder("tensorrt_libs")
    if ctypes.util.find_library("nvinfer") == _ORT_TENSORRT or (packaged and (packaged / _ORT_TENSORRT).exists()):
        return ()
    return (Missing(f"{_ORT_TENSORRT} (onnxruntime uses TensorRT 10)", _INSTALL_ORT_TENSORRT),)


def _tensorrt(engine: str, library: Library, gpu: tuple[Missing, ...]) -> Ability:
    version = next(filter(None, map(_version, ENGINES[engine].packages)), "")
    importable = any(_spec_folder(module) for module in library.modules)
    missing: list[Missing] = []
    found = []
    if not importable:
        missing.append(Missing(library.title, library.install))
    elif version and not library.knows(version):
        newest = f"{library.first[0]}.{library.first[1]} or later, below {library.below[0]}"
        missing.append(Missing(f"{library.title} {newest} (installed: {version})", library.install))
    else:
        found.append(f"{library.title} {version or 'of unknown version'}")
    core = _version("cuda-core")
    if core and _CUDA_CORE.specifier.contains(core):
        found.append(f"cuda-core {core}")
    else:
        missing.append(Missing(f"cuda-core 1.x{f' (installed: {core})' if core else ''}", _INSTALL_CUDA_CORE))
    if engine == "trt-rtx" and gpu and found:
        found.append("builds here, for other machines")
    return Ability(engine, "engine", tuple(found), (*gpu, *missing))


def _package(name: str, install: str) -> str | Missing:
    version = _version(name)
    return f"{name} {version}" if version else Missing(name, install)


def _extra_ability(name: str, extra: str, kind: str = "job") -> Ability:
    """Return whether everything that the package's own metadata names for an extra is installed."""
    try:
        requirements = list(_requirements(extra))
    except metadata.PackageNotFoundError:
        return Ability(name, kind, (), (Missing(f"the package {_PACKAGE}", "pip install -e ."),))
    found, lost = [], []
    for requirement in requirements:
        names = (requirement.name, *_SAME_MODULE.get(requirement.name, ()))
        installed = next(filter(_version, names), requirement.name)
        version = _version(installed)
        if version and requirement.specifier.contains(version, prereleases=True):
            found.append(f"{installed} {version}")
        else:
            lost.append(f"{requirement.name}{requirement.specifier}{f' (installed: {version})' if version else ''}")
    install = f'pip install "{_PACKAGE}[{extra}]"' if extra else f"pip install {_PACKAGE}"
    return Ability(name, kind, tuple(found), tuple(Missing(what, install) for what in lost))


def _requirements(extra: str) -> Iterator[Requirement]:
    """Yield what an extra needs, those of the extras it names included; without one, what the package itself needs."""
    for line in metadata.requires(_PACKAGE) or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if extra:
            wanted = marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})
        else:
            wanted = marker is None or marker.evaluate({"extra": ""})
        if wanted and requirement.name == _PACKAGE:
            for other in sorted(requirement.extras):
                yield from _requirements(other)
        elif wanted:
            yield requirement


@cache
def _version(package: str) -> str:
    """Return the version of an installed package, or ""."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _has_provider(name: str) -> bool:
    folder = _spec_folder("onnxruntime")
    return folder is not None and any((folder / "capi").glob(f"*onnxruntime_providers_{name}.*"))


def _has_library(name: str, modules: list[str]) -> bool:
    """Say whether one of pip's packages or the system has a shared library."""
    return any(map(_spec_folder, modules)) or ctypes.util.find_library(name) is not None


def _spec_folder(module: str) -> Path | None:
    """Return where a module lies, without importing it; None if it is not there."""
    if "." in module and _spec_folder(module.rpartition(".")[0]) is None:
        return None
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # a parent that cannot be imported, a module without a spec
        return None
    if spec is None:
        return None
    folders = (
        [Path(spec.origin).parent] if spec.origin else [Path(path) for path in spec.submodule_search_locations or ()]
    )
    return folders[0] if folders else None
