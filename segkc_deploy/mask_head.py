"""From low-resolution logits to a mask of any size, without the full-resolution logits.

Bilinear interpolation cannot change the winner in a cell whose four corners agree on it: every class's score there is
a weighted mean of its corners' scores. So the mask is the corners' class in those cells, and only the others, along
the borders between classes, are computed.
"""

from dataclasses import dataclass

import numpy as np

#: Pixels computed at once; bounds the memory that it takes.
_PIXELS_AT_ONCE = 1 << 17


def mask_from_logits(logits: np.ndarray, size: tuple[int, int], align_corners: bool) -> np.ndarray:
    """Return the argmax of the bilinearly upsampled logits; of equal scores the first class wins.

    The same as upsampling every logit, but for rounding: only a pixel whose two best scores differ by less than
    2e-6 of the largest absolute logit can get the second one.

    Args:
        logits: float32 (h, w, C), channels last, at the decoder's own resolution.
        size: (height, width) of the mask, larger or smaller than the logits.
        align_corners: whether the corners of logits and mask coincide; else pixel centers are aligned.

    Returns:
        uint8 (height, width) class ids.
    """
    rows = cells_along(logits.shape[0], size[0], align_corners)
    columns = cells_along(logits.shape[1], size[1], align_corners)
    winner = logits.argmax(axis=2).astype(np.uint8)
    top, bottom = winner[rows.before], winner[rows.after]
    corner = top[:, columns.before]
    mixed = corner != top[:, columns.after]
    mixed |= corner != bottom[:, columns.before]
    mixed |= corner != bottom[:, columns.after]
    mixed &= (rows.count > 0)[:, None] & (columns.count > 0)
    mask = np.repeat(np.repeat(corner, columns.count, axis=1), rows.count, axis=0)
    row, column = np.nonzero(mixed)
    at_once = max(_PIXELS_AT_ONCE // (rows.most * columns.most), 1)
    for start in range(0, len(row), at_once):
        part = slice(start, start + at_once)
        _compute_cells(mask, logits, rows, columns, row[part], column[part])
    return mask


@dataclass(frozen=True)
class Cells:
    """The cells between neighboring logits along one axis, half a cell beyond either end included.

    Attributes:
        before, after: the logits on either side of each cell.
        first, count: the output pixels in each cell.
        weight: (most, cells) weight of `after` at the cell's pixels, its last one repeated.
    """

    before: np.ndarray
    after: np.ndarray
    first: np.ndarray
    count: np.ndarray
    weight: np.ndarray

    @property
    def most(self) -> int:
        return len(self.weight)

    def pixels(self, cells: np.ndarray) -> np.ndarray:
        """Return (most, len(cells)) output pixels of `cells`, a cell's last one repeated."""
        return self.first[cells] + np.minimum(np.arange(self.most)[:, None], self.count[cells] - 1)


def cells_along(length: int, pixels: int, align_corners: bool) -> Cells:
    """Return the cells between `length` logits along an axis of `pixels` output pixels."""
    centers = np.arange(pixels)
    if align_corners:
        position = centers * ((length - 1) / max(pixels - 1, 1))
    else:
        position = (centers + 0.5) * (length / pixels) - 0.5
    # Cell 0 lies before the first logit, cell `length` behind the last one.
    cell = np.floor(position).astype(np.intp) + 1
    edge = np.arange(length + 1)
    first = np.searchsorted(cell, edge)
    count = np.searchsorted(cell, edge, side="right") - first
    inside = np.minimum(np.arange(count.max())[:, None], np.maximum(count - 1, 0))
    weight = (position - np.floor(position)).astype(np.float32)[np.minimum(first + inside, pixels - 1)]
    return Cells(np.maximum(edge - 1, 0), np.minimum(edge, length - 1), first, count, weight)


def _compute_cells(
    mask: np.ndarray, logits: np.ndarray, rows: Cells, columns: Cells, row: np.ndarray, column: np.ndarray
) -> None:
    """Write the pixels of the cells (`row`, `column`) into `mask`."""
    _, width, num_classes = logits.shape
    above, below = rows.before[row] * width, rows.after[row] * width
    left, right = columns.before[column], columns.after[column]
    corners = np.stack([above + left, above + right, below + left, below + right])
    possible = _possible_winners(logits.reshape(-1, num_classes)[corners])
    # Cells with many candidates first: those that have a further one are then the beginning, a view.
    count = possible.sum(axis=1)
    order = np.argsort(-count, kind="stable")
    row, column, corners, count = row[order], column[order], corners[:, order] * num_classes, count[order]
    candidates = np.nonzero(possible[order])[1]
    begin = np.cumsum(count) - count
    down, across = rows.weight[:, None, row], columns.weight[:, column]

    shape = (rows.most, columns.most, len(row))
    best, classes = np.full(shape, -np.inf, dtype=np.float32), np.zeros(shape, dtype=np.uint8)
    for rank in range(count[0]):
        cells = np.searchsorted(-count, -rank)
        candidate = candidates[begin[:cells] + rank]
        top_left, top_right, bottom_left, bottom_right = logits.reshape(-1)[corners[:, :cells] + candidate]
        start = top_left + (bottom_left - top_left) * down[..., :cells]
        end = top_right + (bottom_right - top_right) * down[..., :cells]
        score = (end - start) * across[:, :cells]
        score += start
        best_so_far = best[..., :cells]
        np.copyto(classes[..., :cells], candidate.astype(np.uint8), where=score > best_so_far)
        np.maximum(score, best_so_far, out=best_so_far)
    mask.reshape(-1)[rows.pixels(row)[:, None] * mask.shape[1] + columns.pixels(column)] = classes


def _possible_winners(corners: np.ndarray) -> np.ndarray:
    """Return bool (cells, C): all classes but those that are below another one's worst corner at every corner.

    Args:
        corners: (4, cells, C) scores.
    """
    possible: np.ndarray = corners.max(axis=0) >= corners.min(axis=0).max(axis=1, keepdims=True)
    return possible
