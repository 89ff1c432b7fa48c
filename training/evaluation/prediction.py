"""A network's mask of one image, by the evaluation protocol that a recipe states under `validation:`."""

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segkc_deploy.errors import ConfigError
from segkc_deploy.preprocess import resize_image
from segkc_deploy.tiles import default_stride
from segkc_deploy.training.evaluation.sliding_window import summed_probabilities
from segkc_deploy.training.models.fixed_size import check_size
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.recipe import ValidationConfig

#: Probabilities that are computed at once.
_VALUES_AT_ONCE = 1 << 24

#: Parts of this many rows or a multiple begin where vector instructions do, so that their softmax is bit for bit that
#: of the whole image.
_ROWS = 16


def to_float_images(images: Tensor) -> Tensor:
    """Turn uint8 or uint16 images (N, bands, H, W) into floats from 0 to 1."""
    return images.float() / torch.iinfo(images.dtype).max


def input_size(image_size: tuple[int, int], multiple: int, size: tuple[int, int] | None = None) -> tuple[int, int]:
    """Return the network's input size for an image: `size` or the image's own, each side to the nearest multiple.

    Of two multiples that are as near the larger one, as UniMatch V2 rounds.
    """
    height, width = (max(int(side / multiple + 0.5), 1) * multiple for side in size or image_size)
    return height, width


def mask_predictor(
    network: Segmenter, device: torch.device, protocol: ValidationConfig
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from an image, uint8 (H, W, 3), to its mask, uint8 (H, W); see `protocol_in_words`.

    Raises:
        ConfigError: the network cannot take the protocol's window.
    """
    score = _score_predictor(network, device, protocol)

    def predict(image: np.ndarray) -> np.ndarray:
        return np.concatenate([rows.argmax(dim=0).to(torch.uint8).cpu().numpy() for rows in score(image)])

    return predict


def probability_predictor(
    network: Segmenter, device: torch.device, protocol: ValidationConfig
) -> Callable[[np.ndarray], Iterator[Tensor]]:
    """Return a function from an image, uint8 (H, W, 3), to class probabilities; their argmax is its mask.

    These come in parts (C, rows, W), from the top to the bottom: 150 classes of an image of 12 megapixels are 7 GB.

    Raises:
        ConfigError: the network cannot take the protocol's window.
    """
    score = _score_predictor(network, device, protocol)

    def predict(image: np.ndarray) -> Iterator[Tensor]:
        seen_whole = window_for(protocol, image.shape[:2], network.size_multiple) is None
        for scores in score(image):
            rows = max(_VALUES_AT_ONCE // scores[:, :_ROWS].numel(), 1) * _ROWS
            for part in scores.split(rows, dim=1):
                yield part.softmax(dim=0) if seen_whole else part / part.sum(dim=0)

    return predict


def most_probable(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the largest class probability, float32 (H, W), and its class, int64 (H, W), of `parts` (C, rows, W)."""
    confidence, classes = zip(*(part.max(dim=0) for part in parts), strict=True)
    return torch.cat(confidence), torch.cat(classes)


def _score_predictor(
    network: Segmenter, device: torch.device, protocol: ValidationConfig
) -> Callable[[np.ndarray], Iterator[Tensor]]:
    """Return a function from an image to what decides its mask: logits (C, H, W), or sums of softmax over windows.

    These come in parts (C, rows, W), from the top to the bottom.
    """
    check_protocol(protocol, network)

    @torch.inference_mode()
    def score(image: np.ndarray) -> Iterator[Tensor]:
        window = window_for(protocol, image.shape[:2], network.size_multiple)
        if window is not None:
            stride = protocol.stride or default_stride(window)
            for rows in summed_probabilities(network, _to_tensor(image, device), window, stride):
                yield rows[0]
        elif protocol.size is not None:
            yield _scores_at_set_size(network, image, protocol.size, device)[0]
        else:
            yield _scores_at_own_size(network, _to_tensor(image, device))[0]

    return score


def window_for(protocol: ValidationConfig, image_size: tuple[int, ...], multiple: int) -> tuple[int, int] | None:
    """Return the (height, width) of the sliding window for an image of this size, or None where it is seen whole."""
    if protocol.window is not None:
        return protocol.window
    if protocol.size is not None or protocol.most_pixels is None:
        return None
    if math.prod(image_size) <= protocol.most_pixels:
        return None
    largest = _largest_window(protocol.most_pixels, multiple)
    height, width = (min(largest, math.ceil(side / multiple) * multiple) for side in image_size)
    return height, width


def _largest_window(most_pixels: int, multiple: int) -> int:
    return max(math.isqrt(most_pixels) // multiple, 1) * multiple


def check_protocol(protocol: ValidationConfig, network: Segmenter) -> None:
    """Raise ConfigError, naming what would work, where the network cannot take the window or windows leave gaps."""
    if protocol.window is None:
        return
    stride = protocol.stride or default_stride(protocol.window)
    if any(not 1 <= step <= side for step, side in zip(stride, protocol.window, strict=True)):
        raise ConfigError(f"validation.stride: {list(stride)} has to be from 1 to the window's {list(protocol.window)}")
    try:
        check_size(protocol.window, network.size_multiple)
    except ConfigError as error:
        raise ConfigError(f"validation.window: {error}") from None


def protocol_in_words(protocol: ValidationConfig, multiple: int) -> str:
    """Say how images are shown to a network whose sides have to be multiples of `multiple`, and what is compared."""
    if protocol.window is not None:
        stride = protocol.stride or default_stride(protocol.window)
        return (
            f"sliding window of {_sides(protocol.window)} (width × height) at a stride of {_sides(stride)}, the last"
            " one at the border; softmax summed over the windows"
        )
    if protocol.size is not None:
        size = input_size(protocol.size, multiple)
        return f"{_sides(size)} (width × height), as an artifact of that size; logits resized to the image's own size"
    own_size = (
        f"each image's own size, sides to the nearest multiple of {multiple} (bilinear);"
        " logits resized to the image's own size"
    )
    if protocol.most_pixels is None:
        return own_size
    window = (_largest_window(protocol.most_pixels, multiple),) * 2
    return (
        f"{own_size}; images of more than {protocol.most_pixels:,} pixels in a sliding window of {_sides(window)} at a"
        f" stride of {_sides(default_stride(window))} (validation.most_pixels)"
    )


def _scores_at_own_size(network: Segmenter, image: Tensor) -> Tensor:
    """Return logits (1, C, H, W) of (1, 3, H, W), resized there and back where the sides are no multiples.

    As UniMatch V2 evaluates: the image is interpolated as floats, without smoothing, by the decoder's own corner
    convention, which for DPT is the published one (corners aligned).
    """
    own_size = (image.shape[2], image.shape[3])
    size = input_size(own_size, network.size_multiple)
    if size == own_size:
        return network(image)
    align = network.decoder.align_corners
    return network.upsample(network(F.interpolate(image, size, mode="bilinear", align_corners=align)), own_size)


def _scores_at_set_size(network: Segmenter, image: np.ndarray, size: tuple[int, int], device: torch.device) -> Tensor:
    """Return logits (1, C, H, W) of an image (H, W, 3) as an artifact computes them.

    The image is resized by the very code that resizes for artifacts, and the decoder's logits are upsampled to the
    image's own size in one step.
    """
    resized = resize_image(image, input_size(size, network.size_multiple))
    return network.decode(network.features(_to_tensor(resized, device)), (image.shape[0], image.shape[1]))


def _to_tensor(image: np.ndarray, device: torch.device) -> Tensor:
    return to_float_images(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].to(device))


def _sides(size: tuple[int, int]) -> str:
    return f"{size[1]}×{size[0]}"
