"""Remembered outputs: of the same images alone, as long as there is room, and safe from whoever was given them."""

import numpy as np
import pytest

from segkc_deploy.export.remembering_runner import RememberingRunner
from segkc_deploy.runners.base import Runner


class _Mean(Runner):
    description = "the mean of the pixels"

    def __init__(self) -> None:
        self.calls = 0

    def activate(self) -> None: ...

    def infer(self, images: np.ndarray) -> dict[str, np.ndarray]:
        self.calls += 1
        return {"logits": images.astype(np.float32).mean(axis=3)}

    def deactivate(self) -> None: ...


def _images(value: int, count: int = 1) -> np.ndarray:
    return np.full((count, 4, 4, 3), value, np.uint8)


def test_the_same_images_are_computed_once() -> None:
    network = _Mean()
    runner = RememberingRunner(network)
    for _ in range(2):
        assert (runner.infer(_images(7))["logits"] == 7).all()
        assert (runner.infer(_images(8))["logits"] == 8).all()
        assert runner.infer(_images(7, 2))["logits"].shape == (2, 4, 4)
    assert network.calls == 3


def test_the_same_bytes_in_another_shape_are_other_images() -> None:
    runner = RememberingRunner(_Mean())
    for size in ((4, 6), (6, 4), (2, 12)):
        assert runner.infer(np.zeros((1, *size, 3), np.uint8))["logits"].shape == (1, *size)


def test_a_view_of_other_strides_is_the_same_image() -> None:
    network = _Mean()
    runner = RememberingRunner(network)
    images = np.random.default_rng(0).integers(0, 256, (1, 4, 6, 3), dtype=np.uint8)
    first = runner.infer(images[:, :, ::-1])["logits"]
    second = runner.infer(np.ascontiguousarray(images[:, :, ::-1]))["logits"]
    np.testing.assert_array_equal(first, second)
    assert network.calls == 1


def test_what_does_not_fit_is_computed_again() -> None:
    network = _Mean()
    runner = RememberingRunner(network, most_bytes=2 * 64)  # two images of 16 float32
    for _ in range(2):
        for value in (1, 2, 3):
            assert (runner.infer(_images(value))["logits"] == value).all()
    assert network.calls == 4


def test_what_was_given_cannot_be_changed() -> None:
    runner = RememberingRunner(_Mean())
    with pytest.raises(ValueError, match="read-only"):
        runner.infer(_images(7))["logits"][:] = 0
    given = runner.infer(_images(7))
    del given["logits"]
    assert (runner.infer(_images(7))["logits"] == 7).all()
