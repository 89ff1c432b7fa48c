"""The examples in the documentation, which use nothing of this package, give the package's own masks."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
from tiny_artifact import make_artifact

import segkc_deploy
from segkc_deploy.preprocess import resize_image

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SIZE = (8, 12)


def random_image(size):
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


def run(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)


def predicted(artifact, image):
    with segkc_deploy.load(artifact, device="cpu") as predictor:
        return predictor.predict(image)


def test_the_python_example_uses_nothing_of_this_package():
    assert "segkc_deploy" not in (EXAMPLES / "run_onnx.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("size", [(13, 21), (40, 60), (6, 60), SIZE], ids=["twice", "large", "long", "same"])
def test_the_python_example_writes_the_mask(tmp_path, size):
    artifact, image = make_artifact(tmp_path, size=SIZE), random_image(size)
    cv2.imwrite(str(tmp_path / "street.png"), image[..., ::-1])
    result = run(sys.executable, EXAMPLES / "run_onnx.py", artifact, tmp_path / "street.png", tmp_path / "mask.png")
    assert result.stderr == ""
    mask = cv2.imread(str(tmp_path / "mask.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask, predicted(artifact, image))
    shares = [line.split()[-1] for line in result.stdout.splitlines()]
    assert shares == [f"{share:.1%}" for share in np.bincount(mask.ravel()) / mask.size if share]


def test_the_python_example_names_an_image_that_is_not_there(tmp_path):
    artifact = make_artifact(tmp_path, size=SIZE)
    result = run(sys.executable, EXAMPLES / "run_onnx.py", artifact, tmp_path / "no.png", tmp_path / "mask.png")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == f"{tmp_path / 'no.png'}: missing, or not an image that OpenCV reads"
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("size", [(13, 21), (40, 60), (6, 60), SIZE], ids=["twice", "large", "long", "same"])
@pytest.mark.parametrize("page", ["runtime.md", "triton.md"])
def test_the_samples_in_the_documentation_resize_as_this_package(page, size):
    lines = (EXAMPLES.parent / page).read_text(encoding="utf-8").splitlines()
    start = lines.index("resized = image")
    end = next(index for index in range(start, len(lines)) if lines[index].startswith("batch = "))
    image = random_image(size)
    names = {"cv2": cv2, "image": image, "height": SIZE[0], "width": SIZE[1]}
    exec("\n".join(lines[start : end + 1]), names)
    np.testing.assert_array_equal(names["batch"][0], resize_image(image, SIZE))


NETPBM_USER = """
#include <iostream>
#include "netpbm.h"
int main(int, char** arguments) try {
    const Image image = read_ppm(arguments[1]);
    write_pgm(arguments[2], image.height, 3 * image.width, image.pixels.data());
} catch (const std::exception& error) {
    std::cerr << error.what();
    return 1;
}
"""


@pytest.fixture(scope="module")
def netpbm_copy(tmp_path_factory):
    """A program that reads by the examples' header, and needs no library."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    folder = tmp_path_factory.mktemp("netpbm")
    (folder / "copy.cpp").write_text(NETPBM_USER)
    flags = ("-std=c++17", "-Wall", "-Wextra", "-Werror", "-I", EXAMPLES / "cpp")
    built = run("g++", *flags, folder / "copy.cpp", "-o", folder / "copy")
    assert built.returncode == 0, built.stderr
    return folder / "copy"


@pytest.mark.parametrize(
    "header",
    [
        b"P6 12 8 255\n",
        b"P6\n# CREATOR: GIMP PNM Filter Version 1.1\n12 8\n255\n",
        b"P6\n#\n# 13\n12 # wide\n8\n#255\n255\n",
    ],
)
def test_the_cpp_examples_read_images_with_and_without_comments(netpbm_copy, tmp_path, header):
    image = random_image(SIZE)
    image[0, 0] = ord("#")  # where the pixels begin there are no comments
    (tmp_path / "street.ppm").write_bytes(header + image.tobytes())
    result = run(netpbm_copy, tmp_path / "street.ppm", tmp_path / "copy.pgm")
    assert (result.returncode, result.stderr) == (0, "")
    copy = cv2.imread(str(tmp_path / "copy.pgm"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(copy.reshape(image.shape), image)


@pytest.mark.parametrize(
    "content", [b"", b"P6", b"P6 # 12 8 255\n", b"P6 -1 8 255\n", b"P6 12345678901234567890 8 255\n", b"P5 12 8 255\n"]
)
def test_the_cpp_examples_refuse_other_headers(netpbm_copy, tmp_path, content):
    (tmp_path / "street.ppm").write_bytes(content)
    result = run(netpbm_copy, tmp_path / "street.ppm", tmp_path / "copy.pgm")
    assert result.returncode == 1
    assert "not a binary 8-bit PPM" in result.stderr


@pytest.fixture(scope="module")
def cpp_example(tmp_path_factory):
    """Build against the library in onnxruntime's wheel, which has no headers (Debian's `libonnxruntime-dev` does)."""
    include = Path(os.environ.get("ONNXRUNTIME_INCLUDE", "/usr/include/onnxruntime"))
    libraries = list((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"))
    if not (include / "onnxruntime_cxx_api.h").exists() or not libraries or shutil.which("cmake") is None:
        pytest.skip("needs cmake, and onnxruntime_cxx_api.h in $ONNXRUNTIME_INCLUDE")
    folder = tmp_path_factory.mktemp("cpp")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(libraries[0])
    found = [f"-DONNXRUNTIME_INCLUDE={include}", f"-DONNXRUNTIME_LIBRARY={folder / 'libonnxruntime.so'}"]
    configured = run("cmake", "-S", EXAMPLES / "cpp", "-B", folder, "-DCMAKE_CXX_FLAGS=-Werror", *found)
    assert configured.returncode == 0, configured.stderr
    built = run("cmake", "--build", folder, "--target", "run_onnx")
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "run_onnx"


def test_the_cpp_example_writes_the_mask(cpp_example, tmp_path):
    artifact, image = make_artifact(tmp_path, size=SIZE), random_image(SIZE)
    cv2.imwrite(str(tmp_path / "street.ppm"), image[..., ::-1])
    result = run(cpp_example, artifact, tmp_path / "street.ppm", tmp_path / "mask.pgm")
    assert (result.returncode, result.stderr) == (0, "")
    mask = cv2.imread(str(tmp_path / "mask.pgm"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask, predicted(artifact, image))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"P6 12 8 255\n", "cut short"),
        (b"P6 4 4 255\n" + bytes(48), "resize it to 12x8"),
        (b"\xff\xd8\xff", "not a binary 8-bit PPM"),
    ],
)
def test_the_cpp_example_refuses_other_images_in_one_line(cpp_example, tmp_path, content, message):
    (tmp_path / "street.ppm").write_bytes(content)
    result = run(cpp_example, make_artifact(tmp_path, size=SIZE), tmp_path / "street.ppm", tmp_path / "mask.pgm")
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
