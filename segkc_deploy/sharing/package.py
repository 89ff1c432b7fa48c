"""A package: the files of an artifact or a run that a hub keeps, with the checksum of each.

Weights are safetensors or ONNX, which hold numbers and graphs; formats that execute code when they are loaded (pickles,
compiled libraries) are neither pushed nor pulled.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from segkc_deploy.errors import ArtifactError, HubError, RunDirectoryError
from segkc_deploy.manifest import companion_path, manifest_path, read_manifest, sha256_of
from segkc_deploy.sharing.model_card import is_card_of
from segkc_deploy.validation import load_yaml

#: The list of a package's files.
INDEX = "segkc-deploy.json"
_SUFFIXES = frozenset({".onnx", ".safetensors", ".json", ".yaml", ".md"})
_NAME = re.compile(r"[\w][\w.+-]*")
_NAME_IN_WORDS = "letters, digits and . _ + - alone"
#: What Windows takes for a device, whatever follows the first dot.
_DEVICE = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9])(\..*)?", re.IGNORECASE)
_LARGEST_HEADER = 100 << 20
#: What a run is not usable without.
_RUN = ("config.yaml", "junior.safetensors")


class PackedFile(BaseModel):
    """One file: its sha256 and its size in bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class PackageIndex(BaseModel):
    """What a package holds: the files by name, all in one folder, and the `main` one, empty for a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["segkc-deploy-package/1"] = "segkc-deploy-package/1"
    kind: Literal["artifact", "run"]
    main: str = ""
    files: dict[str, PackedFile]


@dataclass(frozen=True)
class Package:
    """Files to push, by their names in the repository: a path, or the content itself.

    `left_out` is a `README.md` beside them that is not theirs, such as a project's.
    """

    kind: Literal["artifact", "run"]
    main: str
    files: dict[str, Path | bytes]
    left_out: Path | None = None

    def index(self) -> PackageIndex:
        """Return the list of the files with their checksums."""

        found = {}
        for name, content in self.files.items():
            if isinstance(content, Path):
                found[name] = PackedFile(sha256=sha256_of(content), bytes=content.stat().st_size)
            else:
                found[name] = PackedFile(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        return PackageIndex(kind=self.kind, main=self.main, files=found)


def pack(target: Path) -> Package:
    """Return the package of a run directory or an artifact; a `README.md` beside it belongs to it if it is its card.

    Raises:
        ArtifactError: the artifact is damaged, or of an engine whose files are not shared.
        RunDirectoryError: the folder is no run, or it has no network yet.
    """
    package = _pack_run(target) if target.is_dir() else _pack_artifact(target)
    card = (target if target.is_dir() else target.parent) / "README.md"
    if card.is_file():
        if is_card_of(card, package.main):
            package.files["README.md"] = card
        else:
            package = replace(package, left_out=card)
    for name in package.files:
        if not _NAME.fullmatch(name) or _DEVICE.fullmatch(name):
            raise ArtifactError(
                f"{target}: {name!r} cannot be pulled by that name; rename the artifact and the files beside it to"
                f" names of {_NAME_IN_WORDS} that are no devices on Windows"
            )
    return package


def _pack_artifact(artifact: Path) -> Package:
    manifest = read_manifest(artifact)
    if artifact.suffix != ".onnx":
        raise ArtifactError(
            f"{artifact}: only ONNX artifacts are shared: engines are built for one machine, and some formats execute"
            " code when they are loaded; export with --engine onnx"
        )
    files: dict[str, Path | bytes] = {artifact.name: artifact, manifest_path(artifact).name: manifest_path(artifact)}
    for suffix in manifest.companions:
        companion = companion_path(artifact, suffix)
        files[companion.name] = companion
    return Package("artifact", artifact.name, files)


def _pack_run(run: Path) -> Package:
    """The networks and the recipe; not the data's place on this machine, logs or checkpoints."""
    config, junior = (run / name for name in _RUN)
    for file in (config, junior):
        if not file.is_file():
            raise RunDirectoryError(f"{run}: not a run directory with a network (it has no {file.name})")
    content = load_yaml(config) | {"data": None}
    files: dict[str, Path | bytes] = {"config.yaml": yaml.safe_dump(content, sort_keys=False).encode()}
    for network in (junior, run / "senior.safetensors"):
        if network.is_file():
            require_safetensors(network, RunDirectoryError)
            files[network.name] = network
    return Package("run", "", files)


def read_index(path: Path, where: str) -> PackageIndex:
    """Read the list of a package's files; nothing in it leads out of its folder or is of another kind.

    Raises:
        HubError: it is damaged, or holds something that is not pulled.
    """
    try:
        content: Any = json.loads(path.read_bytes())
        index = PackageIndex.model_validate(content)
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"])) or "the file"
        raise HubError(f"{where}: {INDEX}: {key} is missing or wrong; was it pushed by `segkc-deploy push`?") from None
    except (ValueError, RecursionError):
        raise HubError(f"{where}: {INDEX} is damaged; push again") from None
    _require_names(index.files, where)
    if index.kind == "artifact" and (Path(index.main).suffix != ".onnx" or index.main not in index.files):
        raise HubError(f"{where}: {INDEX} names no ONNX artifact; push again")
    needed = [manifest_path(Path(index.main)).name] if index.kind == "artifact" else _RUN
    for name in needed:
        if name not in index.files:
            raise HubError(f"{where}: {INDEX} names no {name}, without which it cannot be used; push again")
    return index


def _require_names(names: Collection[str], where: str) -> None:
    """Raise HubError for a name that leads elsewhere, is of another kind, or is no file of its own on every system."""
    seen: dict[str, str] = {}
    for name in names:
        if not _NAME.fullmatch(name):
            raise HubError(f"{where}: holds {name!r}; only files with names of {_NAME_IN_WORDS} are pulled")
        if _DEVICE.fullmatch(name):
            raise HubError(f"{where}: holds {name!r}, which is a device on Windows; rename it")
        if Path(name).suffix not in _SUFFIXES or name == INDEX:
            raise HubError(f"{where}: holds {name!r}; only {', '.join(sorted(_SUFFIXES))} files are pulled")
        # Windows and macOS make one file of names that differ in case, or in how an accent is written.
        other = seen.setdefault(unicodedata.normalize("NFKC", name).casefold(), name)
        if other != name:
            raise HubError(f"{where}: holds {other!r} and {name!r}, which some systems do not tell apart; rename one")


def verify(path: Path, packed: PackedFile, where: str) -> None:
    """Check a pulled file against its checksum, and weights for being safetensors.

    Raises:
        HubError: it differs, or is something else.
    """
    if path.stat().st_size != packed.bytes or sha256_of(path) != packed.sha256:
        raise HubError(f"{where}: {path.name} is damaged: its checksum is not the one in {INDEX}; pull again")
    if path.suffix == ".safetensors":
        require_safetensors(path, HubError)


def require_safetensors(path: Path, error: type[HubError] | type[RunDirectoryError]) -> None:
    """Raise `error` unless the file begins with the length and the JSON of a safetensors header."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if 2 <= length <= _LARGEST_HEADER else b""
    try:
        is_header = isinstance(json.loads(header), dict)
    except (ValueError, RecursionError):
        is_header = False
    if not is_header:
        raise error(f"{path}: not a safetensors file, so it is not shared")
