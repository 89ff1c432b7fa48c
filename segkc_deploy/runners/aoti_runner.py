"""Run an AOTInductor artifact, a `.pt2` package of native code, with PyTorch.

A package is a program: what it holds is executed the moment it is loaded. So it is loaded only after its bytes were
found to be those of its manifest (`manifest.read_manifest`), and only on a machine like the one it was built for: code
for another CPU ends in an illegal instruction, not in an error. Nothing is unpickled: a package of this project holds
a library with the weights inside and no exported program, the one part that PyTorch would unpickle.
"""

import logging
import platform
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np

from segkc_deploy.cuda_probe import find_gpu
from segkc_deploy.engine_match import rebuild_command
from segkc_deploy.errors import ArtifactError, ConfigError, MissingDependencyError
from segkc_deploy.machine import cpu_flags
from segkc_deploy.manifest import Build, Manifest
from segkc_deploy.runners.base import Runner, RunnerOptions
from segkc_deploy.runners.torch_events import TorchTimer

#: x86 names these in one list with much that compilers have no use for.
_X86_INSTRUCTIONS = re.compile(
    r"abm|adx|aes|amx_|avx|bmi|f16c|fma|gfni|lzcnt|movbe|pclmul|popcnt|sha_|sha\d|ss?se|vaes|vpclmul|xop"
)

#: What a build of such a package says of itself, all of which is needed to run it safely.
_OPTIONS = {"device", "machine", "instruction_sets", "batch", "height", "width"}


class AOTIRunner(Runner):
    """Runs a `.pt2` package on the device it was built for.

    Args:
        path: the package.
        manifest: its manifest, which says what it was built with and which batches it takes.
        device: `auto` (the one it was built for), `cpu` or `cuda`.
        threads: CPU threads of PyTorch while the runner is active, for the whole process; its own choice if None.

    Raises:
        ConfigError: there is no such device, or `threads` is less than 1.
    """

    @classmethod
    def for_artifact(cls, path: Path, manifest: Manifest, options: RunnerOptions) -> Self:
        return cls(path, manifest, options.device, options.threads)

    def __init__(self, path: str | Path, manifest: Manifest, device: str = "auto", threads: int | None = None) -> None:
        if device not in ("auto", "cpu", "cuda"):
            raise ConfigError(f"device {device!r} is not known; use auto, cpu or cuda")
        if threads is not None and threads < 1:
            raise ConfigError(f"threads is {threads}; use 1 or more")
        self._path = Path(path)
        self._manifest = manifest
        self._device = device
        self._threads = threads
        self._threads_before: int | None = None
        self._network: Any = None
        self._timer: TorchTimer | None = None
        self.description = "AOTInductor, not yet activated"

    def activate(self) -> None:
        """Load the package.

        Raises:
            ArtifactError: it was built for another machine or another PyTorch, or PyTorch cannot load it.
            ConfigError: it was built for another device than the one asked for, or there is no such device here.
            MissingDependencyError: torch is not installed.
        """
        torch = _import_torch()
        build = self._build()
        _check_match(self._path, self._manifest, build, torch.__version__)
        with tempfile.TemporaryDirectory() as folder, quiet_torch():
            # PyTorch wants this ending, which an artifact that is not verified yet does not have.
            package = Path(folder, "network.pt2")
            package.symlink_to(self._path.resolve())
            try:
                self._network = torch._inductor.aoti_load_package(str(package))
            except RuntimeError as error:
                raise ArtifactError(
                    f"{self._path}: PyTorch cannot load it: {one_line(error)}; copy it again or export again"
                ) from None
        if self._threads is not None:
            self._threads_before = torch.get_num_threads()
            torch.set_num_threads(self._threads)
        self.description = f"PyTorch {torch.__version__} AOTInductor, {build.options['device']}"

    def infer(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Run on `images`, uint8 (N, H, W, 3) RGB, and return the outputs by name.

        Raises:
            ArtifactError: the package was not built for such a batch.
        """
        assert self._network is not None, "activate the runner first"
        self._check_batch(images)
        torch = _import_torch()
        batch = torch.from_numpy(np.require(images, requirements=["C", "W"])).to(self._build().options["device"])
        with torch.inference_mode():
            if self._timer is not None:
                self._timer.start()
            values = self._network(batch)
            if self._timer is not None:
                self._timer.stop()
        names = [output.name for output in self._manifest.contract.outputs]
        found = {name: value.cpu().numpy() for name, value in zip(names, values, strict=True)}
        if self._timer is not None:
            self.last_device_ms = self._timer.elapsed_ms()
        return found

    def time_device(self, on: bool) -> None:
        """See `Runner.time_device`; on the CPU there is nothing to tell."""
        on_gpu = self._build().options["device"] == "cuda"
        self._timer = TorchTimer(_import_torch()) if on and on_gpu else None
        self.last_device_ms = None

    def deactivate(self) -> None:
        """Free the network and give PyTorch its threads back."""
        self._network = None
        if self._threads_before is not None:
            _import_torch().set_num_threads(self._threads_before)
            self._threads_before = None

    def _build(self) -> Build:
        build = self._manifest.build
        if build is None or not build.options.keys() >= _OPTIONS:
            raise ArtifactError(
                f"{self._path}: its manifest does not say what built it; build it again with"
                f" `{rebuild_command(self._manifest)}`"
            )
        wanted = build.options["device"]
        if self._device not in ("auto", wanted):
            raise ConfigError(
                f"device {self._device}: {self._path} was built for {wanted}; use --device {wanted}, or export it again"
                f" on a machine {'without' if self._device == 'cpu' else 'with'} a GPU"
            )
        return build

    def _check_batch(self, images: np.ndarray) -> None:
        """Compiled code trusts the shapes it is given: another one would be read beyond its end."""
        options = self._build().options
        bands = self._manifest.contract.bands
        ranges = [options["batch"], options["height"], options["width"], [bands, bands]]
        multiple = self._manifest.contract.size_multiple or 1
        fits = (
            images.dtype == np.uint8
            and images.ndim == len(ranges)
            and all(least <= side <= most for side, (least, most) in zip(images.shape, ranges, strict=True))
            and images.shape[1] % multiple == images.shape[2] % multiple == 0
        )
        if not fits:
            batch, height, width, _ = (f"{least} to {most}" if least < most else str(most) for least, most in ranges)
            step = f" in steps of {multiple}" if multiple > 1 else ""
            raise ArtifactError(
                f"{self._path}: built for uint8 batches of {batch} images of height {height} and width {width}{step},"
                f" not for {images.dtype} of shape {images.shape}"
            )


def instruction_sets() -> list[str]:
    """Return the instruction sets of this machine's CPU that a compiler may use; none where they are not known."""
    line, flags = cpu_flags()
    return sorted(flag for flag in flags if line == "Features" or _X86_INSTRUCTIONS.match(flag))


@contextmanager
def quiet_torch() -> Iterator[None]:
    """Keep the remarks of PyTorch's compiler on its own internals from the terminal."""
    logger = logging.getLogger("torch")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def one_line(error: Exception) -> str:
    """Return what an error of PyTorch's says, without the native call stack below it."""
    return " ".join(str(error).partition("\nException raised from ")[0].split())


def _import_torch() -> ModuleType:
    # The one place where the runtime knows torch.
    try:
        import torch
        import torch._inductor
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingDependencyError(
            "an aoti artifact runs on PyTorch, which is not installed; run: pip install torch"
        ) from None
    return torch


def _check_match(path: Path, manifest: Manifest, build: Build, version: str) -> None:
    """Raise ArtifactError, with what differs and the command that rebuilds, unless the package fits this machine."""
    differences = []
    if _release(build.version) != _release(version):
        differences.append((f"PyTorch {build.version}", f"PyTorch {version}"))
    if build.options["machine"] != platform.machine():
        differences.append((build.options["machine"], platform.machine()))
    elif lacking := sorted(set(build.options["instruction_sets"]) - set(instruction_sets())):
        differences.append((f"a CPU with {', '.join(lacking)}", "one without"))
    if build.options["device"] == "cuda" and not differences:
        gpu = find_gpu()
        if gpu.compute_capability != build.compute_capability:
            built = f"{build.gpu} (compute capability {build.compute_capability})"
            differences.append((built, f"{gpu.name} (compute capability {gpu.compute_capability})"))
    if differences:
        built, here = (" and ".join(side) for side in zip(*differences, strict=True))
        raise ArtifactError(
            f"{path}: built for {built}, but this machine has {here}; build it here with `{rebuild_command(manifest)}`"
        )


def _release(version: str) -> list[str]:
    """Return major and minor version, between which PyTorch's native interface may change."""
    return version.split(".")[:2]
