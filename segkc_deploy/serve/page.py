"""The page on which the service is tried: one HTML file that asks nobody else for anything."""

import base64
import hashlib
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).with_name("page")


@cache
def page_html() -> str:
    """Return the page with its style and script inside."""
    style, script = _text("page.css"), _text("page.js")
    return _text("page.html").replace("/* style */", style).replace("/* script */", script)


@cache
def page_headers() -> dict[str, str]:
    """Return headers that let the page run its own script and style, reach its own service, and nothing else."""
    policy = {
        "default-src": "'none'",
        "script-src": _hash(_text("page.js")),
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
