"""Read or write files in the background while others are worked on."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(read: Callable[[Item], Result], items: Iterable[Item], ahead: int = 4) -> Iterator[Result]:
    """Yield `read(item)` for each item, in order, with up to `ahead` further items being read by two threads.

    `items` are taken in the calling thread, so a generator that computes what is to be written works while two threads
    write what it gave before. An exception that `read` raises is raised when its item's turn comes.
    """
    with ThreadPoolExecutor(max_workers=2) as pool:
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
