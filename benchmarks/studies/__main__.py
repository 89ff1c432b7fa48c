"""Train a study and store its results: every row of a table with the same junior, steps, crops and seeds.

`python -m segkc_deploy.benchmarks.studies benchmarks/studies/camvid-methods.yaml --data-root CAMVID --out runs/methods
--results benchmarks/results/camvid-methods.json`

Finished trials are skipped and interrupted ones resume from their last checkpoint, so it can be stopped at any time and
run again. Two invocations with the same --out share the work. `python -m
segkc_deploy.benchmarks.studies.method_tables` prints the tables.
"""

import argparse
import shlex
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from segkc_deploy.benchmarks.studies.parallelism import Outcome, Parallelism, claim_when_free, train_trials
from segkc_deploy.benchmarks.studies.shared_settings import completed, difference, shared_settings
from segkc_deploy.benchmarks.studies.study import Trial, chosen_trials, load_study
from segkc_deploy.benchmarks.studies.study_rows import read_rows, replace_rows
from segkc_deploy.benchmarks.studies.trial_rows import RowMaker, row_order
from segkc_deploy.benchmarks.studies.trials import StudyDirectory
from segkc_deploy.error_messages import one_line_errors
from segkc_deploy.errors import ConfigError, SegKCError
from segkc_deploy.progress import console


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the chosen trials and return the exit code: 1 if one failed."""
    options = _parser().parse_args(arguments)
    study = load_study(options.study)
    chosen = {trial for only in options.only or [None] for trial in chosen_trials(study, only)}
    trials = [trial for trial in study.ordered_trials() if trial in chosen]
    directory = StudyDirectory(study, options.out, options.data_root, options.lists)
    results_file = _Results(directory, options)
    if options.collect:
        outcomes = [_collected(directory, trial, results_file) for trial in trials]
    else:
        _require_comparable(options.results, directory, trials[0])
        seconds = None if options.limit_minutes is None else 60 * options.limit_minutes
        parallelism = Parallelism(options.workers, options.pin, options.device, seconds)
        _stop_on_signals()
        outcomes = train_trials(directory, trials, parallelism, results_file.enter)
    return _summary(outcomes, results_file, options.results)


class _Results:
    """The file of results, to which several invocations may write."""

    def __init__(self, directory: StudyDirectory, options: argparse.Namespace) -> None:
        self.directory, self.path = directory, options.results
        self.failures: list[str] = []
        lists = " --lists LISTS" if options.lists else ""
        name = shlex.quote(options.study.name)
        self.maker = RowMaker(
            directory,
            f"python -m segkc_deploy.benchmarks.studies {name} --data-root DATA{lists} --out RUNS --results RESULTS",
            options.device,
        )

    def enter(self, trial: Trial) -> None:
        """Put a finished trial's rows into the file."""
        try:
            rows = self.maker.rows(trial)
            with claim_when_free(self.directory.out / "locks" / "results.lock"):
                replace_rows(self.path, rows, row_order(self.directory.study))
        except (SegKCError, OSError) as error:
            self.failures.append(trial.name)
            console.print(f"{trial.name}: no row: {error}", soft_wrap=True, markup=False)


def _require_comparable(results: Path, directory: StudyDirectory, trial: Trial) -> None:
    """Look before hours of training whether a table can have the new rows beside those that are there.

    Raises:
        ConfigError: the file has rows of this study that were trained with other settings.
    """
    if not results.is_file():
        return
    study = directory.study
    wanted = shared_settings(study, directory.recipe(trial))
    for row in read_rows(results):
        if row.study != study.name or row.settings is None:
            continue
        whose = f"{results}: row {row.row}, labels {row.labels}, seed {row.seed}"
        if found := difference(completed(row.settings, whose), wanted):
            raise ConfigError(
                f"{whose} was trained with other settings: {found[0]} was {found[1]}, and {study.path} says"
                f" {found[2]}; choose another --results"
            )


def _collected(directory: StudyDirectory, trial: Trial, results_file: _Results) -> Outcome:
    try:
        state = directory.state(trial)
    except SegKCError as error:
        console.print(f"{trial.name}: {error}", soft_wrap=True, markup=False)
        return Outcome(trial, "failed", str(error))
    if state != "finished":
        return Outcome(trial, "not finished")
    results_file.enter(trial)
    return Outcome(trial, "collected")


def _summary(outcomes: Sequence[Outcome], results_file: _Results, results: Path) -> int:
    counts = Counter(outcome.kind for outcome in outcomes)
    print(f"{results}: {', '.join(f'{count} {kind}' for kind, count in sorted(counts.items()))}")
    failed = [outcome for outcome in outcomes if outcome.kind == "failed"]
    for outcome in failed:
        print(f"failed: {outcome.trial.name}: {outcome.remark}")
    return 1 if failed or results_file.failures else 0


def _stop_on_signals() -> None:
    """Stop trainings cleanly on SIGTERM too. With a handler of ours, a child in the background also gets SIGINT."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, stop)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m segkc_deploy.benchmarks.studies", description=__doc__)
    parser.add_argument("study", type=Path, help="the study file (YAML)")
    parser.add_argument("--data-root", type=Path, required=True, help="the data set's folder")
    parser.add_argument("--lists", type=Path, help="folder of id lists, 1_8.txt for 1/8; default: the package's own")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, created when missing")
    parser.add_argument("--results", type=Path, required=True, help="the study's JSON file, created when missing")
    parser.add_argument(
        "--only",
        action="append",
        help="which trials: row=segkc,labels=1/8,seed=0; a key may be repeated, and so may the option, for more trials",
    )
    parser.add_argument("--workers", type=int, default=1, help="number of trainings that run at the same time")
    parser.add_argument("--pin", action="store_true", help="give each training one core and one thread")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the trainings run")
    parser.add_argument("--limit-minutes", type=float, help="stop after this time; run the command again to resume")
    parser.add_argument("--collect", action="store_true", help="train nothing; only collect the finished trials")
    return parser


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
