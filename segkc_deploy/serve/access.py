"""The API key: who may use the service, where it is not open to all who reach it."""

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import HTTPException, Security
from fastapi.security import APIKeyHeader

_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, description="The key that `--api-key-file` gives.")


def key_check(key: str | None) -> Callable[[str | None], Awaitable[None]]:
    """Return a dependency that refuses a request without the key with 401; any request passes where `key` is None.

    The comparison takes the same time for every wrong key: digests of one length are compared, in constant time.
    """
    # Asynchronous though it awaits nothing: FastAPI runs other functions in a thread, which takes 0.4 ms a request.
    expected = None if key is None else _digest(key)

    async def check(given: Annotated[str | None, Security(_HEADER)]) -> None:
        if expected is not None and not hmac.compare_digest(expected, _digest(given or "")):
            raise HTTPException(401, "a key is needed in the header X-API-Key", {"WWW-Authenticate": "X-API-Key"})

    return check


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
