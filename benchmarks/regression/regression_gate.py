"""A benchmark as a gate: conditions that no row may meet, alone or against the benchmark of an earlier time."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segkc_deploy.benchmarks.regression.comparable import other_data, other_machine, other_row
from segkc_deploy.benchmarks.regression.conditions import Condition, check_scale, parse_condition
from segkc_deploy.benchmarks.regression.row_metrics import RowMetric, row_metrics
from segkc_deploy.benchmarks.schema import BenchmarkResult
from segkc_deploy.benchmarks.store.result_file import read_result
from segkc_deploy.benchmarks.targets import PlannedRow
from segkc_deploy.errors import ConfigError

_MOST_HINTS = 3


@dataclass(frozen=True)
class Gate:
    """Conditions, and the earlier result that the relative ones are about.

    Rows are matched by name; their role, engine (without its version), precision and size have to be the same too.
    """

    conditions: tuple[Condition, ...]
    baseline: BenchmarkResult | None = None
    baseline_file: Path | None = None

    def check(self, new: BenchmarkResult, planned: Sequence[PlannedRow], images: Sequence[str]) -> None:
        """Refuse what could not be judged later; called before anything is measured.

        Args:
            new: the result that is to be filled: its labels, options and machine count.
            planned: its rows.
            images: ids of its validation images.

        Raises:
            ConfigError: an unknown metric or row, a baseline of other data or, for timings and memory, of another
                machine.
        """
        metrics = _metrics(new)
        for condition in self.conditions:
            if condition.metric not in metrics:
                raise ConfigError(_unknown(condition, metrics))
            check_scale(condition, metrics[condition.metric])
            rows = [(row.name, row.role) for row in (*planned, *(self.baseline.rows if self.baseline else ()))]
            if not any(condition.is_about(*row) for row in rows):
                names = ", ".join(dict.fromkeys(name for name, _ in rows))
                raise ConfigError(
                    f"--fail-if {condition.text!r}: no row is called {condition.rows!r}; there are {names}"
                )
            if self.baseline is not None and condition.is_relative:
                self._check_baseline(self.baseline, new, images, metrics[condition.metric])

    def _check_baseline(
        self, baseline: BenchmarkResult, new: BenchmarkResult, images: Sequence[str], metric: RowMetric
    ) -> None:
        # Timings too: each image is resized to the network's size and its mask to the image's.
        if (metric.is_accuracy or metric.is_timing) and (other := other_data(new.labels.names, images, baseline)):
            raise ConfigError(f"{self.baseline_file}: no baseline for {metric.name}: {other}")
        if (metric.is_timing or metric.is_memory) and (other := other_machine(new, baseline)):
            raise ConfigError(
                f"{self.baseline_file}: no baseline for {metric.name}: {other}; measure the baseline on this machine"
            )

    def violations(self, new: BenchmarkResult) -> list[str]:
        """Return one line for each row that is missing or is not what it was, and for each condition that holds."""
        metrics = _metrics(new)
        before = {row.name: row for row in self.baseline.rows} if self.baseline else {}
        lines, strange = self._unlike_the_baseline(new)
        for condition in self.conditions:
            rows = [
                row
                for row in new.rows
                if condition.is_about(row.name, row.role)
                and (not condition.is_relative or (row.name in before and row.name not in strange))
            ]
            for row in rows:
                violation = condition.judge(row, before.get(row.name), metrics[condition.metric])
                lines += [violation] if violation else []
            if (
                condition.is_relative
                and not rows
                and not lines
                and any(condition.is_about(row.name, row.role) for row in new.rows)
            ):
                lines.append(f"`{condition.text}` compared nothing: the baseline has none of its rows")
        return lines

    def not_compared(self, new: BenchmarkResult) -> list[str]:
        """Return the names of the rows that the baseline does not have, where a condition would compare them."""
        if self.baseline is None:
            return []
        known = {row.name for row in self.baseline.rows}
        relative = [condition for condition in self.conditions if condition.is_relative]
        return [
            row.name
            for row in new.rows
            if row.name not in known and any(condition.is_about(row.name, row.role) for condition in relative)
        ]

    def unreliable(self, new: BenchmarkResult) -> list[str]:
        """Return one line for each row whose timings a condition judges although they are marked as unreliable."""
        metrics = _metrics(new)
        timed = [condition for condition in self.conditions if metrics[condition.metric].is_timing]
        return [
            f"{row.name}: its timings are marked as unreliable: {'; '.join(row.state.flags)}"
            for row in new.rows
            if row.state.flags and any(condition.is_about(row.name, row.role) for condition in timed)
        ]

    def _unlike_the_baseline(self, new: BenchmarkResult) -> tuple[list[str], set[str]]:
        """Return lines about the baseline's rows that are missing or something else now, and those rows' names."""
        lines, strange = [], set()
        rows = {row.name: row for row in new.rows}
        for old in self.baseline.rows if self.baseline else ():
            if not any(condition.is_about(old.name, old.role) for condition in self.conditions):
                continue
            if old.name not in rows:
                lines.append(f"{old.name}: is in the baseline, but was not measured now")
            elif other := other_row(rows[old.name], old):
                lines.append(f"{old.name}: is not what the baseline has under this name: {other}")
                strange.add(old.name)
        return lines, strange


def read_gate(fail_if: Sequence[str], baseline: Path | None) -> Gate | None:
    """Return the gate of `--fail-if` and `--baseline`, None where there is neither.

    Raises:
        ConfigError: a condition or the baseline cannot be read, or one is there without the other.
    """
    conditions = tuple(map(parse_condition, fail_if))
    if baseline is None:
        if relative := next((condition for condition in conditions if condition.is_relative), None):
            raise ConfigError(f"--fail-if {relative.text!r}: compares with a baseline; add --baseline OLD.json")
        return Gate(conditions) if conditions else None
    if not conditions:
        raise ConfigError(f"--baseline {baseline}: nothing is compared with it; add --fail-if, `miou < -0.5`")
    return Gate(conditions, read_result(baseline), baseline)


def _metrics(result: BenchmarkResult) -> dict[str, RowMetric]:
    return row_metrics(result.labels.names, result.options.get("batches", ()))


def _unknown(condition: Condition, metrics: dict[str, RowMetric]) -> str:
    """Say which metrics may have been meant: those that end in what was written, or are spelled nearly so."""
    written = condition.metric
    meant = [name for name in metrics if name.endswith(f".{written}")] or difflib.get_close_matches(written, metrics)
    hint = f"did you mean {' or '.join(map(repr, meant[:_MOST_HINTS]))}?" if meant else ""
    hint = hint or "`segkc-deploy benchmark --list-metrics` lists them"
    return f"--fail-if {condition.text!r}: no metric {written!r}; {hint}"
