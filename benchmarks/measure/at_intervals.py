"""Something that a thread does again and again while something else is under way."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def at_intervals(do: Callable[[], object], pause_s: Callable[[], float]) -> Iterator[None]:
    """Wait `pause_s()` seconds, call `do`, and so on until the block ends; a call that is under way is waited for."""
    ended = threading.Event()

    def keep_doing() -> None:
        while not ended.wait(pause_s()):
            do()

    thread = threading.Thread(target=keep_doing, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
