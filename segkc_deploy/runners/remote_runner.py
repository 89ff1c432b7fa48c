"""Run a network on a server that speaks the Open Inference Protocol over HTTP: Triton, or `segkc-deploy serve`."""

import http.client
import json
import time
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from segkc_deploy.errors import ArtifactError, ConfigError, DataError
from segkc_deploy.inference_protocol import (
    HEADER_LENGTH,
    InferRequest,
    RequestedOutput,
    decode_response,
    encode,
    tensor_of,
)
from segkc_deploy.runners.base import Runner

#: Seconds that a busy server is asked again, and that one answer may take.
_PATIENCE = 60.0
_TIMEOUT = 120.0

_BUSY = frozenset({429, 503})
_TOO_LARGE = 413

#: A server that refuses a body for its size closes the connection while the rest of it is on the way.
_CUT = (BrokenPipeError, ConnectionResetError)


class RemoteRunner(Runner):
    """Sends images to one model of a server, over one connection.

    Args:
        url: the model, such as `http://localhost:8000/v2/models/junior-fp32`.
        api_key: sent as `X-API-Key`.
        outputs: which outputs are asked for; all of them if None.

    Raises:
        ConfigError: it is no such URL.
    """

    def __init__(self, url: str, api_key: str | None = None, outputs: tuple[str, ...] | None = None) -> None:
        try:
            parts = urlsplit(url.rstrip("/"))
            # A name too long or empty between two dots is noticed here alone, before it is looked up.
            host = (parts.hostname or "").encode("idna").decode()
        except ValueError:
            raise ConfigError(f"{url}: its host is no name or address; use http://HOST:PORT/v2/models/NAME") from None
        if parts.scheme not in ("http", "https") or not host or "/v2/models/" not in parts.path:
            raise ConfigError(f"{url}: names no model; use http://HOST:PORT/v2/models/NAME")
        self._url = url
        # A path may be given as it is shown, or quoted already.
        self._path = quote(parts.path, safe="/%:@!$&'()*+,;=~", errors="surrogateescape")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        try:
            self._connection = kind(host, parts.port, timeout=_TIMEOUT)
        except http.client.InvalidURL as error:
            raise ConfigError(f"{url}: {error}; use http://HOST:PORT/v2/models/NAME") from None
        except ValueError:
            raise ConfigError(f"{url}: its port is no number from 0 to 65535") from None
        self._headers = {} if api_key is None else {"X-API-Key": api_key}
        self.outputs = outputs
        self.description = url

    def activate(self) -> None:
        """Ask whether the model is ready.

        Raises:
            ArtifactError: it is not.
            ConfigError: the server cannot be reached.
        """
        self._ask("GET", f"{self._path}/ready")

    def config(self) -> dict[str, Any]:
        """Return the model's configuration.

        Raises:
            ArtifactError: the server has no such model, or does not tell its configuration.
            ConfigError: the server cannot be reached.
        """
        body, _ = self._ask("GET", f"{self._path}/config")
        try:
            config = json.loads(body)
        except ValueError:
            config = None
        if not isinstance(config, dict):
            raise ArtifactError(f"{self._url}: its configuration is no JSON object; is this an inference server?")
        return config

    def infer(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Run on `images`; see `Runner.infer`.

        Raises:
            ArtifactError: the server refuses, or answers something else.
            ConfigError: the server cannot be reached.
        """
        tensor, content = tensor_of("images", images, binary=True)
        request = InferRequest(inputs=[tensor], parameters={"binary_data_output": True})
        if self.outputs is not None:
            request.parameters = {}
            request.outputs = [RequestedOutput(name=name, parameters={"binary_data": True}) for name in self.outputs]
        body, headers = self._ask("POST", f"{self._path}/infer", *encode(request, [content]))
        try:
            outputs = decode_response(body, headers.get(HEADER_LENGTH))
        except DataError as error:
            raise ArtifactError(f"{self._url}: {error}") from None
        for name in self.outputs or ():
            if len(outputs.get(name, ())) != len(images):
                raise ArtifactError(f"{self._url}: answered without {name} for each of {len(images)} images")
        return outputs

    def deactivate(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[bytes, http.client.HTTPMessage]:
        """Return the body and the headers of an answer; a busy server is asked again for a while."""
        ends = time.monotonic() + _PATIENCE
        while True:
            answer, content = self._exchange(method, path, body, {**self._headers, **(headers or {})})
            if answer.status == 200:
                return content, answer.headers
            if answer.status not in _BUSY or time.monotonic() > ends:
                reason = _reason(answer, content)
                if answer.status == _TOO_LARGE:
                    reason += "; use a smaller batch, or raise the server's limit"
                raise ArtifactError(f"{self._url}: the server answered {answer.status}: {reason}")
            delay = float(_whole(answer.headers.get("Retry-After", "")) or 1)
            time.sleep(min(delay, max(ends - time.monotonic(), 0.0)))

    def _exchange(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        for attempt in range(2):
            reused = self._connection.sock is not None
            sent = True
            try:
                sent = self._send(method, path, body, headers)
                answer = self._connection.getresponse()
                content = answer.read()
                if not sent:
                    self._connection.close()
                return answer, content
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                # A server closes a connection that was idle; asking twice for the same masks does no harm.
                if not reused or attempt:
                    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                    if not sent:
                        raise ConfigError(
                            f"{self._url}: closed the connection on a request of {len(body) / 2**20:.1f} MiB: {reason};"
                            " use a smaller batch, or serve with a larger --max-body-mib"
                        ) from None
                    raise ConfigError(f"{self._url}: cannot be reached: {reason}; is the server running?") from None
        raise AssertionError("unreachable")

    def _send(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> bool:
        """Send a request; return False where the server stopped to read it, and may have answered already."""
        try:
            self._connection.request(method, path, body, headers)
        except _CUT:
            if self._connection.sock is None:
                raise
            return False
        return True


def _whole(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 4 else None


def _reason(answer: http.client.HTTPResponse, content: bytes) -> str:
    """Return what a refusal says: Triton's `error`, or this package's `detail`."""
    try:
        told = json.loads(content)
    except ValueError:
        told = None
    reason = (told.get("error") or told.get("detail")) if isinstance(told, dict) else None
    return " ".join(str(reason or answer.reason).split())
