"""Whether an engine file fits this machine, found out before a library of NVIDIA's is handed it.

An engine is tied to the version of TensorRT and to the GPU it was built with, unless it was built to be compatible
with others. The driver may differ: TensorRT does not compare it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segkc_deploy.cuda_probe import Gpu
from segkc_deploy.errors import ArtifactError
from segkc_deploy.invocation import suggested_command
from segkc_deploy.manifest import Build, Manifest
from segkc_deploy.tensorrt_library import LIBRARIES

_HEADER_BYTES = 32

#: (built with, runs on): the one pair of major versions that version-compatible engines may cross
_ACROSS_MAJORS = (10, 11)
_AMPERE = (8, 0)


@dataclass(frozen=True)
class Difference:
    """One thing that an engine is tied to and that is not the same here."""

    what: str
    built: str
    here: str


def check_plan(path: Path, manifest: Manifest) -> None:
    """Look at the size and the first bytes of an engine file.

    Raises:
        ArtifactError: it is cut short, or it is not a file of the manifest's engine.
    """
    size = path.stat().st_size
    # With companions, the manifest counts their bytes too.
    whole = max(manifest.bytes if not manifest.companions else 0, _HEADER_BYTES)
    if size < whole:
        raise ArtifactError(f"{path}: cut short: {size} of {whole} bytes; copy it again or export again")
    with path.open("rb") as file:
        start = file.read(_HEADER_BYTES)
    library = LIBRARIES[manifest.engine]
    if start[:4] == library.magic:
        return
    if start[4:5] == b"{":
        # Some exporters write the length of a JSON text and the text before the plan.
        reason = "metadata stands before the plan; other tools write such files"
    else:
        reason = f"it begins with {start[:4]!r}, not with {library.magic!r}"
    raise ArtifactError(
        f"{path}: not an engine of {library.title}: {reason}; make one with `{rebuild_command(manifest)}`"
    )


def check_match(path: Path, manifest: Manifest, gpu: Gpu, version: str) -> None:
    """Compare what an engine was built with to this machine.

    Args:
        path: the engine file, for the message.
        manifest: the engine's.
        gpu: the GPU it is to run on.
        version: the version of TensorRT (or TensorRT for RTX) that is to run it.

    Raises:
        ArtifactError: they do not fit; the message says what differs and the command that builds it anew.
    """
    found = differences(manifest, gpu, version)
    if not found:
        return
    built = " and ".join(f"{entry.what} {entry.built}" for entry in found)
    here = " and ".join(f"{entry.what} {entry.here}" for entry in found)
    raise ArtifactError(
        f"{path}: built for {built}, but this machine has {here}; build it here with `{rebuild_command(manifest)}`"
    )


def differences(manifest: Manifest, gpu: Gpu, version: str) -> list[Difference]:
    """Return what keeps the engine from running on `gpu` with `version`, nothing if it can.

    Raises:
        ArtifactError: the manifest does not say what built the engine.
    """
    build = manifest.build
    if build is None:
        raise ArtifactError(
            f"{manifest.artifact}: its manifest does not say what built it; export it again with"
            f" `{rebuild_command(manifest)}`"
        )
    found = []
    if not _version_fits(manifest.engine, build, version):
        found.append(Difference(LIBRARIES[manifest.engine].title, build.version, version))
    if manifest.engine == "trt-rtx":
        found += _rtx_gpu_difference(build, gpu)
    else:
        found += _gpu_difference(build, gpu)
    return found


def driver_remark(build: Build, gpu: Gpu) -> str:
    """Return " (built with driver …, here …)" where the drivers differ: a hint when an engine fails to load."""
    if build.driver is None or build.driver == gpu.driver:
        return ""
    return f" (built with driver {build.driver}, this machine has {gpu.driver})"


def rebuild_command(manifest: Manifest) -> str:
    """Return the command that exports the same artifact again: the one that made it, where that is known."""
    if " export " in manifest.command:
        return manifest.command
    return suggested_command(
        "export", manifest.source.run, "--engine", manifest.engine, "--precision", manifest.precision
    )


def _version_fits(engine: str, build: Build, version: str) -> bool:
    built, here = _numbers(build.version), _numbers(version)
    if built == here:
        return True
    if engine == "trt-rtx" or "VERSION_COMPATIBLE" not in build.flags:
        return False
    return built < here and (built[0] == here[0] or (built[0], here[0]) == _ACROSS_MAJORS)


def _numbers(version: str) -> tuple[int, ...]:
    """Return major, minor, patch and build; `10.13.3.9.post1` is a wheel of 10.13.3.9."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:4])


def _gpu_difference(build: Build, gpu: Gpu) -> list[Difference]:
    level = build.options.get("hardware_compatible")
    if level == "ampere_plus" and _capability(gpu.compute_capability) >= _AMPERE:
        return []
    if build.compute_capability != gpu.compute_capability:
        built = f"{build.gpu} (compute capability {build.compute_capability})"
        return [Difference("the GPU", built, f"{gpu.name} (compute capability {gpu.compute_capability})")]
    if build.gpu != gpu.name and level is None:
        return [Difference("the GPU", str(build.gpu), gpu.name)]
    return []


def _rtx_gpu_difference(build: Build, gpu: Gpu) -> list[Difference]:
    """TensorRT for RTX builds for named compute capabilities; without any, for all from Ampere on."""
    wanted = list(build.options.get("compute_capabilities") or ())
    if rtx_runs_on(gpu, wanted):
        return []
    built = "compute capability " + (" or ".join(wanted) if wanted else "8.0 and later")
    return [Difference("a GPU of", built, f"compute capability {gpu.compute_capability} ({gpu.name})")]


def rtx_runs_on(gpu: Gpu, wanted: Sequence[str]) -> bool:
    """Return whether a GPU runs engines of TensorRT for RTX that were built for the `wanted` compute capabilities."""
    return gpu.compute_capability in wanted if wanted else _capability(gpu.compute_capability) >= _AMPERE


def _capability(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
