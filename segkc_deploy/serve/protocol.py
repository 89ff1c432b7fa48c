"""HTTP connections with time limits, both on reading a request's head and on writing to a client."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Seconds for the head of a request to arrive, and for a client to take what was sent to it.
HEAD_SECONDS = 10.0
READ_SECONDS = 30.0


class ImpatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which by itself bounds only the pause between two requests."""

    _head: asyncio.TimerHandle | None = None
    _writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Expect a request's head soon."""
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Expect a head soon after bytes that belong to no request in work.

        Such are the rest of a body that was answered before all of it came, and empty lines. They end uvicorn's timer
        for the pause between two requests, and without another one the connection would stay for good.
        """
        super().data_received(data)
        if self._head is None and self._idle and not self.transport.is_closing():
            self._expect_head()

    def on_message_begin(self) -> None:
        """Expect the rest of the head soon: its first byte has come, perhaps on a connection used before."""
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        """Leave the time of the body to the application."""
        self._cancel_head()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Expect the client to take the rest of an answer after which the connection ends."""
        super().on_response_complete()
        self._expect_end()

    def timeout_keep_alive_handler(self) -> None:
        """End a connection that has no further request."""
        super().timeout_keep_alive_handler()
        self._expect_end()

    def pause_writing(self) -> None:
        """Expect the client to read: what was sent to it piles up."""
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        """The client reads."""
        self._cancel_writing()
        super().resume_writing()
        self._expect_end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more is expected."""
        self._cancel_head()
        self._cancel_writing()
        super().connection_lost(exc)

    @property
    def _idle(self) -> bool:
        """Whether no request is in work."""
        return self.cycle is None or self.cycle.response_complete

    def _expect_head(self) -> None:
        self._cancel_head()
        self._head = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _head_is_late(self) -> None:
        if self.flow.read_paused:  # the head of a later request, of which nothing is read while another one is in work
            self._expect_head()
        else:
            self.transport.abort()

    def _expect_end(self) -> None:
        # A closing connection waits for what is left to write; below a limit asyncio does not call `pause_writing`.
        if self._writing is None and self.transport.is_closing() and self.transport.get_write_buffer_size():
            self._expect_reading()

    def _expect_reading(self) -> None:
        self._cancel_writing()
        self._writing = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def _cancel_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _cancel_writing(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
