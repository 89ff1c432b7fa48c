"""Markdown tables of studies: `python -m segkc_deploy.benchmarks.studies.tables FILE.json...`."""

import statistics
import sys
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

from segkc_deploy.benchmarks.report.markdown_table import markdown
from segkc_deploy.benchmarks.report.seeds import mean_and_spread
from segkc_deploy.benchmarks.studies.study_rows import StudyRow, read_rows
from segkc_deploy.error_messages import one_line_errors


def study_table(rows: Sequence[StudyRow]) -> str:
    """Return the Markdown table of a study: one line per row, role and condition, over the seeds.

    mIoU is the mean ± sample standard deviation over the seeds (no spread for one seed); latency figures are
    means over the seeds. The columns of latency, and of an artifact's agreement with its network, are there when a row
    has them.
    """
    timed = any(row.p50_ms is not None for row in rows)
    proven = any(row.agreement is not None for row in rows)
    header = ["row", "role", "labels", "seeds", "steps", "size", "params (M)", "mIoU (%)"]
    if timed:
        header += ["engine", "precision", "batch", "p50 (ms)", "p90 (ms)", "p99 (ms)", "images/s"]
    if proven:
        header += ["agreement (%)"] if timed else ["precision", "agreement (%)", "verified"]
    order: dict[tuple[object, ...], int] = {}
    for row in rows:
        order.setdefault(_condition(row), len(order))
    ordered = sorted(rows, key=lambda row: order[_condition(row)])
    lines = [_line(list(group), timed, proven) for _, group in groupby(ordered, key=_condition)]
    return markdown(header, lines, right_from=4)


def _condition(row: StudyRow) -> tuple[object, ...]:
    """What rows that differ by seed alone have in common."""
    return (row.study, row.row, row.role, row.labels, row.steps, row.size, row.engine, row.precision, row.batch)


def _line(group: list[StudyRow], timed: bool, proven: bool) -> list[str]:
    first = group[0]
    seeds = ", ".join(str(seed) for seed in sorted({row.seed for row in group}))
    size = str(first.size) if isinstance(first.size, int) else f"{first.size[0]}×{first.size[1]}"
    line = [first.row, first.role, first.labels, seeds, str(first.steps), size]
    line += [f"{statistics.fmean(row.params_m for row in group):.2f}", mean_and_spread([row.miou for row in group])]
    if timed:
        line += [first.engine or "–", first.precision or "–", str(first.batch or "–")]
        line += [_mean(group, name) for name in ("p50_ms", "p90_ms", "p99_ms", "images_per_s")]
    if proven:
        shares = [row.agreement for row in group if row.agreement is not None]
        share = f"{100 * statistics.fmean(shares):.3f}" if shares else "–"
        line += (
            [share] if timed else [first.precision or "–", share, str((first.model_extra or {}).get("verified", "–"))]
        )
    return line


def _mean(group: list[StudyRow], name: str) -> str:
    values = [value for row in group if (value := getattr(row, name)) is not None]
    return f"{statistics.fmean(values):.2f}" if values else "–"


def print_tables(paths: Sequence[str], module: str, text_of: Callable[[Path], str]) -> int:
    """Print what `text_of` makes of each file, as the command `python -m MODULE`, and return the exit code."""
    if not paths:
        print(f"usage: python -m {module} FILE.json...", file=sys.stderr)
        return 2
    for path in paths:
        print(text_of(Path(path)))
    return 0


def main(paths: Sequence[str]) -> int:
    """Print the table of each file and return the exit code."""

    def text_of(path: Path) -> str:
        return f"### {path.stem}\n\n{study_table(read_rows(path))}"

    return print_tables(paths, "segkc_deploy.benchmarks.studies.tables", text_of)


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main(sys.argv[1:]))
