"""What the commands that add rows to a study share: which study, of which training, and how they end."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from segkc_deploy.benchmarks.studies.study_rows import StudyRow, append_rows
from segkc_deploy.errors import SegKCError


def study_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that say which study, and what the rows' networks were trained on."""
    parser = argparse.ArgumentParser(prog=f"python -m segkc_deploy.benchmarks.{module}", description=description)
    parser.add_argument("--study", required=True, help="name of the study")
    parser.add_argument("--labels", required=True, help="share of labeled images, 1/8 or full")
    parser.add_argument("--seed", required=True, type=int, help="seed of the training")
    parser.add_argument("--out", required=True, type=Path, help="the study's JSON file, made when missing")
    return parser


def add_rows(out: Path, make: Callable[[], list[StudyRow]]) -> int:
    """Add what `make` returns to the study at `out`, and say so; return the exit code."""
    try:
        rows = make()
        append_rows(out, rows)
    except SegKCError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{out}: {len(rows)} rows added")
    return 0
