"""How long the parts of a request took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stages:
    """Seconds by the name of a part, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Note how long the block takes as the part `name`."""
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started

    def server_timing(self) -> str:
        """Return the value of a `Server-Timing` header, which browsers' developer tools show: milliseconds each."""
        return ", ".join(f"{name};dur={1000 * seconds:.3f}" for name, seconds in self.seconds.items())
