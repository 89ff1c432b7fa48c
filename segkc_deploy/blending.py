"""Join what overlapping windows say about the same pixels."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import numpy as np


class Blend(ABC):
    """A band of an image's rows, as high as a window, that moves down as its rows are finished.

    Args:
        window: (height, width) of a window in pixels.
        width: of the band, in pixels.
    """

    def __init__(self, window: tuple[int, int], width: int) -> None:
        self._window = window
        self._width = width

    @abstractmethod
    def add(self, outputs: dict[str, np.ndarray], top: int, left: int, column: int) -> None:
        """Add one window at the band's present place.

        Args:
            outputs: the network's outputs for it, without the batch axis.
            top, left: where the window begins in the image.
            column: where it begins in the band; negative where it begins before, and it may end after it.
        """

    @abstractmethod
    def take(self, rows: int) -> np.ndarray:
        """Return the mask of the first `rows` rows, uint8 (rows, width), and move the band down by as many."""

    @abstractmethod
    def confidence(self, rows: int) -> np.ndarray:
        """Return the confidence (0-1) of the first `rows` rows, float32 (rows, width), before they are taken."""

    def _common(self, column: int) -> tuple[slice, slice]:
        """Return which columns window and band have in common: in the window, in the band."""
        start, stop = max(column, 0), min(column + self._window[1], self._width)
        return slice(start - column, stop - column), slice(start, stop)


class SummedProbabilities(Blend):
    """The class with the largest sum, over all windows that show a pixel, of the softmax of their logits.

    Plain sums, as UniMatch V2 evaluates (arXiv 2410.10777, its public code).

    Args:
        window, width: see `Blend`.
        classes: how many there are.
        align_corners: how the network's logits are upsampled to the window.
    """

    def __init__(self, window: tuple[int, int], width: int, classes: int, align_corners: bool) -> None:
        super().__init__(window, width)
        self._align_corners = align_corners
        self._sums = np.zeros((window[0], width, classes), np.float32)

    def add(self, outputs: dict[str, np.ndarray], top: int, left: int, column: int) -> None:
        """See `Blend.add`."""
        within, here = self._common(column)
        logits = upsample(outputs["logits"], self._window, self._align_corners)[:, within]
        logits -= logits.max(axis=2, keepdims=True)
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=2, keepdims=True)
        self._sums[:, here] += logits

    def confidence(self, rows: int) -> np.ndarray:
        """See `Blend.confidence`: the mean probability of the class over the windows."""
        sums = self._sums[:rows]
        # The probabilities of one window sum up to one.
        mean: np.ndarray = sums.max(axis=2) / sums.sum(axis=2)
        return mean

    def take(self, rows: int) -> np.ndarray:
        """See `Blend.take`; of equal sums the first class wins."""
        mask = self._sums[:rows].argmax(axis=2).astype(np.uint8)
        self._sums[: len(self._sums) - rows] = self._sums[rows:]
        self._sums[len(self._sums) - rows :] = 0
        return mask


class NearestMiddle(Blend):
    """For each pixel the class that the window with the nearest middle gives; for networks that give masks alone.

    Args:
        window, width: see `Blend`.
        tops, lefts: where all windows of the image begin.
    """

    def __init__(self, window: tuple[int, int], width: int, tops: Sequence[int], lefts: Sequence[int]) -> None:
        super().__init__(window, width)
        self._rows = _shares(tops, window[0])
        self._columns = _shares(lefts, window[1])
        self._mask = np.zeros((window[0], width), np.uint8)
        self._confidence = np.zeros((window[0], width), np.float32)

    def add(self, outputs: dict[str, np.ndarray], top: int, left: int, column: int) -> None:
        """See `Blend.add`."""
        within, here = self._common(column)
        first, last = self._columns[left]
        start, stop = max(first, within.start), min(last, within.stop)
        if start < stop:
            rows, columns = slice(*self._rows[top]), slice(start + here.start - within.start, stop + column)
            self._mask[rows, columns] = outputs["masks"][rows, start:stop]
            if "confidence" in outputs:
                self._confidence[rows, columns] = outputs["confidence"][rows, start:stop]

    def confidence(self, rows: int) -> np.ndarray:
        """See `Blend.confidence`; for networks that give one."""
        return self._confidence[:rows].copy()

    def take(self, rows: int) -> np.ndarray:
        """See `Blend.take`."""
        taken = self._mask[:rows].copy()
        for values in (self._mask, self._confidence):
            values[: len(values) - rows] = values[rows:].copy()
        return taken


def upsample(logits: np.ndarray, size: tuple[int, int], align_corners: bool) -> np.ndarray:
    """Return logits, float32 (h, w, C), interpolated (bilinear) to `size` (height, width), as a new array."""
    for axis, length in enumerate(size):
        if logits.shape[axis] == length:
            continue
        before, after, weight = _neighbors(logits.shape[axis], length, align_corners)
        weight = weight[:, None, None] if axis == 0 else weight[None, :, None]
        start = logits.take(before, axis)
        logits = start + (logits.take(after, axis) - start) * weight
    return np.array(logits, np.float32)


def _neighbors(length: int, pixels: int, align_corners: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each output pixel the values on either side of it, and the weight of the second."""
    centers = np.arange(pixels)
    if align_corners:
        position = centers * ((length - 1) / max(pixels - 1, 1))
    else:
        position = np.maximum((centers + 0.5) * (length / pixels) - 0.5, 0)
    before = np.minimum(np.floor(position).astype(np.intp), length - 1)
    return before, np.minimum(before + 1, length - 1), (position - before).astype(np.float32)


def _shares(starts: Sequence[int], window: int) -> dict[int, tuple[int, int]]:
    """Return for each window along an axis, by where it begins, its pixels whose nearest middle it has: first, last."""
    borders = [0, *((one + other + window + 1) // 2 for one, other in pairwise(starts))]
    ends = [*borders[1:], starts[-1] + window]
    return {start: (border - start, end - start) for start, border, end in zip(starts, borders, ends, strict=True)}
