"""Who is let in: a bound on the requests at once, of all clients and of each."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import HTTPException

from segkc_deploy.serve.limits import Limits

#: Seconds after which a refused client may try again.
RETRY_AFTER = {"Retry-After": "1"}


class Admission:
    """Counts the requests that are being worked on. For one event loop; not thread-safe."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_client: Counter[str] = Counter()

    @property
    def requests(self) -> int:
        """How many requests are being worked on."""
        return self._by_client.total()

    @contextmanager
    def admit(self, client: str) -> Iterator[None]:
        """Count a request of `client` while the block runs.

        Raises:
            HTTPException: 429 where the client has too many requests already, 503 where all clients together have.
        """
        if self._by_client[client] >= self._limits.client_requests:
            detail = f"this client has {self._limits.client_requests} requests at once already; wait for an answer"
            raise HTTPException(429, detail, RETRY_AFTER)
        if self.requests >= self._limits.requests:
            raise HTTPException(503, f"{self._limits.requests} requests are in work; try again later", RETRY_AFTER)
        self._by_client[client] += 1
        try:
            yield
        finally:
            self._by_client[client] -= 1
            if not self._by_client[client]:
                del self._by_client[client]
