"""From an artifact to the runner of its engine."""

from pathlib import Path
from typing import cast

from segkc_deploy.engines import ENGINES, import_class
from segkc_deploy.errors import ArtifactError, ConfigError
from segkc_deploy.manifest import Manifest
from segkc_deploy.runners.base import Runner, RunnerOptions


def create_runner(
    path: Path,
    manifest: Manifest,
    device: str = "auto",
    threads: int | None = None,
    cuda_graph: bool = False,
    outputs: tuple[str, ...] | None = None,
    streams: int | None = 1,
    measured_streams: int | None = None,
) -> Runner:
    """Return the runner for the artifact at `path`, not yet activated. Only the engine's own library is imported.

    See `segkc_deploy.load` for the arguments, and `RunnerOptions` for `outputs` and `measured_streams`.

    Raises:
        ArtifactError: the engine is not known.
        ConfigError: CUDA graphs or streams are asked of an engine without them.
    """
    entry = ENGINES.get(manifest.engine)
    if entry is None:
        raise ArtifactError(
            f"{path}: made for the engine {manifest.engine!r}; this version runs {', '.join(ENGINES)}; export again"
        )
    if cuda_graph and not entry.cuda_graphs:
        able = ", ".join(other.name for other in ENGINES.values() if other.cuda_graphs)
        raise ConfigError(f"{path}: CUDA graphs are for the engine {able}; run this one without")
    if not entry.streams and (streams or 1) > 1:
        able = " and ".join(other.name for other in ENGINES.values() if other.streams)
        raise ConfigError(f"{path}: streams are for the engines {able} on a CPU; run this one without")
    streams = streams if entry.streams else 1
    options = RunnerOptions(device, threads, cuda_graph, outputs, streams, measured_streams)
    return cast(Runner, import_class(entry.runner).for_artifact(path, manifest, options))
