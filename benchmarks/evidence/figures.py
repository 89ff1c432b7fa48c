"""What the rows of a study of methods say: scores by seed, and differences with the same seeds."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segkc_deploy.benchmarks.results import StudyRow
from segkc_deploy.errors import ConfigError

BASELINE, OURS = "supervised", "segkc"

#: Rows that are the method with something taken away or changed: `segkc-no-gate`.
VARIANT = f"{OURS}-"

FEWEST_SEEDS_TO_JUDGE = 3

_CONDITIONS = ("crop_size", "images_per_step", "images", "network", "common_sha256")

#: 97.5% quantiles of Student's t by degrees of freedom; with more of them the last one is on the safe side.
_T_QUANTILES = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


@dataclass(frozen=True)
class PairedDifference:
    """Differences of two rows with the same seeds, in points of mIoU."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval of the mean by Student's t, or None with too few seeds to judge."""
        if len(self.values) < FEWEST_SEEDS_TO_JUDGE:
            return None
        standard_error = statistics.stdev(self.values) / math.sqrt(len(self.values))
        half = _T_QUANTILES[min(len(self.values) - 1, max(_T_QUANTILES))] * standard_error
        return self.mean - half, self.mean + half

    @property
    def verdict(self) -> str:
        """`outside` or `within` the seeds' spread, or `not judged`."""
        if self.interval is None:
            return "not judged"
        same_sign = all(value > 0 for value in self.values) or all(value < 0 for value in self.values)
        return "outside" if same_sign and not self.interval[0] <= 0 <= self.interval[1] else "within"

    def __str__(self) -> str:
        mean = f"{self.mean:+.2f}"
        spread = f" ± {statistics.stdev(self.values):.2f}" if len(self.values) > 1 else ""
        return f"{mean}{spread} ({self.verdict})"


#: mIoU by seed.
Scores = Mapping[int, float]


class StudyFigures:
    """The rows of one study, by what is asked of them.

    Raises:
        ConfigError: rows that `evidence` did not make, or that differ in what has to be the same in all of them.
    """

    def __init__(self, rows: Sequence[StudyRow]) -> None:
        self.rows = [row for row in rows if row.role in ("junior", "senior")]
        self.study = rows[0].study
        strange = next((row for row in self.rows if None in (get(row, name) for name in _CONDITIONS)), None)
        if strange or all(row.role != "junior" for row in self.rows):
            what = f"{_place(strange)}: not a training" if strange else "no trainings"
            raise ConfigError(f"study {self.study}: {what} of `evidence`; `tables` prints any study")
        for name in ("steps", "crop_size", "images_per_step", "common_sha256"):
            self._only(name, self.rows)
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
        """Return a figure by seed."""
        found = {row.seed: get(row, field) for row in self._of(name, labels, role)}
        return {seed: found[seed] for seed in sorted(found) if found[seed] is not None}

    def best_single_network(self, labels: str) -> str | None:
        """Return the row of the best mean among those of one network that use unlabeled images."""
        single = [
            name
            for name in self.names(labels)
            if name != BASELINE and not name.startswith(VARIANT) and not self._of(name, labels, "senior")
        ]
        return max(single, key=lambda name: statistics.fmean(self.scores(name, labels).values()), default=None)

    def distinct(self, name: str) -> list[Any]:
        """Return the different values of a field in the order of the rows."""
        return list({str(value): value for value in (get(row, name) for row in self.rows)}.values())

    def _of(self, name: str, labels: str, role: str) -> list[StudyRow]:
        return [row for row in self.rows if (row.row, row.labels, row.role) == (name, labels, role)]

    def _only(self, name: str, rows: Sequence[StudyRow]) -> None:
        first = rows[0]
        for row in rows:
            if get(row, name) != get(first, name):
                raise ConfigError(
                    f"study {self.study}: {name} is {get(first, name)} in {_place(first)}, but {get(row, name)} in"
                    f" {_place(row)}; train one of them again"
                )


def paired(ours: Scores, other: Scores) -> PairedDifference | None:
    """Return the differences over the seeds that both have, or None without any."""
    seeds = sorted(ours.keys() & other.keys())
    return PairedDifference(tuple(ours[seed] - other[seed] for seed in seeds)) if seeds else None


def get(row: StudyRow, name: str) -> Any:
    """Return a field of a row, or None where it has none."""
    return getattr(row, name, None)


def _place(row: StudyRow) -> str:
    return f"row {row.row}, labels {row.labels}, seed {row.seed}"
