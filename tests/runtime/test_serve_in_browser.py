"""The page runs an artifact itself: its arithmetic against OpenCV's and NumPy's, and its masks against the service's.

The last needs ONNX Runtime Web, 14 MB that are not in this repository: set ORT_WEB_DIST to the folder `dist` of the npm
package onnxruntime-web.
"""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from command_line import CommandLine
from PIL import Image
from prepared_folder import prepared_folder
from running_service import RunningService, running_service
from test_serve_page import ServedPage
from tiny_artifact import make_artifact

from segkc_deploy.mask_head import mask_from_logits
from segkc_deploy.preprocess import resize_image, resize_mask
from segkc_deploy.serve.browser_runtime import FILES

pytestmark = pytest.mark.browser

SIZE = (60, 80)


def web_runtime() -> Path:
    return prepared_folder("ORT_WEB_DIST", "ONNX Runtime Web")


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("artifacts")
    free = {"size_multiple": 4, "min_size": (8, 8), "max_size": (96, 96)}
    return [
        make_artifact(folder, "masks.onnx", size=SIZE),
        make_artifact(folder, "logits.onnx", size=SIZE, outputs=("masks", "logits")),
        make_artifact(folder, "free.onnx", outputs=("logits",), align_corners=True, **free),
    ]


@pytest.fixture(scope="module")
def page(browser: Any, artifacts: list[Path]) -> Iterator[Any]:
    """The page of a service without ONNX Runtime Web, for its functions."""
    with running_service(artifacts[:1]) as service, ServedPage(browser, service) as shown:
        assert shown.page.is_hidden("#places")
        yield shown.page


_CALL = """([name, bytes, kind, ...rest]) => {
  const binary = atob(bytes), content = new Uint8Array(binary.length);
  for (let index = 0; index < content.length; index++) content[index] = binary.charCodeAt(index);
  const data = kind === "float32" ? new Float32Array(content.buffer) : content;
  const functions = { resizeMask, maskFromLogits,
    resizeImage: (data, wide, high, ...size) => resizeImage({ data, width: wide, height: high }, ...size).data };
  const result = functions[name](data, ...rest);
  let text = "";
  for (const value of result) text += String.fromCharCode(value);
  return btoa(text);
}"""


def called(page: Any, name: str, values: np.ndarray, *arguments: object) -> np.ndarray:
    encoded = base64.b64encode(values.tobytes()).decode()
    answer = page.evaluate(_CALL, [name, encoded, values.dtype.name, *arguments])
    return np.frombuffer(base64.b64decode(answer), np.uint8)


@pytest.mark.parametrize("size", [(37, 53), (60, 80), (61, 79), (120, 160), (90, 31), (7, 300), (1, 1)])
def test_images_are_enlarged_and_shrunk_as_the_service_does_it(page: Any, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    resized = called(page, "resizeImage", image, size[1], size[0], SIZE[1], SIZE[0])
    expected = resize_image(image, SIZE).ravel()
    if size[0] <= 2 * SIZE[0] and size[1] <= 2 * SIZE[1]:
        np.testing.assert_array_equal(resized, expected)
    else:  # OpenCV averages in single precision
        assert np.abs(resized.astype(int) - expected).max() <= 1
        assert np.mean(resized != expected) < 0.001


@pytest.mark.parametrize("size", [(180, 240), (121, 500), (200, 60)])
def test_averages_by_area_differ_by_rounding_at_most(page: Any, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    resized = called(page, "resizeImage", image, size[1], size[0], SIZE[1], SIZE[0])
    difference = np.abs(resized.astype(int) - resize_image(image, SIZE).ravel())
    assert difference.max() <= 1
    assert np.mean(difference) < (0.1 if size == (200, 60) else 0.002)  # averages of tenths often end in a half


@pytest.mark.parametrize("size", [(37, 53), (60, 80), (121, 163), (200, 60), (1, 1)])
def test_masks_take_the_nearest_pixels(page: Any, size: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).integers(0, 9, SIZE, np.uint8)
    resized = called(page, "resizeMask", mask, SIZE[1], SIZE[0], size[1], size[0])
    # Of two pixels that are as near OpenCV takes one or the other.
    down, across = (
        (2 * np.arange(length) + 1) * side % (2 * length) != 0 for length, side in zip(size, SIZE, strict=True)
    )
    decided = np.ix_(down | (size[0] == SIZE[0]), across | (size[1] == SIZE[1]))
    np.testing.assert_array_equal(resized.reshape(size)[decided], resize_mask(mask, size)[decided])


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("size", [(60, 80), (15, 11), (33, 1)])
def test_logits_are_upsampled_bilinearly(page: Any, size: tuple[int, int], align: bool) -> None:
    logits = np.random.default_rng(0).normal(size=(15, 20, 5)).astype(np.float32)
    mask = called(page, "maskFromLogits", logits, list(logits.shape), size[1], size[0], align)
    np.testing.assert_array_equal(mask.reshape(size), mask_from_logits(logits, size, align))


#: Predicts a file in the browser, by a network that needs no ONNX Runtime, and returns what the page says.
_PREDICT_HERE = """async (base64) => {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const run = async () => ({ masks: { data: new Uint8Array(60 * 80) } });
  const contract = { size: [60, 80], input: { name: "images" }, outputs: [{ name: "masks" }] };
  window.local = async () => ({ ort: { Tensor: class {} }, session: { run }, contract });
  models[0].in_browser = at("here").checked = true;
  await predict(new Blob([bytes]));
  return at("status").textContent;
}"""


@pytest.mark.parametrize(
    ("suffix", "mode", "options", "noted"),
    [
        (".png", "RGB", {}, False),
        (".png", "RGBA", {}, False),
        (".png", "half", {}, True),
        (".png", "P", {"transparency": 0}, True),
        (".png", "I;16", {}, True),
        (".jpg", "RGB", {}, False),
        (".webp", "half", {"lossless": True}, True),
        (".gif", "P", {"transparency": 0}, True),
    ],
)
def test_pictures_that_a_browser_changes_are_named(
    page: Any, tmp_path: Path, suffix: str, mode: str, options: dict[str, object], noted: bool
) -> None:
    """A canvas multiplies colors by alpha, and keeps 8 of 16 bits."""
    image = Image.new("RGBA", (6, 4), (200, 100, 50, 128 if mode == "half" else 255))
    image = Image.new("I;16", (6, 4)) if mode == "I;16" else image if mode == "half" else image.convert(mode)
    image.save(tmp_path / f"a{suffix}", **options)
    status = page.evaluate(_PREDICT_HERE, base64.b64encode((tmp_path / f"a{suffix}").read_bytes()).decode())
    assert status.startswith("6 × 4 pixels")
    assert ("the mask of the service may differ" in status) == noted


@pytest.mark.parametrize("size", [(60, 80), (44, 96)])
def test_masks_of_the_browser_are_those_of_the_service(
    browser: Any, artifacts: list[Path], tmp_path: Path, size: tuple[int, int]
) -> None:
    runtime = web_runtime()
    image = cv2.resize(
        np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC
    )
    cv2.imwrite(str(tmp_path / "picture.png"), image)
    with running_service(artifacts, browser_runtime=runtime) as service, ServedPage(browser, service) as shown:
        page = shown.page
        page.select_option("#model-1", "")
        for name in ("masks", "logits", "free"):
            page.set_checked("#here", False)
            page.select_option("#model-0", name)
            shown.choose(tmp_path / "picture.png")
            shown.wait_until("sides[0].model && sides[0].blob && sides[0].model.name === at('model-0').value")
            there = page.evaluate("[...sides[0].ids]")
            before = images_predicted(service)
            page.set_checked("#here", True)
            shown.wait_until("sides[0].ids && !sides[0].blob")
            assert page.evaluate("[...sides[0].ids]") == there
            assert len(set(there)) > 2
            assert "in this browser" in page.inner_text("#about")
            assert page.inner_text("#times tbody").split("\t")[0] == "decode"
            assert page.is_hidden("#save")
            assert images_predicted(service) == before


def images_predicted(service: RunningService) -> list[str]:
    lines = service.request("GET", "/metrics").body.decode().splitlines()
    return [line for line in lines if line.startswith("segkc_deploy_images_total")]


def test_the_artifact_needs_the_key_and_the_runtime_a_whole_folder(
    command: CommandLine, artifacts: list[Path], tmp_path: Path
) -> None:
    refused = command.refused("serve", artifacts[0], "--browser-runtime", tmp_path)
    assert "npm pack onnxruntime-web" in refused
    for name in FILES:
        (tmp_path / name).write_bytes(name.encode())
    with running_service(artifacts[:1], api_key="s3cret", browser_runtime=tmp_path) as service:
        assert service.request("GET", "/models/masks/artifact").status == 401
        assert service.request("GET", "/models/masks/artifact", X_API_Key="s3cret").body == artifacts[0].read_bytes()
        answer = service.request("GET", "/browser-runtime/ort-wasm-simd-threaded.wasm")
        assert answer.headers["content-type"] == "application/wasm"
        for path in ("/browser-runtime/other.js", "/browser-runtime/..%2Fmasks.onnx"):
            assert service.request("GET", path).status == 404
    with running_service(artifacts[:1]) as service:
        assert service.request("GET", "/models/masks/artifact").status == 404
