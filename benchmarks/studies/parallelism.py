"""Several trainings at the same time: which process takes which trial and which core, across invocations too."""

import fcntl
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from segkc_deploy.benchmarks.studies.benchmark_rows import current_commit
from segkc_deploy.benchmarks.studies.study import Trial
from segkc_deploy.benchmarks.studies.trials import Session, State, StudyDirectory, TrialFiles, last_line, train_trial
from segkc_deploy.errors import ConfigError, SegKCError
from segkc_deploy.machine import available_cores, describe_machine
from segkc_deploy.progress import console

_MOST_LOADERS = 16


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    `kind` is `finished`, `skipped` (it was finished before), `busy` (another process trains it), `stopped` or `failed`.
    """

    trial: Trial
    kind: str
    remark: str = ""


@dataclass(frozen=True)
class Parallelism:
    """How many trainings run at once, whether each is pinned to one core, on which device, and for how long."""

    workers: int = 1
    pin: bool = False
    device: str = "auto"
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.workers < 1 or (self.pin and self.workers > available_cores()):
            raise ConfigError(
                f"--workers {self.workers}: choose 1 to {available_cores()}, the cores that --pin can give"
            )


@contextmanager
def claim(path: Path) -> Iterator[int | None]:
    """Yield the descriptor of a lock on `path`, or None where another process holds it. Its death frees the lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def claim_when_free(path: Path) -> Iterator[None]:
    """Wait for the lock on `path` and hold it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def train_trials(
    directory: StudyDirectory, trials: Sequence[Trial], parallelism: Parallelism, finished: Callable[[Trial], None]
) -> list[Outcome]:
    """Train what is not finished, in order, and return what became of each trial.

    Args:
        directory: the study's folder.
        trials: the most important ones first.
        parallelism: how many at once, and for how long; trainings that are stopped then can be resumed later.
        finished: called, in this thread, as soon as a trial is finished or was already.
    """
    workers = _Workers(directory, parallelism)
    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(parallelism.workers) as pool:
        open_futures = {pool.submit(workers.work, trial) for trial in trials}
        try:
            while open_futures:
                done, open_futures = wait(open_futures, return_when=FIRST_COMPLETED)
                outcomes += [_report(future, finished) for future in done]
        except KeyboardInterrupt:
            workers.interrupted.set()
            outcomes += [_report(future, finished) for future in wait(open_futures).done]
    return outcomes


def _report(future: Future[Outcome], finished: Callable[[Trial], None]) -> Outcome:
    outcome = future.result()
    if outcome.kind in ("finished", "skipped"):
        finished(outcome.trial)
    return outcome


class _StopError(Exception):
    """The time was up, or the user interrupted, while a trial waited for a core."""


class _Workers:
    """The threads, each of which runs one training at a time."""

    def __init__(self, directory: StudyDirectory, parallelism: Parallelism) -> None:
        self.directory, self.parallelism = directory, parallelism
        self.interrupted = threading.Event()
        self.deadline = None if parallelism.seconds is None else time.monotonic() + parallelism.seconds
        self.cores = sorted(os.sched_getaffinity(0)) if parallelism.pin else []
        self.threads = 1 if parallelism.pin else max(available_cores() // parallelism.workers, 1)
        self.loaders = min(self.threads - 1, _MOST_LOADERS)
        self.machine = describe_machine()

    def work(self, trial: Trial) -> Outcome:
        """Train one trial."""
        if self.should_stop():
            return Outcome(trial, "stopped", "not started")
        with claim(self.directory.files(trial).lock) as lock:
            if lock is None:
                return self._say(Outcome(trial, "busy", "another process trains it"))
            try:
                state = self.directory.state(trial)
                if state == "finished":
                    return Outcome(trial, "skipped")
                with self._core() if self.parallelism.pin else nullcontext():
                    return self._say(self._train(trial, state, lock))
            except _StopError:
                return Outcome(trial, "stopped", "not started")
            except (SegKCError, OSError) as error:
                return self._say(Outcome(trial, "failed", str(error)))

    def should_stop(self) -> bool:
        """Whether the time is up or the user interrupted."""
        return self.interrupted.is_set() or (self.deadline is not None and time.monotonic() > self.deadline)

    def _train(self, trial: Trial, state: State, lock: int) -> Outcome:
        files = self.directory.files(trial)
        if (before := self.directory.command_before(trial, self.parallelism.device)) is not None:
            self._write_pseudo_labels(before, files)
        data = self.directory.data_facts(trial)
        session = Session(_code_version(), self.machine, self.threads, self.parallelism.pin, data)
        command = self.directory.command(trial, state, self.loaders, self.parallelism.device)
        self._say(Outcome(trial, "resumes" if state == "started" else "starts"))
        code = train_trial(command, files, session, lock, self.should_stop)
        if code is None:
            return Outcome(trial, "stopped", "run the same command again to resume")
        if code == 0 and self.directory.state(trial) == "finished":
            return Outcome(trial, "finished", last_line(files.run.log))
        what = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        return Outcome(trial, "failed", f"{what}: {last_line(files.log)} ({files.log})")

    def _write_pseudo_labels(self, command: list[str], files: TrialFiles) -> None:
        files.log.parent.mkdir(parents=True, exist_ok=True)
        with files.log.open("ab") as log:
            environment = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
            code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment).returncode
        if code != 0:
            raise ConfigError(f"pseudo-label ended with exit code {code}: {last_line(files.log)} ({files.log})")

    @contextmanager
    def _core(self) -> Iterator[None]:
        """Pin this thread, and the processes that it starts, to a core that no other training has."""
        everything = os.sched_getaffinity(0)
        while True:
            for core in self.cores:
                with claim(self.directory.out / "locks" / f"core-{core}.lock") as lock:
                    if lock is not None:
                        os.sched_setaffinity(0, {core})
                        try:
                            yield
                        finally:
                            os.sched_setaffinity(0, everything)
                        return
            if self.should_stop():
                raise _StopError
            time.sleep(0.5)  # another invocation holds all of them

    def _say(self, outcome: Outcome) -> Outcome:
        remark = f": {outcome.remark}" if outcome.remark else ""
        text = f"{time.strftime('%H:%M:%S')} {outcome.trial.name} {outcome.kind}{remark}"
        console.print(text, soft_wrap=True, markup=False)
        return outcome


def _code_version() -> str:
    """Return the commit of the code that is about to train, with `+changes` where files differ from it."""
    commit, root = current_commit(), Path(__file__).resolve().parents[2]
    git = ["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no", "--", "training", "segkc_deploy"]
    try:
        changes = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return commit
    return f"{commit}+changes" if changes else commit
