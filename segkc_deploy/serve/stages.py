"""How long the parts of a request took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stages:
    """Seconds by the name of a part, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started: dict[str, float] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Note how long the block takes as the part `name`."""
        self._started[name] = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - self._started.pop(name)

    def milliseconds(self) -> dict[str, float]:
        """Return the milliseconds of each part, of one that is not at its end those until now."""
        now = time.perf_counter()
        running = {name: now - started for name, started in self._started.items()}
        return {name: round(1000 * seconds, 3) for name, seconds in (self.seconds | running).items()}

    def server_timing(self) -> str:
        """Return the value of a `Server-Timing` header, which browsers' developer tools show: milliseconds each."""
        return ", ".join(f"{name};dur={1000 * seconds:.3f}" for name, seconds in self.seconds.items())
