"""The rows that are done, on disk: `OUT/rows/<identity>/` holds one row as it was measured, and its masks."""

import re
import shutil
from collections.abc import Collection
from pathlib import Path

from segkc_deploy import atomic
from segkc_deploy.benchmarks.report.pictures import mask_path
from segkc_deploy.benchmarks.schema import Row

#: Characters of an identity that name a folder; 64 bits tell any number of rows apart.
_NAME_LENGTH = 16
_ROW_FILE = "row.json"


class FinishedRows:
    """Rows by their identity, below one report's folder.

    A row is there once `keep` has returned, whenever the process ends: `row.json` is written last, and whole.
    """

    def __init__(self, out: Path) -> None:
        self._folder = out / "rows"

    def masks(self, identity: str) -> Path:
        """Return the folder of a row's predicted masks."""
        return self._row_folder(identity) / "masks"

    def begin(self, identity: str) -> Path:
        """Forget what is there of a row, and return the empty folder to measure it in."""
        folder = self._row_folder(identity)
        if folder.exists():
            shutil.rmtree(folder)
        self.masks(identity).mkdir(parents=True)
        return folder

    def keep(self, identity: str, row: Row) -> None:
        """Mark a row as done."""
        atomic.write_text(self._row_folder(identity) / _ROW_FILE, row.model_dump_json())

    def find(self, identity: str) -> Row | None:
        """Return a row that is done and has all its masks, else None."""
        file = self._row_folder(identity) / _ROW_FILE
        if not file.is_file():
            return None
        row = Row.model_validate_json(file.read_bytes())
        images = row.accuracy.images if row.accuracy else 0
        has_masks = all(mask_path(self.masks(identity), place).is_file() for place in range(images))
        return row if has_masks else None

    def forget_all_but(self, identities: Collection[str]) -> None:
        """Delete the rows that have other identities."""
        wanted = {self._row_folder(identity) for identity in identities}
        for folder in self._folder.glob("*"):
            if folder not in wanted and re.fullmatch(rf"[0-9a-f]{{{_NAME_LENGTH}}}", folder.name):
                shutil.rmtree(folder)

    def _row_folder(self, identity: str) -> Path:
        return self._folder / identity[:_NAME_LENGTH]
