"""The service's page in a real browser."""

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from running_service import RunningService, running_service
from tiny_artifact import LABELS, make_artifact

pytestmark = pytest.mark.browser

SIZE = (60, 80)
RED, GREEN = LABELS.palette[1], LABELS.palette[2]


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red on the left half, green on the right one, but for a dark line of 2 of 80 columns."""
    image = np.zeros((*SIZE, 3), np.uint8)
    image[:, :40], image[:, 42:] = (250, 0, 0), (0, 250, 0)
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    cv2.imwrite(str(path), image[..., ::-1])
    return path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("artifacts")
    artifacts = [make_artifact(folder, "fine.onnx", size=SIZE), make_artifact(folder, "coarse.onnx", size=(6, 8))]
    with running_service(artifacts) as service:
        yield service


class ServedPage:
    """The page, open; leaving it fails on what its console said and on requests to anywhere else."""

    def __init__(self, browser: Any, service: RunningService, width: int = 1200, scheme: str = "light") -> None:
        self._url = service.url + "/"
        self.wrong: list[str] = []
        self.page = browser.new_page(viewport={"width": width, "height": 850}, color_scheme=scheme)
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("request", self._requested)

    def _said(self, message: Any) -> None:
        if "willReadFrequently" not in message.text:  # advice about what the tests read from canvases
            self.wrong.append(f"console: {message.text}")

    def _requested(self, request: Any) -> None:
        if not request.url.startswith((self._url, "blob:", "data:")):
            self.wrong.append(request.url)

    def __enter__(self) -> "ServedPage":
        self.page.goto(self._url)
        self.page.wait_for_selector("#about:not(:empty), #key:visible")
        return self

    def __exit__(self, *_: object) -> None:
        self.page.close()
        assert self.wrong == []

    def choose(self, picture: Path) -> None:
        self.page.set_input_files("#file", picture)
        self.page.wait_for_selector("#legend:visible")

    def wait_until(self, condition: str) -> None:
        """Wait for JavaScript to be true; Playwright's own way needs `eval`, which the page forbids."""
        ends = time.monotonic() + 60
        while not self.page.evaluate(f"Boolean({condition})"):
            assert time.monotonic() < ends, condition
            time.sleep(0.05)

    def legend(self) -> list[list[str]]:
        read = "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
        return list(self.page.eval_on_selector_all("#legend tbody tr", read))

    def mask_color(self, canvas: str, x: int, y: int) -> list[int]:
        code = f"[...document.getElementById('{canvas}').getContext('2d').getImageData({x}, {y}, 1, 1).data]"
        return list(self.page.evaluate(code))

    def overflows(self) -> bool:
        return bool(self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_a_chosen_picture_shows_two_masks_with_legend_and_times(
    browser: Any, served: RunningService, picture: Path, width: int, scheme: str
) -> None:
    with ServedPage(browser, served, width, scheme) as shown:
        assert not shown.overflows()
        shown.choose(picture)
        assert not shown.overflows()
        assert shown.legend() == [["red", "50.0%", "50.0%"], ["green", "47.5%", "50.0%"], ["dark", "2.5%", "0.0%"]]
        assert shown.mask_color("mask-0", 5, 5) == [*RED, 255]
        assert shown.mask_color("mask-1", 70, 5) == [*GREEN, 255]
        times = shown.page.inner_text("#times tbody")
        assert [line.split("\t")[0] for line in times.split("\n")] == [
            "body", "decode", "queue", "network", "mask", "total, in the browser",
        ]  # fmt: skip


def test_controls_work_by_keyboard(browser: Any, served: RunningService, picture: Path) -> None:
    with ServedPage(browser, served) as shown:
        shown.choose(picture)
        page = shown.page
        opacity = "document.getElementById('mask-0').style.opacity"
        assert page.evaluate(opacity) == "0.55"
        page.focus("#opacity")
        page.keyboard.press("End")
        assert page.evaluate(opacity) == "1"
        page.keyboard.press("m")
        assert page.evaluate(opacity) == "0"
        page.keyboard.press("m")
        page.focus("#legend input[data-class=red]")
        page.keyboard.press("Space")
        assert shown.mask_color("mask-0", 5, 5)[3] == 0
        assert shown.mask_color("mask-0", 70, 5) == [*GREEN, 255]
        page.focus("#split")
        page.keyboard.press("Home")
        assert page.evaluate("document.getElementById('mask-1').style.clipPath") == "inset(0px 0px 0px 0%)"
        page.select_option("#model-1", "")
        page.wait_for_selector("#compare", state="hidden")
        assert all(len(cells) == 2 for cells in shown.legend())


def test_the_slider_follows_a_finger_on_the_picture(browser: Any, served: RunningService, picture: Path) -> None:
    with ServedPage(browser, served) as shown:
        shown.choose(picture)
        box = shown.page.locator("#picture").bounding_box()
        shown.page.mouse.click(box["x"] + box["width"] * 0.25, box["y"] + 10)
        assert float(shown.page.input_value("#split")) == pytest.approx(25, abs=1)


_GIVE_FILE = """
async ([kind, base64]) => {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "picture.png", { type: "image/png" }));
  const event = kind === "drop"
    ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
    : new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
  document.getElementById("stage").dispatchEvent(event);
}
"""


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_pictures_are_dropped_and_pasted(browser: Any, served: RunningService, picture: Path, kind: str) -> None:
    with ServedPage(browser, served) as shown:
        shown.page.evaluate(_GIVE_FILE, [kind, base64.b64encode(picture.read_bytes()).decode()])
        shown.page.wait_for_selector("#legend:visible")
        assert len(shown.legend()) == 3


def test_the_camera_is_predicted_until_it_is_stopped(browser: Any, served: RunningService) -> None:
    with ServedPage(browser, served) as shown:
        shown.page.click("#camera")
        shown.page.wait_for_selector("#status:has-text('pictures/s')")
        shown.page.wait_for_selector("#legend:visible")
        shown.page.click("#camera")
        assert shown.page.inner_text("#camera") == "Camera"


#: Cameras whose permission is given when a test says so: `granted[0]()`. They film a canvas.
_CAMERAS = """() => {
  Object.assign(window, { opened: [], granted: [], canvas: document.createElement("canvas") });
  Object.assign(canvas, { width: 80, height: 60 });
  const draw = () => canvas.getContext("2d").fillRect(0, 0, canvas.width, canvas.height);
  navigator.mediaDevices.getUserMedia = () => new Promise((resolve) => granted.push(() => {
    draw();
    opened.push(canvas.captureStream(30));
    setInterval(draw, 30);
    resolve(opened.at(-1));
  }));
}"""


def test_a_picture_that_is_chosen_while_the_camera_is_asked_for_stays(
    browser: Any, served: RunningService, picture: Path
) -> None:
    with ServedPage(browser, served) as shown:
        shown.page.evaluate(_CAMERAS)
        assert shown.page.evaluate("at('camera').click(), at('camera').click(), granted.length") == 1
        assert shown.page.is_disabled("#camera")
        shown.choose(picture)
        shown.page.evaluate("granted[0]()")
        shown.wait_until("opened.length === 1 && !opened[0].active")
        assert shown.page.inner_text("#status") == "80 × 60 pixels"
        assert (shown.page.inner_text("#camera"), shown.page.is_disabled("#camera")) == ("Camera", False)


def test_a_camera_that_is_started_again_is_predicted_once(browser: Any, served: RunningService) -> None:
    with ServedPage(browser, served) as shown:
        shown.page.evaluate(_CAMERAS)
        shown.page.evaluate(
            "window.calls = [], window.predict = () => new Promise((ended) => calls.push(ended)), undefined"
        )
        for camera in range(2):
            shown.page.evaluate("at('camera').click()")
            shown.page.evaluate(f"granted[{camera}]()")
            shown.wait_until(f"calls.length === {camera + 1}")
            if camera == 0:
                shown.page.click("#camera")
        shown.page.evaluate("calls.forEach((end) => end())")
        shown.wait_until("calls.length >= 3")
        shown.page.evaluate("new Promise((passed) => setTimeout(passed, 300))")
        assert shown.page.evaluate("[calls.length, ...opened.map((stream) => stream.active)]") == [3, False, True]
        shown.page.click("#camera")
        assert not shown.page.evaluate("opened[1].active")


def test_a_camera_may_be_turned(browser: Any, served: RunningService) -> None:
    with ServedPage(browser, served) as shown:
        shown.page.evaluate(_CAMERAS)
        shown.page.evaluate("at('camera').click(), granted[0]()")
        shown.wait_until("at('picture').width === 80")
        shown.page.evaluate("Object.assign(canvas, { width: 60, height: 80 })")
        shown.wait_until("at('picture').width === 60 && at('picture').height === 80")
        shown.page.click("#camera")


def test_the_mask_is_saved_as_the_service_sent_it(
    browser: Any, served: RunningService, picture: Path, tmp_path: Path
) -> None:
    with ServedPage(browser, served) as shown:
        shown.choose(picture)
        with shown.page.expect_download() as download:
            shown.page.click("#download")
        download.value.save_as(tmp_path / "mask.png")
    assert (tmp_path / "mask.png").read_bytes() == served.predict(picture.read_bytes()).body


def test_a_file_that_is_no_picture_is_said(browser: Any, served: RunningService, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    with ServedPage(browser, served) as shown:
        shown.page.set_input_files("#file", tmp_path / "text.png")
        shown.page.wait_for_selector("#problem:visible")
        assert "not a picture" in shown.page.inner_text("#problem")


def test_a_picture_that_fails_leaves_no_mask_of_another(
    browser: Any, served: RunningService, picture: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.png").write_text("no picture")
    with ServedPage(browser, served) as shown:
        shown.choose(picture)
        shown.page.set_input_files("#file", tmp_path / "text.png")
        shown.page.wait_for_selector("#problem:visible")
        for place in ("#legend", "#times", "#save", "#mask-0", "#compare"):
            assert shown.page.is_hidden(place), place
        shown.choose(picture)
        assert shown.page.is_visible("#save") and shown.page.is_hidden("#problem")


def test_a_key_is_asked_for(browser: Any, tmp_path: Path, picture: Path) -> None:
    artifacts = [make_artifact(tmp_path, size=SIZE)]
    with running_service(artifacts, api_key="s3cret") as service, ServedPage(browser, service) as shown:
        shown.page.set_input_files("#file", picture)  # it waits for the key
        shown.page.fill("#key-value", "s3cret")
        shown.page.press("#key-value", "Enter")
        shown.page.wait_for_selector("#key", state="hidden")
        shown.page.wait_for_selector("#legend:visible")
        assert len(shown.legend()) == 3
        # The refusal itself is on the browser's console.
        (refusal,) = shown.wrong
        assert "401" in refusal
        shown.wrong.clear()
