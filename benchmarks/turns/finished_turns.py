"""The times in turn that are done, on disk: `OUT/rows/in-turn-<identity>.json`."""

from collections.abc import Sequence
from pathlib import Path

from segkc_deploy import atomic
from segkc_deploy.benchmarks.schema import InTurn
from segkc_deploy.benchmarks.turns.in_turn import PlannedWay

_NAME_LENGTH = 16


class FinishedTurns:
    """What `measure_in_turn` found, by its identity, below one report's folder; only the last one is kept."""

    def __init__(self, out: Path) -> None:
        self._folder = out / "rows"

    def keep(self, identity: str, in_turn: InTurn) -> None:
        """Mark the turns as done, in place of earlier ones."""
        self.forget()
        atomic.write_text(self._file(identity), in_turn.model_dump_json())

    def find(self, identity: str, ways: Sequence[PlannedWay]) -> InTurn | None:
        """Return the turns of `ways`, under the names that these have now, or None if they are not done."""
        file = self._file(identity)
        if not file.is_file():
            return None
        stored = InTurn.model_validate_json(file.read_bytes())
        names = {kept.name: way.name for kept, way in zip(stored.ways, ways, strict=True)}
        renamed = [way.model_copy(update={"name": names[way.name]}) for way in stored.ways]
        return stored.model_copy(update={"reference": names[stored.reference], "ways": renamed})

    def forget(self) -> None:
        """Delete what is there."""
        for file in self._folder.glob("in-turn-*.json"):
            file.unlink()

    def _file(self, identity: str) -> Path:
        return self._folder / f"in-turn-{identity[:_NAME_LENGTH]}.json"
