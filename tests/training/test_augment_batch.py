"""Strong views made of a whole batch by torch: those of OpenCV, Pillow and torchvision."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_data import tiny_recipe
from torch import Tensor
from torchvision.transforms import functional

from segkc_deploy.benchmarks.studies import pil_pipeline
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.pixel_format import PixelFormat
from segkc_deploy.training.batches import prepared
from segkc_deploy.training.data.augment import StrongDraw, draw_strong_view, strong_view
from segkc_deploy.training.data.augment_batch import make_strong_views, packed
from segkc_deploy.training.data.datasets import Draws, UnlabeledDataset, draw_loader
from segkc_deploy.training.data.views import mixed_views
from segkc_deploy.training.recipe import EntropyMixConfig, StrongAugmentation

COUNT = 12


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Smooth pictures with edges and noise, uint8 (12, 96, 120, 3)."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (COUNT, 8, 10, 3)).astype(np.uint8)
    smooth = [cv2.resize(image, (120, 96), interpolation=cv2.INTER_CUBIC) for image in coarse]
    return np.stack([cv2.add(image, rng.integers(0, 12, image.shape).astype(np.uint8)) for image in smooth])


def made(images: np.ndarray, draws: list[StrongDraw]) -> np.ndarray:
    views = make_strong_views(torch.from_numpy(images), torch.stack([packed(draw) for draw in draws]))
    assert views.dtype == torch.float32
    return (255 * views.permute(0, 2, 3, 1)).numpy()


@pytest.mark.parametrize("seed", range(4))
def test_views_are_those_of_opencv(images: np.ndarray, seed: int) -> None:
    config = StrongAugmentation(grayscale_probability=0.3)
    expected = [strong_view(image, config, np.random.default_rng([seed, n])) for n, image in enumerate(images)]
    found = made(images, [draw_strong_view(config, np.random.default_rng([seed, n])) for n in range(COUNT)])
    difference = np.abs(found - np.stack(expected))
    assert difference.mean(axis=(1, 2, 3)).max() < 0.25
    assert np.quantile(difference, 0.999) <= 4


@pytest.mark.parametrize("seed", range(4))
def test_views_are_those_of_pillow(images: np.ndarray, seed: int) -> None:
    """Pillow truncates after each change, which costs half a level each time; its hues differ by more, see below."""
    config = StrongAugmentation(jitter_probability=0.5, hue=0.0, grayscale_probability=0.3)
    found = made(images, [draw_strong_view(config, np.random.default_rng([seed, n])) for n in range(COUNT)])
    for number, (image, view) in enumerate(zip(images, found, strict=True)):
        usual = pil_pipeline.strong_view(Image.fromarray(image), config, np.random.default_rng([seed, number]))
        assert np.abs(view - np.asarray(usual)).mean() < 2


@pytest.mark.parametrize("change", ["brightness", "contrast", "saturation", "hue", "grayscale", "blur"])
def test_each_change_is_torchvisions(images: np.ndarray, change: str) -> None:
    amounts = {"brightness": 1.3, "contrast": 0.6, "saturation": 1.4, "hue": -0.2}
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    if change in amounts:
        index = list(amounts).index(change)
        draw = StrongDraw((index, -1, -1, -1), tuple(amounts.values()))
        expected = getattr(functional, f"adjust_{change}")(pixels, amounts[change])
    elif change == "grayscale":
        draw, expected = StrongDraw(grayscale=True), functional.rgb_to_grayscale(pixels, 3)
    else:
        draw, expected = StrongDraw(blur_sigma=1.7), functional.gaussian_blur(pixels, [11, 11], 1.7)
    found = torch.from_numpy(made(images, [draw] * COUNT)).permute(0, 3, 1, 2)
    # torchvision truncates, half a level on average, and keeps hues as floats.
    assert (found - expected.float()).abs().mean() < 1


def test_an_image_without_changes_stays_as_it_is(images: np.ndarray) -> None:
    draws = [StrongDraw(), StrongDraw(blur_sigma=2.0)] * (COUNT // 2)
    found = made(images, draws)
    np.testing.assert_allclose(found[::2], images[::2], atol=1e-4)
    assert np.abs(found[1] - images[1]).mean() > 1


@pytest.mark.parametrize("side", [1, 2, 5])
def test_a_blur_may_be_wider_than_the_image(side: int) -> None:
    image = np.random.default_rng(1).integers(0, 256, (side, side + 1, 3)).astype(np.uint8)
    found = made(image[None], [StrongDraw(blur_sigma=3.0)])[0]
    np.testing.assert_allclose(found, cv2.GaussianBlur(image, (0, 0), sigmaX=3.0), atol=1)


def test_draws_travel_with_the_batch_and_change_nothing_else(data: Path) -> None:
    """What a GPU is given, here on the CPU: the same masks and weak views, and the same strong views by torch."""
    sets = load_data_spec(data).resolve()
    whole, drawn = (UnlabeledDataset(sets, tiny_recipe(), 2, draws_only=only) for only in (False, True))
    device = torch.device("cpu")
    for draws in (Draws(3, range(2)), Draws(2, range(7, 9))):
        for by_opencv, by_torch in zip(
            *(draw_loader(dataset, draws, 0, pin_memory=False) for dataset in (whole, drawn)), strict=True
        ):
            assert isinstance(by_opencv.tensors, dict) and isinstance(by_torch.tensors, dict)
            expected, found = prepared(by_opencv.tensors, device), prepared(by_torch.tensors, device)
            assert expected.keys() == found.keys()
            assert torch.equal(expected["weak"], found["weak"])
            assert torch.equal(expected["ignored"], found["ignored"])
            for name in ("strong_1", "strong_2"):
                view: Tensor = found[name]
                assert view.is_contiguous(memory_format=torch.channels_last)
                assert 255 * (view - expected[name]).abs().mean() < 1


def test_other_bands_are_augmented_where_they_are_loaded(data: Path) -> None:
    sets = dataclasses.replace(load_data_spec(data).resolve(), pixels=PixelFormat(4, 16))
    assert not UnlabeledDataset(sets, tiny_recipe(), 1, draws_only=True).draws_only


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
def test_a_gpu_makes_and_mixes_the_same_views_and_nothing_waits_for_it(images: np.ndarray) -> None:
    config = StrongAugmentation(entropymix=EntropyMixConfig(mode="after-cutmix", grid=4))
    draws = torch.stack([packed(draw_strong_view(config, np.random.default_rng(n))) for n in range(COUNT)])

    def mixed(weak: Tensor) -> Tensor:
        torch.manual_seed(0)
        view = make_strong_views(weak, draws)
        unlabeled = {"strong_1": view, "strong_2": view.flip(3), "ignored": torch.zeros_like(view[:, 0]) > 0}
        return torch.cat([view.image for view in mixed_views(unlabeled, 2, config, lambda images: images.sum(dim=1))])

    expected, on_gpu = mixed(torch.from_numpy(images)), torch.from_numpy(images).cuda()
    try:
        torch.cuda.set_sync_debug_mode("error")
        found = mixed(on_gpu)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert 255 * (found.cpu() - expected).abs().mean() < 1
