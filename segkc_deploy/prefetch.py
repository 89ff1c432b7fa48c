"""Read or write files in the background while others are worked on."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(
    read: Callable[[Item], Result], items: Iterable[Item], ahead: int = 4, threads: int = 2
) -> Iterator[Result]:
    """Yield `read(item)` for each item, in order, with up to `ahead` further items being read by `threads` threads.

    `items` are taken in the calling thread, so a generator that computes what is to be written works while other
    threads write what it gave before; one thread writes in order. An exception that `read` raises is raised when its
    item's turn comes.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def run_streams(streams: int, run: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield `run(item)` for each item, in order, with `streams` of them running at once.

    One more waits to run, so that no stream is idle while the oldest result is taken. A single stream runs in the
    calling thread and none ahead, so that a live frame never waits for a later one.
    """
    return map(run, items) if streams == 1 else prefetch(run, items, ahead=streams, threads=streams)
