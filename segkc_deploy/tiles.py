"""Predict large images window by window, at full resolution, in memory that does not grow with the image.

Windows slide over the image as in published evaluation protocols: each has the network's size, the next one begins two
thirds of it further on, and the last one of a row or column ends at the border. An image smaller than the window is
padded right and below with black.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from segkc_deploy.blending import Blend, NearestMiddle, SummedProbabilities
from segkc_deploy.errors import ArtifactError, ConfigError
from segkc_deploy.predictor import Predictor

#: Called as read(top, left, height, width); returns that part of the image, uint8 (height, width, 3) RGB.
Read = Callable[[int, int, int, int], np.ndarray]
#: Called as write(top, left, mask) with parts of the mask, uint8 (h, w), that do not overlap.
Write = Callable[[int, int, np.ndarray], None]

#: An image is worked through in panels of full height. Their columns and the rows that are written at a time are
#: multiples of this, so that files stored in blocks of 512 pixels are written block by block.
BLOCK = 512

#: About how much memory the scores of a panel may take.
_PANEL_BYTES = 192 * 2**20


@dataclass(frozen=True)
class Tiling:
    """How windows lie over an image; sizes are (height, width) in pixels.

    Raises:
        ConfigError: the stride leaves gaps.
    """

    image: tuple[int, int]
    window: tuple[int, int]
    stride: tuple[int, int]

    def __post_init__(self) -> None:
        if any(not 1 <= step <= side for step, side in zip(self.stride, self.window, strict=True)):
            raise ConfigError(
                f"a stride of {self.stride[1]}x{self.stride[0]} pixels is not possible with windows of"
                f" {self.window[1]}x{self.window[0]}; use one from 1 to the window's size"
            )

    def starts(self, axis: int) -> list[int]:
        """Return where windows begin along an axis (0 down, 1 across)."""
        return window_starts(max(self.image[axis], self.window[axis]), self.window[axis], self.stride[axis])


def window_starts(side: int, window: int, stride: int) -> list[int]:
    """Return where windows begin along a side: every `stride` pixels, the last one ending at the border."""
    return [*range(0, side - window, stride), side - window]


def default_stride(window: tuple[int, int]) -> tuple[int, int]:
    """Return two thirds of the window, as published protocols step."""
    return max(window[0] * 2 // 3, 1), max(window[1] * 2 // 3, 1)


def predict_tiled(
    predictor: Predictor, image: np.ndarray, stride: tuple[int, int] | None = None, batch_size: int = 1
) -> np.ndarray:
    """Return the mask, uint8 (H, W), of an image, uint8 (H, W, 3) RGB, predicted in windows of the network's size.

    Where the artifact gives `logits`, the softmax of all windows that show a pixel is summed, as evaluation protocols
    do. Otherwise each pixel's class is that of the window whose middle is nearest.

    Args:
        predictor: what predicts.
        image: the image.
        stride: (down, across) in pixels from window to window; two thirds of the window if None.
        batch_size: windows that run at once, where the artifact leaves that open.

    Raises:
        ConfigError: the stride leaves gaps.
    """
    mask = np.empty(image.shape[:2], np.uint8)
    _predict_array(predictor, image, stride, batch_size, mask, None)
    return mask


def predict_tiled_with_confidence(
    predictor: Predictor, image: np.ndarray, stride: tuple[int, int] | None = None, batch_size: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mask of `predict_tiled` and the confidence, float32 (H, W), 0-1.

    From `logits` it is the mean, over the windows that show a pixel, of the probability of its class; otherwise what
    the artifact's `confidence` says in the window whose middle is nearest.

    Raises:
        ArtifactError: the artifact gives neither.
        ConfigError: the stride leaves gaps.
    """
    require_tiled_confidence(predictor)
    mask, confidence = np.empty(image.shape[:2], np.uint8), np.empty(image.shape[:2], np.float32)
    _predict_array(predictor, image, stride, batch_size, mask, confidence)
    return mask, confidence


def require_tiled_confidence(predictor: Predictor) -> None:
    """Raise an ArtifactError unless an artifact gives a confidence in tiles."""
    if {output.name for output in predictor.contract.outputs}.isdisjoint({"logits", "confidence"}):
        name = predictor.manifest.artifact if predictor.manifest else "the network"
        raise ArtifactError(f"{name}: gives no confidence; export it with --outputs logits, or masks,confidence")


def _predict_array(
    predictor: Predictor,
    image: np.ndarray,
    stride: tuple[int, int] | None,
    batch_size: int,
    mask: np.ndarray,
    confidence: np.ndarray | None,
) -> None:
    """Fill `mask` and `confidence` for an image in memory."""

    def read(top: int, left: int, rows: int, columns: int) -> np.ndarray:
        return image[top : top + rows, left : left + columns]

    def into(whole: np.ndarray) -> Write:
        def write(top: int, left: int, part: np.ndarray) -> None:
            whole[top : top + part.shape[0], left : left + part.shape[1]] = part

        return write

    window = predictor.contract.size
    height, width = image.shape[:2]
    tiling = Tiling((height, width), window, stride or default_stride(window))
    write_confidence = None if confidence is None else into(confidence)
    for _ in predict_windows(predictor, tiling, read, into(mask), batch_size, write_confidence):
        pass


def predict_windows(
    predictor: Predictor,
    tiling: Tiling,
    read: Read,
    write: Write,
    batch_size: int = 1,
    write_confidence: Write | None = None,
) -> Iterator[float]:
    """Predict an image that is read and written in parts; yield after each row of windows the share that is done.

    Args:
        predictor: what predicts.
        tiling: how windows lie over the image.
        read, write: see `Read` and `Write`.
        batch_size: windows that run at once, where the artifact leaves that open.
        write_confidence: called like `write` with the confidence, float32 (h, w), 0-1.
    """
    batch_size = predictor.batch_size(batch_size)
    panels = _panels(tiling, predictor.labels.num_classes)
    for place, (first, last) in enumerate(panels):
        for done in _predict_panel(predictor, tiling, (first, last), read, (write, write_confidence), batch_size):
            yield (place + done) / len(panels)


def _panels(tiling: Tiling, classes: int) -> list[tuple[int, int]]:
    """Return the first column of each panel and the one after its last."""
    width = _PANEL_BYTES // (tiling.window[0] * classes * np.dtype(np.float32).itemsize)
    width = max(width, tiling.window[1], BLOCK) // BLOCK * BLOCK
    across = tiling.image[1]
    return [(first, min(first + width, across)) for first in range(0, across, width)]


def _predict_panel(
    predictor: Predictor,
    tiling: Tiling,
    columns: tuple[int, int],
    read: Read,
    writes: tuple[Write, Write | None],
    batch_size: int,
) -> Iterator[float]:
    """Predict the columns from the first up to the last; a window that shows a part of them is run whole."""
    first, last = columns
    height, window = tiling.image[0], tiling.window
    tops = tiling.starts(0)
    lefts = [left for left in tiling.starts(1) if left < last and left + window[1] > first]
    blend = _blend_for(predictor, tiling, last - first)
    write, write_confidence = writes
    masks = _RowWriter(write, first, height)
    confidences = None if write_confidence is None else _RowWriter(write_confidence, first, height)
    for place, top in enumerate(tops):
        for start in range(0, len(lefts), batch_size):
            some = lefts[start : start + batch_size]
            batch = np.stack([_window(tiling, read, top, left) for left in some])
            outputs = predictor.infer(batch)
            for index, left in enumerate(some):
                blend.add({name: values[index] for name, values in outputs.items()}, top, left, left - first)
        following = tops[place + 1] if place + 1 < len(tops) else height
        rows = min(following, height) - top
        if confidences is not None:
            confidences.add(blend.confidence(rows))
        masks.add(blend.take(rows))
        yield (place + 1) / len(tops)


def _blend_for(predictor: Predictor, tiling: Tiling, width: int) -> Blend:
    if any(output.name == "logits" for output in predictor.contract.outputs):
        classes, align = predictor.labels.num_classes, predictor.contract.align_corners
        return SummedProbabilities(tiling.window, width, classes, align)
    return NearestMiddle(tiling.window, width, tiling.starts(0), tiling.starts(1))


def _window(tiling: Tiling, read: Read, top: int, left: int) -> np.ndarray:
    """Return a window's pixels, black where it reaches beyond a small image."""
    height, width = (min(size, side) for size, side in zip(tiling.window, tiling.image, strict=True))
    pixels = read(top, left, height, width)
    if (height, width) == tiling.window:
        return pixels
    padded = np.zeros((*tiling.window, 3), np.uint8)
    padded[:height, :width] = pixels
    return padded


class _RowWriter:
    """Gathers finished rows of a panel and writes them when they fill rows of blocks."""

    def __init__(self, write: Write, left: int, height: int) -> None:
        self._write = write
        self._left = left
        self._height = height
        self._top = 0
        self._rows: list[np.ndarray] = []

    def add(self, rows: np.ndarray) -> None:
        self._rows.append(rows)
        gathered = sum(len(part) for part in self._rows)
        whole = gathered if self._top + gathered == self._height else gathered // BLOCK * BLOCK
        if whole:
            together = np.concatenate(self._rows)
            self._write(self._top, self._left, together[:whole])
            self._rows = [together[whole:]]
            self._top += whole
