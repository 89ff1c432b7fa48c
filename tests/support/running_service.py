"""The service on a real socket, in a thread of the test's process."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkc_deploy import load
from segkc_deploy.serve.app import create_app
from segkc_deploy.serve.limits import Limits
from segkc_deploy.serve.served_model import ServedModel, served_models
from segkc_deploy.serve.server import address_of, host_names, listen, server_for
from segkc_deploy.serve.service import Service


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class RunningService:
    """A service that runs."""

    port: int
    models: list[ServedModel]
    service: Service

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """Send one request; underscores in headers' names stand for hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def predict(self, image: bytes, query: str = "", **headers: str) -> Answer:
        return self.request("POST", f"/predict{query}", image, **headers)


@contextmanager
def running_service(
    artifacts: list[Path],
    api_key: str | None = None,
    batch: int = 8,
    batch_delay_s: float = 0.0,
    browser_runtime: Path | None = None,
    **limits: Any,
) -> Iterator[RunningService]:
    """Serve `artifacts` on a free port while the block runs."""
    bounds = Limits(**limits)
    with ExitStack() as stack:
        predictors = [(path, stack.enter_context(load(path, "cpu", threads=1))) for path in artifacts]
        models = served_models(predictors, batch, bounds, batch_delay_s)
        service = Service(models, bounds)
        listening = stack.enter_context(listen("127.0.0.1", 0))
        server = server_for(create_app(service, api_key, host_names("127.0.0.1"), browser_runtime), bounds)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield RunningService(int(address_of(listening).rpartition(":")[2]), models, service)
        finally:
            server.should_exit = True
            thread.join()
