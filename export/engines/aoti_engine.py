"""AOTInductor: PyTorch's own compiler, ahead of time, into one package of native code."""

import copy
import platform
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from segkc_deploy.atomic import atomic_path
from segkc_deploy.cuda_probe import find_gpu
from segkc_deploy.errors import BuildError, ConfigError, MissingDependencyError
from segkc_deploy.export.deploy_graph import blank_images
from segkc_deploy.export.engines.base import BuildOptions, BuildRequest, Built, Engine, Range
from segkc_deploy.export.position_embedding import free_positions
from segkc_deploy.manifest import Build
from segkc_deploy.runners.aoti_runner import instruction_sets, one_line, quiet_torch
from segkc_deploy.training.models.compiler import require_cpp_compiler

_SETTINGS: dict[str, Any] = {
    # Else the number of threads of this process is compiled in.
    "cpp.dynamic_threads": True,
}


class AOTIEngine(Engine):
    """Compiles the PyTorch network itself, not its ONNX graph, for the GPU if PyTorch sees one, else for this CPU."""

    name = "aoti"
    from_onnx = False

    def check(self, options: BuildOptions, precision: str) -> None:
        """See `Engine.check`.

        Raises:
            MissingDependencyError: there is no C++ compiler, or for a GPU no CUDA toolkit.
            ConfigError: an option is not for this engine.
        """
        if options != BuildOptions():
            raise ConfigError("--engine aoti has no options of the builder; leave them out")
        require_cpp_compiler("--engine aoti")
        if torch.cuda.is_available():
            _require_cuda_toolkit()

    def build(self, request: BuildRequest) -> Built:
        """See `Engine.build`. It takes minutes; what the compiler writes beside the package is removed again."""
        from torch._inductor.utils import fresh_cache

        device = "cuda" if torch.cuda.is_available() else "cpu"
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder, _quiet():
            package = Path(folder, "network.pt2")
            try:
                program = _trace(request, device)
                with fresh_cache(dir=folder):
                    torch._inductor.aoti_compile_and_package(
                        program, package_path=str(package), inductor_configs=dict(_SETTINGS)
                    )
            except RuntimeError as error:
                raise BuildError(f"{request.path}: AOTInductor could not compile it: {one_line(error)}") from None
            with atomic_path(request.path) as temporary:
                temporary.write_bytes(package.read_bytes())
        gpu = find_gpu() if device == "cuda" else None
        build = Build(
            builder="torch",
            version=torch.__version__,
            gpu=gpu.name if gpu else None,
            compute_capability=gpu.compute_capability if gpu else None,
            driver=gpu.driver if gpu else None,
            options={
                "device": device,
                "machine": platform.machine(),
                "instruction_sets": instruction_sets(),
                "batch": _ends(request.batch),
                "height": _ends(request.heights),
                "width": _ends(request.widths),
            },
            seconds=round(time.perf_counter() - start, 2),
        )
        return Built(build)


def _require_cuda_toolkit() -> None:
    """PyTorch brings CUDA's libraries, but neither its headers nor the driver's library to link with."""
    from torch.utils.cpp_extension import CUDA_HOME

    if CUDA_HOME is None or not Path(CUDA_HOME, "include", "cuda.h").is_file():
        raise MissingDependencyError(
            f"--engine aoti compiles for the GPU with the CUDA toolkit ({torch.version.cuda}), which it does not find;"
            " install it and name its folder in CUDA_HOME, or compile for the CPU with CUDA_VISIBLE_DEVICES= before the"
            " command"
        )


def _trace(request: BuildRequest, device: str) -> torch.export.ExportedProgram:
    """Return the network as one graph, with those sizes free that have a range."""
    multiple = request.contract.size_multiple
    dims: dict[int, Any] = {}
    shape = [request.batch.opt, request.heights.opt, request.widths.opt]
    if request.batch.min < request.batch.max:
        dims[0] = torch.export.Dim("batch", min=request.batch.min, max=request.batch.max)
        # Traced with one image, the batch would be taken to be always one.
        shape[0] = max(2, request.batch.min)
    if multiple is not None:
        for axis, sides, name in ((1, request.heights, "height_cells"), (2, request.widths, "width_cells")):
            least, most = sides.min // multiple, sides.max // multiple
            if least == most:
                continue
            dims[axis] = multiple * torch.export.Dim(name, min=least, max=most)
            # Equal sides would come out tied to each other.
            shape[axis] = multiple * min(max(2 * axis + 2, least), most)
    network = copy.deepcopy(request.network).eval().to(device)
    count, *size = shape
    images = blank_images(network, count, (size[0], size[1]), device)
    with torch.no_grad(), free_positions() if multiple else nullcontext():
        return torch.export.export(network, (images,), dynamic_shapes=(dims,))


def _ends(sizes: Range) -> list[int]:
    return [sizes.min, sizes.max]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep remarks of the exporter and the compiler on their own internals from the user."""
    with warnings.catch_warnings(), quiet_torch():
        warnings.simplefilter("ignore")
        yield
