"""A built engine before it has its name: verified under another one, then renamed or set aside, never half there."""

import contextlib
import secrets
import time
from pathlib import Path

from segkc_deploy.errors import VerificationError
from segkc_deploy.export.engines.base import Engine
from segkc_deploy.manifest import Manifest, companion_path, manifest_path, sha256_of, write_manifest

#: Appended to the name of a rejected artifact's manifest-like file of layers.
LAYERS_SUFFIX = ".layers.json"


#: Age in seconds from which files under a temporary name are those of a killed export, not of one that still runs.
_LEFT_BEHIND = 24 * 3600


class Candidate:
    """The files of an engine under a temporary name, this export's alone, beside their final one.

    Args:
        engine: whose files they are.
        artifact: the final path.
    """

    def __init__(self, engine: Engine, artifact: Path) -> None:
        self.artifact = artifact
        self.path = artifact.with_name(f".{artifact.stem}-{secrets.token_hex(4)}{artifact.suffix}.unverified")
        self.rejected = artifact.with_name(artifact.name + ".rejected")
        self._engine = engine

    def fingerprint(self) -> dict[str, object]:
        """Return the manifest's fields that describe the files: hashes and size in bytes."""
        written = {suffix: path for suffix, path in self._companions(self.path) if path.is_file()}
        return {
            "sha256": sha256_of(self.path),
            "bytes": sum(path.stat().st_size for path in (self.path, *written.values())),
            "companions": {suffix: sha256_of(path) for suffix, path in written.items()},
        }

    def accept(self, manifest: Manifest) -> None:
        """Give the files their name, and remove what was rejected under it before."""
        # Interrupted between the two, an older artifact and the new manifest do not match: loading refuses the pair.
        write_manifest(self.artifact, manifest)
        self._move(self.artifact)
        self._remove(self.rejected)

    def reject(self, manifest: Manifest, reason: str) -> VerificationError:
        """Set the files aside under a name that nobody deploys; return the error that says so."""
        self._remove(self.rejected)
        self._move(self.rejected)
        write_manifest(self.rejected, manifest)
        message = f"{self.rejected}: {reason}; it is kept under this name and must not be deployed"
        return VerificationError(message, reason)

    @property
    def layers(self) -> Path:
        """Where a rejected artifact's comparison layer by layer goes."""
        return self.rejected.with_name(self.rejected.name + LAYERS_SUFFIX)

    def discard(self) -> None:
        """Remove what is left under the temporary name."""
        for path in (self.path, *(path for _, path in self._companions(self.path))):
            path.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what killed exports of this artifact left a day ago or earlier."""
        for path in self.artifact.parent.glob(f".{self.artifact.stem}-*.unverified"):
            # An export that ends now takes its own away.
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - _LEFT_BEHIND:
                    path.unlink()

    def _companions(self, path: Path) -> list[tuple[str, Path]]:
        """Return the further files that may belong to the engine's file `path`, with their suffixes."""
        return [(suffix, companion_path(path, suffix)) for suffix in self._engine.companion_suffixes]

    def _move(self, target: Path) -> None:
        for (_, source), (_, final) in zip(self._companions(self.path), self._companions(target), strict=True):
            if source.is_file():
                source.replace(final)
            else:
                final.unlink(missing_ok=True)
        self.path.replace(target)

    def _remove(self, target: Path) -> None:
        for path in (target, *(path for _, path in self._companions(target)), manifest_path(target), self.layers):
            path.unlink(missing_ok=True)
