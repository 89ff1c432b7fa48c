"""Progress of long work: a bar on a terminal, a plain line every few seconds elsewhere."""

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

T = TypeVar("T")

#: Progress and remarks go to stderr; stdout holds only a command's result.
console = Console(stderr=True, highlight=False)

_SECONDS_BETWEEN_LINES = 10.0


def track(items: Iterable[T], description: str, total: int | None = None, unit: str = "") -> Iterator[T]:
    """Iterate over `items` and show the progress.

    Args:
        items: the items to process.
        description: what the work is, in a few words.
        total: how many items there are, when `items` has no length.
        unit: what the items are, in the plural, where their rate is of interest: `images` shows `5.2 images/s`.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        rate = [_RateColumn(unit)] if unit else []
        with Progress(*columns, *rate, console=console, transient=True) as progress:
            yield from progress.track(items, total=total, description=description)
        return
    started = last_line = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last_line > _SECONDS_BETWEEN_LINES:
            last_line = time.monotonic()
            speed = f", {done / (last_line - started):.1f} {unit}/s" if unit else ""
            console.print(f"{description}: {done}/{total or '?'}{speed}", soft_wrap=True)


class _RateColumn(ProgressColumn):
    """How many items are done in a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} {self._unit}/s" if task.speed else "")


@contextmanager
def progress(description: str) -> Iterator[Callable[[float, str], None]]:
    """Yield a function that reports the progress of work that a library does in a single call.

    The function takes the fraction done (0-1) and a description of the current step. It may be called from any thread.
    """
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(description, total=1.0)
            yield lambda share, what: progress.update(
                task, completed=share, description=f"{description}: {escape(what)}"
            )
        return
    last_line = time.monotonic()

    def tell(share: float, what: str) -> None:
        nonlocal last_line
        if time.monotonic() - last_line > _SECONDS_BETWEEN_LINES:
            last_line = time.monotonic()
            console.print(f"{description}: {share:.0%}, {what}", soft_wrap=True, markup=False)

    yield tell
