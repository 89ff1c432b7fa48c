"""What trainings with several seeds say: means with their spread, and differences between rows with the same seeds."""

import statistics
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from scipy import stats

#: The method that others are compared with.
SUPERVISED = "supervised"

FEWEST_SEEDS_TO_JUDGE = 3

#: mIoU by seed.
Scores = Mapping[int, float]


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
        count = len(self.values)
        if count < FEWEST_SEEDS_TO_JUDGE:
            return None
        half = float(stats.t.ppf(0.975, count - 1) * stats.sem(self.values))
        return self.mean - half, self.mean + half

    @property
    def significance(self) -> str:
        """`outside` or `within` the seeds' spread, or `not judged`."""
        if self.interval is None:
            return "not judged"
        same_sign = all(value > 0 for value in self.values) or all(value < 0 for value in self.values)
        return "outside" if same_sign and not self.interval[0] <= 0 <= self.interval[1] else "within"

    def __str__(self) -> str:
        spread = f" ± {statistics.stdev(self.values):.2f}" if len(self.values) > 1 else ""
        return f"{self.mean:+.2f}{spread} ({self.significance})"


def paired(ours: Scores, other: Scores) -> PairedDifference | None:
    """Return the differences over the seeds that both have, or None if there are none."""
    seeds = sorted(ours.keys() & other.keys())
    return PairedDifference(tuple(ours[seed] - other[seed] for seed in seeds)) if seeds else None


def mean_and_spread(values: Collection[float]) -> str:
    """Return the mean ± sample standard deviation; no spread for one value, a dash for none."""
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean
