"""The scores of a study of methods by seed, and the checks that its rows can be compared."""

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any, NoReturn

from segkc_deploy.benchmarks.report.seeds import SUPERVISED
from segkc_deploy.benchmarks.studies.shared_settings import completed, difference
from segkc_deploy.benchmarks.studies.study_rows import StudyRow
from segkc_deploy.errors import ConfigError
from segkc_deploy.machine import cpu_text

OURS = "segkc"

#: Ablations are rows whose names begin so: `segkc-no-gate`.
VARIANT = f"{OURS}-"

_CONDITIONS = ("crop_size", "images_per_step", "images", "network", "settings")


class StudyAnalysis:
    """The rows of one study.

    Raises:
        ConfigError: rows that are not trainings of a study of methods, or that differ in what all of them must share.
    """

    def __init__(self, rows: Sequence[StudyRow]) -> None:
        self.rows = [row for row in rows if row.role in ("junior", "senior")]
        self.study = rows[0].study
        unfit = next((row for row in self.rows if None in (get(row, name) for name in _CONDITIONS)), None)
        if unfit or all(row.role != "junior" for row in self.rows):
            what = f"{_place(unfit)}: not a training" if unfit else "no trainings"
            raise ConfigError(f"study {self.study}: {what} of a study of methods; `studies.tables` prints any study")
        for name in ("steps", "crop_size", "images_per_step"):
            self._only(name, self.rows)
        self._same_settings()
        self._only("network", [row for row in self.rows if row.role == "junior"])
        # Every seed may have labels of its own.
        for drawn in dict.fromkeys((row.labels, row.seed) for row in self.rows):
            self._only("images", [row for row in self.rows if (row.labels, row.seed) == drawn])

    def names(self, labels: str | None = None) -> list[str]:
        """Return the names of the rows, of one share of the labels or of all."""
        return list(dict.fromkeys(row.row for row in self.rows if labels in (None, row.labels)))

    def shares(self) -> list[str]:
        """Return the shares of the labels."""
        return list(dict.fromkeys(row.labels for row in self.rows))

    def main_share(self) -> str:
        """Return the share of the labels with which most rows were trained."""
        return max(self.shares(), key=lambda labels: len(self.names(labels)))

    def scores(self, name: str, labels: str, role: str = "junior", field: str = "miou") -> dict[int, float]:
        """Return a field by seed."""
        found = {row.seed: get(row, field) for row in self._of(name, labels, role)}
        return {seed: found[seed] for seed in sorted(found) if found[seed] is not None}

    def times(self, name: str, labels: str, field: str) -> list[float]:
        """Return a field of seconds for each seed that was trained on the processor that trained most of the study."""
        (usual, _), *_ = self._processors().most_common(1)
        seconds = (get(row, field) for row in self._of(name, labels, "junior") if _processor(row) == usual)
        return [value for value in seconds if value is not None]

    def trained_on_several_processors(self) -> bool:
        """Return whether seconds of different seeds cannot be averaged."""
        return len(self._processors()) > 1

    def best_single_network(self, labels: str) -> str | None:
        """Return the row of the best mean among those of one network that use unlabeled images.

        Only those with the most seeds compete: a single seed may be a lucky one.
        """
        scores = {
            name: list(self.scores(name, labels).values())
            for name in self.names(labels)
            if name != SUPERVISED and not name.startswith(VARIANT) and not self._of(name, labels, "senior")
        }
        most = max(map(len, scores.values()), default=0)
        return max(
            (name for name, of_seeds in scores.items() if len(of_seeds) == most),
            key=lambda name: statistics.fmean(scores[name]),
            default=None,
        )

    def distinct(self, name: str) -> list[Any]:
        """Return the distinct values of a field in the order of the rows."""
        return list({str(value): value for value in (get(row, name) for row in self.rows)}.values())

    def _processors(self) -> Counter[str]:
        return Counter(_processor(row) for row in self.rows if row.role == "junior")

    def _of(self, name: str, labels: str, role: str) -> list[StudyRow]:
        return [row for row in self.rows if (row.row, row.labels, row.role) == (name, labels, role)]

    def _same_settings(self) -> None:
        all_settings = [completed(row.settings or {}, f"study {self.study}: {_place(row)}") for row in self.rows]
        for row, settings in zip(self.rows, all_settings, strict=True):
            if found := difference(all_settings[0], settings):
                self._differ(found, self.rows[0], row)

    def _only(self, name: str, rows: Sequence[StudyRow]) -> None:
        first = rows[0]
        for row in rows:
            if get(row, name) != get(first, name):
                self._differ((name, get(first, name), get(row, name)), first, row)

    def _differ(self, found: tuple[str, Any, Any], first: StudyRow, row: StudyRow) -> NoReturn:
        name, one, other = found
        raise ConfigError(
            f"study {self.study}: {name} is {one} in {_place(first)}, but {other} in {_place(row)}; train one of them"
            " again"
        )


def get(row: StudyRow, name: str) -> Any:
    """Return a field of a row, or None where it has none."""
    return getattr(row, name, None)


def _place(row: StudyRow) -> str:
    return f"row {row.row}, labels {row.labels}, seed {row.seed}"


def _processor(row: StudyRow) -> str:
    return row.machine if isinstance(row.machine, str) else cpu_text(row.machine)
