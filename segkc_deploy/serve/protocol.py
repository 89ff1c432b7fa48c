"""HTTP connections with time limits, both on reading a request's head and on writing to a client."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Seconds for the head of a request to arrive, and for a client to take what was sent to it.
HEAD_SECONDS = 10.0
READ_SECONDS = 30.0


class ImpatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which by itself bounds only the pause between two requests."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Expect a request's head soon."""
        super().connection_made(transport)
        self._expect(HEAD_SECONDS)

    def on_message_begin(self) -> None:
        """Expect the rest of the head soon: its first byte has come, perhaps on a connection used before."""
        super().on_message_begin()
        self._expect(HEAD_SECONDS)

    def on_headers_complete(self) -> None:
        """Leave the time of the body to the application."""
        self._cancel()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """Expect the client to read: what was sent to it piles up."""
        super().pause_writing()
        self._expect(READ_SECONDS)

    def resume_writing(self) -> None:
        """The client reads."""
        self._cancel()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more is expected."""
        self._cancel()
        super().connection_lost(exc)

    def _expect(self, seconds: float) -> None:
        self._cancel()
        self._timer = self.loop.call_later(seconds, self.transport.abort)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
