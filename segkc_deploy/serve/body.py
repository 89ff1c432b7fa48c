"""Read a request's body, within its limits."""

import asyncio

from fastapi import HTTPException, Request

from segkc_deploy.serve.limits import Limits

#: The rest of a refused body is not read: the connection ends with the answer.
_CLOSE = {"Connection": "close"}


async def read_body(request: Request, limits: Limits) -> bytes:
    """Return the body.

    Raises:
        HTTPException: 413 where it is larger than the limit, by its declared length before any of it is read; 408 where
            it does not arrive in time; 415 where it is compressed for the way; 400 where there is none, or a form.
        ClientDisconnect: the client is gone.
    """
    coding = request.headers.get("content-encoding", "identity")
    if coding.strip().lower() != "identity":
        detail = f"the body has the Content-Encoding {coding[:40]!r}; send it as it is, without one"
        raise HTTPException(415, detail, {"Accept-Encoding": "identity"})
    too_large = HTTPException(413, f"the body is larger than {limits.body_mib:g} MiB", _CLOSE)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.body_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.body_bytes:
                    raise too_large
    except TimeoutError:
        raise HTTPException(408, f"the body did not arrive within {limits.body_seconds:g} s", _CLOSE) from None
    is_form = request.headers.get("content-type", "").strip().lower().startswith("multipart/")
    if is_form or not body:
        found = "a form, in which the file is one part of the body" if is_form else "no image"
        raise HTTPException(400, f"{found}: send the file as the body, as `curl --data-binary @photo.jpg` does")
    return bytes(body)
