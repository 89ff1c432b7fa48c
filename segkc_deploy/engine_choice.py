"""The engine that ran a network fastest on this machine: kept in the user's cache folder and shown by `doctor`.

`segkc-deploy export --engine auto` measures and stores it. It counts for one network, machine and set of options, until
an engine or this package has another version.
"""

import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from segkc_deploy import atomic
from segkc_deploy.engines import ENGINES
from segkc_deploy.machine import describe_machine
from segkc_deploy.progress import console
from segkc_deploy.user_cache import cache_folder

if TYPE_CHECKING:
    from segkc_deploy.manifest import Manifest

FORMAT = "segkc-deploy-engine-choice/1"
_PURPOSE = "engine-choice"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TriedEngine(_Part):
    """An engine with a precision that was tried: its latency, or why it is out of the question.

    `latency_ms` is the median from a decoded image to its mask with `threads` CPU threads (the engine's own choice if
    None).
    """

    engine: str
    precision: str
    threads: int | None = None
    latency_ms: float | None = None
    verified: str = Field(default="", description="what the export's verification found, in words")
    rejected: str = ""


class EngineChoice(_Part):
    """What was tried for a network, with the fastest one first.

    Attributes:
        network: sha256 of the network's weights file, and `run` where it was.
        settings: what the choice depends on: options of the export, and whether its images have masks and labels.
        machine: processor, cores and GPUs.
        versions: of this package and the engines, empty where one is not installed.
        tried: everything that was tried; the first one is chosen.
        contract: what the chosen artifact takes and gives; empty in files of before.
        streams, images_per_s: how many images at once, each with an equal part of the threads, gave the most images/s.
    """

    format: str = FORMAT
    network: str
    run: str
    settings: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, str]
    tried: tuple[TriedEngine, ...] = Field(min_length=1)
    contract: dict[str, Any] = {}
    streams: int = 1
    images_per_s: float | None = None
    created: str = ""

    @property
    def chosen(self) -> TriedEngine:
        return self.tried[0]

    @property
    def current(self) -> bool:
        """Whether the engines have the versions that were measured."""
        return self.versions == engine_versions()


def find_choice(network: str, settings: dict[str, Any]) -> EngineChoice | None:
    """Return the stored choice for a network on this machine, if it is still current."""
    path = _path(network, settings, this_machine())
    choice = _read(path) if path.is_file() else None
    return choice if choice is not None and choice.current else None


def store_choice(choice: EngineChoice) -> None:
    """Keep a choice; where the cache folder cannot be written, the next export measures again."""
    path = _path(choice.network, choice.settings, choice.machine)
    try:
        atomic.write_text(path, choice.model_dump_json(indent=1) + "\n")
    except OSError as error:
        console.print(f"{path}: the choice was not kept ({error.strerror})", soft_wrap=True, markup=False)


def stored_choices() -> list[EngineChoice]:
    """Return the choices for this machine, the oldest first."""
    machine = this_machine()
    found = [choice for path in cache_folder(_PURPOSE).glob("*.json") if (choice := _read(path)) is not None]
    return sorted((choice for choice in found if choice.machine == machine), key=lambda choice: choice.created)


def measured_streams(manifest: "Manifest") -> int | None:
    """Return how many images at once gave the most images/s where an artifact was chosen; None if it was not."""
    of_artifact = (manifest.source.weights_sha256, manifest.engine, manifest.precision)
    contract = manifest.contract.model_dump(mode="json")
    try:
        choices = stored_choices()
    except OSError:  # a cache folder that cannot be read
        return None
    for choice in reversed(choices):
        same = of_artifact == (choice.network, choice.chosen.engine, choice.chosen.precision)
        if same and choice.contract == contract and choice.current:
            return choice.streams
    return None


def this_machine() -> dict[str, Any]:
    """Return what a choice depends on of this machine, as JSON values."""
    described = describe_machine()
    return {name: described[name] for name in ("cpu", "cores", "gpus")}


def engine_versions() -> dict[str, str]:
    """Return the versions of this package and of the packages that run artifacts."""
    own = {"segkc-deploy": _version("segkc-deploy")}
    return own | {name: _version(name) for entry in ENGINES.values() for name in entry.packages}


def _path(network: str, settings: dict[str, Any], machine: dict[str, Any]) -> Path:
    identity = json.dumps([network, settings, machine], sort_keys=True)
    return cache_folder(_PURPOSE) / f"{hashlib.sha256(identity.encode()).hexdigest()[:24]}.json"


def _read(path: Path) -> EngineChoice | None:
    """Return what a file holds, or None for one that is damaged or of another format."""
    try:
        choice = EngineChoice.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return choice if choice.format == FORMAT else None


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
