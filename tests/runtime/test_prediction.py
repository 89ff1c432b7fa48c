"""Masks by the published evaluation protocols, against readings of them in NumPy (float64)."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkc_deploy.errors import ConfigError
from segkc_deploy.tiles import window_starts
from segkc_deploy.training.evaluation import prediction
from segkc_deploy.training.evaluation.prediction import (
    input_size,
    mask_predictor,
    most_probable,
    probability_predictor,
    protocol_in_words,
    window_for,
)
from segkc_deploy.training.evaluation.sliding_window import summed_probabilities
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.models.spec import NetworkSpec
from segkc_deploy.training.recipe import ValidationConfig

CPU = torch.device("cpu")
COLORS = np.random.default_rng(3).random((4, 3))
SLOPES = np.array([[0.0, 0.0], [2.0, -1.0], [-1.5, 2.5], [1.0, 1.0]])


class Nearest(nn.Module):
    """A network whose logits tell how close a pixel is to four colors, and where in its input it lies."""

    size_multiple = 14

    def __init__(self, align_corners: bool = True) -> None:
        super().__init__()
        self.decoder = SimpleNamespace(align_corners=align_corners)

    def forward(self, images: Tensor) -> Tensor:
        assert all(side % self.size_multiple == 0 for side in images.shape[2:])
        logits = logits_of(images[0].numpy().astype(np.float64).transpose(1, 2, 0))
        return torch.from_numpy(logits.transpose(2, 0, 1)[None]).float()

    def features(self, images: Tensor) -> list[Tensor]:
        return [images]

    def decode(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        return self.upsample(self(features[0]), size)

    def upsample(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(logits, size, mode="bilinear", align_corners=self.decoder.align_corners)


def logits_of(image: np.ndarray) -> np.ndarray:
    """Return the logits (H, W, 4) of an image (H, W, 3), values from 0 to 1."""
    rows, columns = (np.linspace(0, 1, side) for side in image.shape[:2])
    place = rows[:, None, None] * SLOPES[:, 0] + columns[None, :, None] * SLOPES[:, 1]
    return -8 * ((image[:, :, None] - COLORS) ** 2).sum(axis=3) + place


def bilinear(values: np.ndarray, size: tuple[int, int], align_corners: bool) -> np.ndarray:
    """Resize (H, W, C) by interpolating rows, then columns."""
    for axis, wanted in enumerate(size):
        length = values.shape[axis]
        if align_corners:
            position = np.arange(wanted) * (length - 1) / (wanted - 1)
        else:
            position = np.clip((np.arange(wanted) + 0.5) * length / wanted - 0.5, 0, length - 1)
        before = np.floor(position).astype(int)
        after = np.minimum(before + 1, length - 1)
        weight = (position - before).reshape([-1 if axis == other else 1 for other in range(3)])
        values = values.take(before, axis) * (1 - weight) + values.take(after, axis) * weight
    return values


def random_image(height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(height * 1000 + width).integers(0, 256, (height // 4 + 2, width // 4 + 2, 3))
    return cv2.resize(coarse.astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


def assert_same(mask: np.ndarray, scores: np.ndarray) -> None:
    """Check a mask against scores (H, W, C): the winner everywhere but where rounding may decide."""
    best = np.sort(scores, axis=2)
    clear = best[..., -1] - best[..., -2] > 1e-4
    assert clear.mean() > 0.99
    assert len(np.unique(mask)) == 4
    np.testing.assert_array_equal(mask[clear], scores.argmax(axis=2)[clear])


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(50, 65), (35, 49), (20, 90)])
def test_own_size_is_rounded_to_multiples_and_interpolated_there_and_back(
    size: tuple[int, int], align_corners: bool
) -> None:
    image = random_image(*size)
    mask = mask_predictor(Nearest(align_corners), CPU, ValidationConfig())(image)
    inner = tuple(int(side / 14 + 0.5) * 14 for side in size)
    assert inner != size
    resized = bilinear(image / 255, inner, align_corners)
    assert_same(mask, bilinear(logits_of(resized), size, align_corners))


def test_halves_round_up_as_published() -> None:
    assert [input_size((side, side), 14)[0] for side in (3, 20, 21, 34, 35, 49, 500)] == [14, 14, 28, 28, 42, 56, 504]


def test_an_image_that_fits_is_not_touched() -> None:
    image = random_image(56, 84)
    logits = Nearest()(torch.from_numpy(image.transpose(2, 0, 1).copy())[None].float() / 255)
    for protocol in (ValidationConfig(), ValidationConfig(window=(56, 84)), ValidationConfig(size=(56, 84))):
        mask = mask_predictor(Nearest(), CPU, protocol)(image)
        np.testing.assert_array_equal(mask, logits[0].argmax(dim=0).numpy())


def published_sliding_window(image: np.ndarray, window: tuple[int, int], stride: tuple[int, int]) -> np.ndarray:
    """Return the sums (H, W, C), written as UniMatch V2's evaluation goes: step until a window touches the border."""
    height, width = image.shape[:2]
    total = np.zeros((height, width, 4))
    row = 0
    while row < height:
        column = 0
        while column < width:
            here = np.s_[row : row + window[0], column : column + window[1]]
            powers = np.exp(logits_of(image[here]))
            total[here] += powers / powers.sum(axis=2, keepdims=True)
            if column == width - window[1]:
                break
            column = min(column + stride[1], width - window[1])
        if row == height - window[0]:
            break
        row = min(row + stride[0], height - window[0])
    return total


@pytest.mark.parametrize(
    ("size", "stride"), [((50, 75), None), ((43, 42), (14, 14)), ((42, 42), None), ((84, 70), (42, 28))]
)
def test_probabilities_of_sliding_windows_are_summed(size: tuple[int, int], stride: tuple[int, int] | None) -> None:
    image = random_image(*size)
    protocol = ValidationConfig(window=(42, 42), stride=stride)
    expected = published_sliding_window(image / 255, (42, 42), stride or (28, 28))
    assert_same(mask_predictor(Nearest(), CPU, protocol)(image), expected)
    tensor = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].float() / 255
    sums = torch.cat(list(summed_probabilities(Nearest(), tensor, (42, 42), stride or (28, 28))), 2)[0].permute(1, 2, 0)
    np.testing.assert_allclose(sums.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(30, 75), (60, 33), (20, 20)])
def test_an_image_smaller_than_the_window_is_padded_with_black(size: tuple[int, int]) -> None:
    image = random_image(*size)
    padded = np.zeros((max(size[0], 42), max(size[1], 42), 3))
    padded[: size[0], : size[1]] = image / 255
    expected = published_sliding_window(padded, (42, 42), (28, 28))[: size[0], : size[1]]
    mask = mask_predictor(Nearest(), CPU, ValidationConfig(window=(42, 42)))(image)
    assert mask.shape == size
    assert_same(mask, expected)


def test_a_size_or_a_window_takes_the_place_of_the_most_pixels_of_a_recipe() -> None:
    image = random_image(90, 80)
    for protocol in (ValidationConfig(size=(42, 56)), ValidationConfig(window=(42, 42))):
        both = protocol.model_copy(update={"most_pixels": 4096})
        expected = mask_predictor(Nearest(), CPU, protocol)(image)
        np.testing.assert_array_equal(mask_predictor(Nearest(), CPU, both)(image), expected)
        assert protocol_in_words(both, 14) == protocol_in_words(protocol, 14)


@pytest.mark.parametrize("size", [(50, 75), (90, 30), (70, 71)])
def test_large_images_are_tiled_and_others_are_not(size: tuple[int, int]) -> None:
    image = random_image(*size)
    tiled = ValidationConfig(most_pixels=4096)
    window = window_for(tiled, size, 14)
    whole = mask_predictor(Nearest(), CPU, ValidationConfig())(image)
    if size[0] * size[1] <= 4096:
        assert window is None
        np.testing.assert_array_equal(mask_predictor(Nearest(), CPU, tiled)(image), whole)
    else:
        assert window == (56, 56)  # 64 x 64 pixels at most, in multiples of 14
        as_windows = mask_predictor(Nearest(), CPU, ValidationConfig(window=window))(image)
        np.testing.assert_array_equal(mask_predictor(Nearest(), CPU, tiled)(image), as_windows)
        probabilities = torch.cat(list(probability_predictor(Nearest(), CPU, tiled)(image)), dim=1)
        np.testing.assert_allclose(probabilities.sum(dim=0).numpy(), np.ones(size), atol=1e-5)
    assert window_for(tiled, (30, 900), 14) == (42, 56)  # no higher than it takes
    assert "images of more than 4,096 pixels in a sliding window of 56×56 at a stride of 37×37" in protocol_in_words(
        tiled, 14
    )


@pytest.mark.parametrize(
    "protocol",
    [
        ValidationConfig(),
        ValidationConfig(size=(42, 56)),
        ValidationConfig(window=(42, 42)),
        ValidationConfig(most_pixels=4096),
    ],
    ids=["own size", "size", "window", "most pixels"],
)
def test_probabilities_in_parts_are_bit_for_bit_those_of_whole_scores(
    monkeypatch: pytest.MonkeyPatch, protocol: ValidationConfig
) -> None:
    """Odd sides, so that parts and vector instructions end at different pixels."""
    monkeypatch.setattr(prediction, "_VALUES_AT_ONCE", 1)
    image = random_image(93, 71)
    scores = torch.cat(list(prediction._score_predictor(Nearest(), CPU, protocol)(image)), dim=1)
    windows = protocol.window or protocol.most_pixels
    confidence, classes = (scores / scores.sum(dim=0) if windows else scores.softmax(dim=0)).max(dim=0)
    parts = list(probability_predictor(Nearest(), CPU, protocol)(image))
    assert len(parts) > 5 and max(part.shape[1] for part in parts) <= 16
    for got, expected in zip(most_probable(iter(parts)), (confidence, classes), strict=True):
        assert torch.equal(got, expected)
    mask = mask_predictor(Nearest(), CPU, protocol)(image)
    np.testing.assert_array_equal(classes.numpy(), mask)


def test_windows_on_cityscapes_lie_where_the_published_ones_do() -> None:
    assert window_starts(1024, 798, 532) == [0, 226]
    assert window_starts(2048, 798, 532) == [0, 532, 1064, 1250]
    assert window_starts(798, 798, 532) == [0]
    assert window_starts(1330, 798, 532) == [0, 532]


def test_a_vit_is_shown_floats_with_corners_aligned() -> None:
    torch.manual_seed(0)
    network = Segmenter(NetworkSpec(backbone="vit_tiny_patch16_224", decoder_channels=8), 3).eval()
    image = random_image(40, 72)
    floats = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].double() / 255
    with torch.no_grad():
        inner = F.interpolate(floats, (48, 80), mode="bilinear", align_corners=True).float()
        # With random weights alone one class would win everywhere.
        network.decoder.classifier.bias -= network(inner).mean(dim=(0, 2, 3))
        logits = F.interpolate(network(inner).double(), (40, 72), mode="bilinear", align_corners=True)[0]
    mask = mask_predictor(network, CPU, ValidationConfig())(image)
    best = logits.topk(2, dim=0).values
    clear = (best[0] - best[1] > 1e-3 * best[0].abs().max()).numpy()
    assert clear.mean() > 0.95
    assert len(np.unique(mask)) == 3
    np.testing.assert_array_equal(mask[clear], logits.argmax(dim=0).numpy()[clear])


def test_a_set_size_is_what_an_artifact_of_that_size_sees() -> None:
    """Bytes resized by OpenCV's exact bilinear, as on the device."""
    image = random_image(50, 65)
    mask = mask_predictor(Nearest(), CPU, ValidationConfig(size=(40, 56)))(image)
    seen = cv2.resize(image, (56, 42), interpolation=cv2.INTER_LINEAR_EXACT)
    assert_same(mask, bilinear(logits_of(seen / 255), (50, 65), align_corners=True))


def test_protocols_are_told_in_words() -> None:
    window = ValidationConfig(window=(798, 798))
    assert "sliding window of 798×798 (width × height) at a stride of 532×532" in protocol_in_words(window, 14)
    assert "each image's own size, sides to the nearest multiple of 14" in protocol_in_words(ValidationConfig(), 14)
    assert protocol_in_words(ValidationConfig(size=(360, 480)), 32).startswith("480×352 (width × height)")


@pytest.mark.parametrize(
    ("window", "stride", "message"),
    [
        ((40, 42), None, r"validation\.window: .*multiples of 14; the closest is 42x42"),
        ((42, 42), (42, 43), r"validation\.stride: \[42, 43\] has to be from 1 to the window's \[42, 42\]"),
        ((42, 42), (0, 1), r"validation\.stride"),
    ],
)
def test_windows_that_cannot_be_are_refused(
    window: tuple[int, int], stride: tuple[int, int] | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        mask_predictor(Nearest(), CPU, ValidationConfig(window=window, stride=stride))
