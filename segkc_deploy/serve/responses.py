"""Count the answers to predictions by their status."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segkc_deploy.serve.metrics import Metrics


class CountResponses:
    """ASGI middleware that counts what `/predict` answers, whoever refuses the request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on."""
        if scope["type"] != "http" or scope["path"] != "/predict":
            await self._app(scope, receive, send)
            return

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests.labels(str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, counting)
