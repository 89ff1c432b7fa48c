"""The page on which the service is tried: one HTML file that asks nobody else for anything."""

import base64
import hashlib
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).with_name("page")
_SCRIPTS = ("local.js", "page.js", "camera.js")


@cache
def page_html() -> str:
    """Return the page with its style and script inside."""
    page = _text("page.html")
    for name in ("page.css", *_SCRIPTS):
        page = page.replace(f"/* {name} */", _text(name))
    return page


@cache
def page_headers(with_runtime: bool = False) -> dict[str, str]:
    """Return headers that let the page run its own script and style, reach its own service, and nothing else.

    `with_runtime` also allows the service's scripts and WebAssembly, which ONNX Runtime Web consists of.
    """
    scripts = " ".join(_hash(_text(name)) for name in _SCRIPTS)
    policy = {
        "default-src": "'none'",
        "script-src": f"{scripts} 'self' 'wasm-unsafe-eval'" if with_runtime else scripts,
        "style-src": _hash(_text("page.css")),
        "img-src": "blob: data:",
        "media-src": "blob:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


@cache
def _text(name: str) -> str:
    return (_FOLDER / name).read_text("utf-8").strip()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
