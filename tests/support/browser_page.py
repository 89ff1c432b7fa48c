"""A real browser for tests of pages: what a page asks for and complains of fails its test."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

#: Pages that ask for a camera get Chromium's test picture, and nobody has to allow it.
_FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@contextmanager
def started_browser() -> Iterator[Any]:
    """Start a headless browser that is installed; skip the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium or google-chrome on the PATH")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *_FAKE_CAMERA])
        yield browser
        browser.close()


class OpenPage:
    """A folder's `index.html` in the browser; `wrong` is everything on its console and every address it asked for."""

    def __init__(self, browser: Any, folder: Path, width: int = 1200, height: int = 900, scheme: str = "light") -> None:
        self.wrong: list[str] = []
        self.page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.page.on("console", lambda message: self.wrong.append(f"console: {message.text}"))
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("request", self._requested)
        self.page.goto((folder / "index.html").as_uri())

    def _requested(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:")):
            self.wrong.append(request.url)
