"""Where a training reports its progress: the terminal, `train.log`, `metrics.jsonl` and TensorBoard."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from segkc_deploy import atomic
from segkc_deploy.progress import console
from segkc_deploy.training.files.run_directory import RunDirectory
from segkc_deploy.training.trackers.tensorboard_file import TensorBoardFile
from segkc_deploy.training.trackers.tracker import Tracker, TrackerError


class Log(Protocol):
    """What a training reports."""

    def line(self, text: str, show: bool = True) -> None:
        """Write a remark to the log and, with `show`, to the terminal."""

    def training(self, step: int, values: dict[str, float]) -> None:
        """Record the values of the steps since the last record, at `step` steps done."""

    def validation(self, step: int, miou: dict[str, float]) -> None:
        """Record the mIoU (percent) of each network at `step` steps done."""

    def pictures(self, step: int, panels: Iterable[np.ndarray]) -> None:
        """Show panels, uint8 (H, W, 3)."""


class NoLog:
    """The log of the ranks other than 0, which do as rank 0 does: it writes nothing."""

    def line(self, text: str, show: bool = True) -> None: ...

    def training(self, step: int, values: dict[str, float]) -> None: ...

    def validation(self, step: int, miou: dict[str, float]) -> None: ...

    def pictures(self, step: int, panels: Iterable[np.ndarray]) -> None: ...


class RunLog:
    """A context manager for the length of a training.

    Args:
        run: where the files go.
        steps: optimizer steps of the whole run.
        first_step: steps already done; what the files hold beyond them is from the interrupted run and is dropped.
        validated: whether the checkpoint of `first_step` holds the scores of its validation. Where it does not, the run
            validates again, and what it recorded the first time is dropped.
        trackers: what else receives the values. One that fails is named in the log and dropped: no service that is down
            ends a training.
    """

    def __init__(
        self,
        run: RunDirectory,
        steps: int,
        first_step: int,
        trackers: Sequence[Tracker] = (),
        validated: bool = True,
    ) -> None:
        self.run = run
        self.steps = steps
        self.first_step = first_step
        _drop_records_after(run.metrics, first_step, validated)
        self.tensorboard = TensorBoardFile(run.tensorboard, first_step)
        self.trackers = list(trackers)
        self.progress = Progress(BarColumn(), MofNCompleteColumn(), TextColumn("steps, left"), TimeRemainingColumn())
        self.task = self.progress.add_task("", total=steps, completed=first_step)
        self.values = Text()
        self.display = Live(Group(self.progress, self.values), console=console, refresh_per_second=4)

    def __enter__(self) -> Self:
        if console.is_terminal:
            self.display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.display.stop()
        # On a full disk closing the file fails too, which must not hide the first file that could not be written.
        with suppress(OSError) if error else nullcontext():
            self.tensorboard.close()
            self._tell_trackers(lambda tracker: tracker.close(failed=error is not None))

    def line(self, text: str, show: bool = True) -> None:
        """Write a remark to `train.log` and, with `show`, to the terminal."""
        if show:
            console.print(text, soft_wrap=True, markup=False)
        atomic.append_line(self.run.log, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")

    def training(self, step: int, values: dict[str, float]) -> None:
        """Record the values of the steps since the last record, at `step` steps done."""
        self._record(step, "train", values)
        shown = "  ".join(f"{name} {_short(value)}" for name, value in values.items())
        if console.is_terminal:
            self.progress.update(self.task, completed=step)
            self.values.plain = shown
        else:
            self.line(f"step {step}/{self.steps}  {shown}")

    def validation(self, step: int, miou: dict[str, float]) -> None:
        """Record the mIoU (percent) of each network at `step` steps done."""
        self._record(step, "validation", {f"miou_{name}": value for name, value in miou.items()})
        scores = "  ".join(f"{name} {value:.2f}" for name, value in miou.items())
        self.line(f"step {step}/{self.steps}  validation mIoU: {scores}")

    def pictures(self, step: int, panels: Iterable[np.ndarray]) -> None:
        """Show panels, uint8 (H, W, 3), in TensorBoard."""
        for index, panel in enumerate(panels):
            name = f"validation/{index}"
            self.tensorboard.picture(step, name, panel)
            self._tell_trackers(partial(_send_picture, step=step, name=name, panel=panel))

    def _record(self, step: int, kind: str, values: dict[str, float]) -> None:
        record: dict[str, Any] = {"step": step, "kind": kind, **values}
        atomic.append_line(self.run.metrics, json.dumps(record))
        named = {f"{kind}/{name}": value for name, value in values.items()}
        self.tensorboard.scalars(step, named)
        self._tell_trackers(lambda tracker: tracker.scalars(step, named))

    def _tell_trackers(self, tell: Callable[[Tracker], None]) -> None:
        for tracker in list(self.trackers):
            try:
                tell(tracker)
            except TrackerError as error:
                self.trackers.remove(tracker)
                self.line(f"warning: {error}; training continues without it")


def _send_picture(tracker: Tracker, step: int, name: str, panel: np.ndarray) -> None:
    tracker.picture(step, name, panel)


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _drop_records_after(path: Path, step: int, validated: bool) -> None:
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            record = json.loads(line)
            step_of, kind = record["step"], record["kind"]
        except (ValueError, KeyError):
            continue  # the line at which the interrupted run was cut off
        if step_of < step or (step_of == step and (validated or kind != "validation")):
            kept.append(line)
    atomic.write_text(path, "".join(kept))
