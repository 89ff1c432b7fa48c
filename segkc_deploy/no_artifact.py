"""Why a path is no artifact with its manifest, and what to give instead."""

from pathlib import Path

from segkc_deploy.data.files import files_below
from segkc_deploy.data.images import IMAGE_SUFFIXES
from segkc_deploy.engines import ENGINES
from segkc_deploy.invocation import suggested_command
from segkc_deploy.sources import VIDEO_SUFFIXES

_SUFFIXES = frozenset(entry.suffix for entry in ENGINES.values())
_SWAPPED = "the arguments may be swapped: the artifact comes first, images are for --source"


def why_no_artifact(path: Path) -> str:
    """Return what `path`, which is no file with a manifest beside it, is instead, and the fix."""
    if path.is_dir():
        return _why_no_folder(path)
    if not path.exists():
        return f"no such artifact; make one with `{suggested_command('export', 'RUN')}`"
    artifact, suffix = path.with_suffix(""), path.suffix.lower()
    if suffix == ".json" and artifact.suffix in _SUFFIXES:
        if artifact.is_file():
            return f"the manifest of an artifact; give the artifact itself, {artifact}"
        return f"a manifest, whose artifact {artifact.name} is missing; copy it beside the manifest and give it instead"
    if suffix in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
        return f"{'an image' if suffix in IMAGE_SUFFIXES else 'a video'}, not an artifact; {_SWAPPED}"
    return f"its manifest {path.name}.json is missing; copy it beside the artifact"


def _why_no_folder(folder: Path) -> str:
    names = {entry.name for entry in folder.iterdir()}
    artifacts = sorted(name for name in names if Path(name).suffix in _SUFFIXES and f"{name}.json" in names)
    if artifacts:
        return f"a folder; give an artifact in it, such as {folder / artifacts[0]}"
    if {"config.yaml", "junior.safetensors"} <= names:
        return f"a run directory, not an artifact; make one with `{suggested_command('export', folder)}`"
    if any(path.suffix.lower() in IMAGE_SUFFIXES for path in files_below(folder)):
        return f"a folder of images, not an artifact; {_SWAPPED}"
    return f"a folder without an artifact; make one with `{suggested_command('export', 'RUN')}`"
