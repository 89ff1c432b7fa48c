"""Add the rows of a benchmark to a study.

`python -m segkc_deploy.benchmarks.studies.benchmark_rows report/benchmark.json --study NAME ...`
"""

import os
import subprocess
import sys
from pathlib import Path

from segkc_deploy.benchmarks.schema import BenchmarkResult
from segkc_deploy.benchmarks.store.result_file import read_result
from segkc_deploy.benchmarks.studies.row_command import add_rows, study_parser
from segkc_deploy.benchmarks.studies.study_rows import study_rows
from segkc_deploy.error_messages import one_line_errors
from segkc_deploy.errors import ConfigError


def main(arguments: list[str] | None = None) -> int:
    """Read the command line, append the rows, and return the exit code."""
    parser = study_parser("studies.benchmark_rows", __doc__)
    parser.add_argument("benchmark", type=Path, help="a benchmark.json")
    parser.add_argument("--commit", help="commit that trained the networks; by default the one that runs now")
    options = parser.parse_args(arguments)
    return add_rows(
        options.out,
        lambda: study_rows(
            _read(options.benchmark),
            study=options.study,
            labels=options.labels,
            seed=options.seed,
            commit=options.commit or current_commit(),
        ),
    )


def _read(path: Path) -> BenchmarkResult:
    result = read_result(path)
    if result.sources:
        raise ConfigError(f"{path}: is a comparison of several machines; add the result of each by itself")
    return result


def current_commit() -> str:
    """The commit of the code that runs; of a copy without its history what SEGKC_COMMIT says, or else `unknown`."""
    git = ["git", "-C", str(Path(__file__).resolve().parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("SEGKC_COMMIT", "unknown")


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
