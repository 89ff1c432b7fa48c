"""Count the answers to predictions by their status."""

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segkc_deploy.serve.metrics import Metrics

#: What nginx notes for a client that went away; nobody receives it, but it is counted.
CLIENT_CLOSED_REQUEST = 499

#: The paths that predict.
_PREDICTING = re.compile(r"/predict|/v2/models/[^/]+(/versions/[^/]+)?/infer")


class CountResponses:
    """ASGI middleware that counts what requests for a prediction get, whoever refuses the request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on."""
        if scope["type"] != "http" or not _PREDICTING.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests.labels(str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, counting)
