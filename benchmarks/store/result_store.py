"""Finished measurements on disk, in `OUT/rows`, so that a rerun measures only what is missing or has changed."""

import re
import shutil
from collections.abc import Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel

from segkc_deploy import atomic
from segkc_deploy.benchmarks.schema import Row
from segkc_deploy.benchmarks.store.masks import mask_path
from segkc_deploy.folder_lock import folder_lock

Kind = Literal["row", "interleaved", "peaks"]
Stored = TypeVar("Stored", bound=BaseModel)

#: Characters of an identity in a folder's name; 64 bits distinguish any number of results.
_NAME_LENGTH = 16
_FILE = "result.json"


class ResultStore:
    """Results by kind and identity (a sha256 of everything that they depend on), one folder for each.

    A result counts as finished once `keep` has returned: its file is written last, atomically.

    Args:
        out: the report's folder.
    """

    def __init__(self, out: Path) -> None:
        self._folder = out / "rows"

    def lock(self) -> AbstractContextManager[None]:
        """Hold the store: a second benchmark with the same `out` would delete what this one is writing.

        Raises:
            RunDirectoryError: another process holds it.
        """
        return folder_lock(self._folder)

    def masks(self, identity: str) -> Path:
        """Return the folder of a row's predicted masks."""
        return self._place("row", identity) / "masks"

    def begin(self, identity: str) -> Path:
        """Delete what is there of a row and return its folder, which holds nothing but an empty `masks`."""
        folder = self._place("row", identity)
        if folder.exists():
            shutil.rmtree(folder)
        self.masks(identity).mkdir(parents=True)
        return folder

    def keep(self, kind: Kind, identity: str, result: BaseModel) -> None:
        """Store a finished result."""
        atomic.write_text(self._place(kind, identity) / _FILE, result.model_dump_json())

    def find(self, kind: Kind, identity: str, model: type[Stored]) -> Stored | None:
        """Return a finished result, or None; a row that lacks one of its masks is not finished."""
        file = self._place(kind, identity) / _FILE
        if not file.is_file():
            return None
        result = model.model_validate_json(file.read_bytes())
        images = result.accuracy.images if isinstance(result, Row) and result.accuracy else 0
        has_masks = all(mask_path(self.masks(identity), place).is_file() for place in range(images))
        return result if has_masks else None

    def forget(self, kind: Kind, but: Collection[str] = ()) -> None:
        """Delete all results of a kind except those with the identities `but`."""
        wanted = {self._place(kind, identity) for identity in but}
        for folder in self._folder.glob("*"):
            if folder not in wanted and re.fullmatch(rf"{kind}-[0-9a-f]{{{_NAME_LENGTH}}}", folder.name):
                shutil.rmtree(folder)

    def _place(self, kind: Kind, identity: str) -> Path:
        return self._folder / f"{kind}-{identity[:_NAME_LENGTH]}"
