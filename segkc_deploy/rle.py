"""COCO's run-length encoding of masks."""

from typing import Any

import numpy as np


def coco_rle(region: np.ndarray) -> dict[str, Any]:
    """Return a binary mask in COCO's compressed run-length encoding, as pycocotools' `mask.decode` takes it.

    Args:
        region: (H, W), true inside; column by column, as COCO counts.

    Returns:
        `size` [height, width] and `counts`, ASCII.
    """
    flat = np.asarray(region, dtype=bool).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], changes, [flat.size]])
    runs = np.diff(edges).tolist()
    if flat.size and flat[0]:
        runs = [0, *runs]  # the first run is of zeros
    return {"size": list(region.shape), "counts": _compressed(runs)}


def _compressed(runs: list[int]) -> str:
    """Return runs as COCO writes them: differences to the run two before, five bits a character, lowest first."""
    text = []
    for position, run in enumerate(runs):
        value = run - runs[position - 2] if position > 2 else run
        while True:
            bits, value = value & 0x1F, value >> 5
            more = value != -1 if bits & 0x10 else value != 0
            text.append(chr(bits + 0x20 * more + 48))
            if not more:
                break
    return "".join(text)
