"""What every annotation format comes down to: labeled regions of an image, in the order in which they are painted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from segkc_deploy.errors import DataError, MissingDependencyError

#: Points may lie outside the image by as much as its own size; farther ones are damaged numbers.
_FARTHEST_OUTSIDE = 1.0

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Polygons:
    """Polygons of (x, y) points in pixels, from the image's top left corner, united, less the `holes`."""

    label: str
    parts: tuple[Points, ...]
    holes: tuple[Points, ...] = ()

    def region(self, size: tuple[int, int]) -> np.ndarray:
        """Return the bool (height, width) region, rasterized by pycocotools as COCO and CVAT do."""
        region = _filled(self.parts, size)
        if self.holes:
            region &= ~_filled(self.holes, size)
        return region


@dataclass(frozen=True)
class RunLengths:
    """COCO's run lengths down the columns, beginning with zeros; `counts` is a list or COCO's compressed string."""

    label: str
    counts: Sequence[int] | str | bytes

    def region(self, size: tuple[int, int]) -> np.ndarray:
        """Return the bool (height, width) region; raise a DataError where the runs do not fill it exactly."""
        counts = _uncompressed(self.counts) if isinstance(self.counts, str | bytes) else self.counts
        height, width = size
        if any(count < 0 for count in counts) or sum(counts) != height * width:
            raise DataError(
                f"a run-length mask of {self.label!r} does not have the {width}x{height} pixels of its image"
            )
        return _of_runs(counts, size)


@dataclass(frozen=True)
class Bitmap:
    """A bool (H, W) region whose top left pixel is at (left, top); what lies outside the image is cut off."""

    label: str
    pixels: np.ndarray
    left: int = 0
    top: int = 0

    def region(self, size: tuple[int, int]) -> np.ndarray:
        """Return the bool (height, width) region."""
        region = np.zeros(size, bool)
        height, width = self.pixels.shape
        top, left = max(self.top, 0), max(self.left, 0)
        bottom, right = min(self.top + height, size[0]), min(self.left + width, size[1])
        if top < bottom and left < right:
            inside = self.pixels[top - self.top : bottom - self.top, left - self.left : right - self.left]
            region[top:bottom, left:right] = inside
        return region


Shape = Polygons | RunLengths | Bitmap


@dataclass(frozen=True)
class AnnotatedImage:
    """The shapes of one image, the lowest first, and the size (height, width) that their coordinates refer to."""

    name: str
    size: tuple[int, int]
    shapes: tuple[Shape, ...]


def ellipse(center: tuple[float, float], radii: tuple[float, float], rotation: float = 0.0) -> Points:
    """Return an ellipse as a polygon of 72 points; `rotation` in degrees, clockwise as image axes are."""
    angle = math.radians(rotation)
    turns = [2 * math.pi * step / 72 for step in range(72)]
    offsets = [(radii[0] * math.cos(turn), radii[1] * math.sin(turn)) for turn in turns]
    return [_rotated((center[0] + x, center[1] + y), center, angle) for x, y in offsets]


def rectangle(
    left: float,
    top: float,
    right: float,
    bottom: float,
    rotation: float = 0.0,
    about: Literal["corner", "center"] = "corner",
) -> Points:
    """Return a rectangle as a polygon; `rotation` in degrees, clockwise about the top left corner or the center."""
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    pivot = (left, top) if about == "corner" else ((left + right) / 2, (top + bottom) / 2)
    return [_rotated(corner, pivot, math.radians(rotation)) for corner in corners]


def _rotated(point: tuple[float, float], center: tuple[float, float], angle: float) -> tuple[float, float]:
    x, y = point[0] - center[0], point[1] - center[1]
    cosine, sine = math.cos(angle), math.sin(angle)
    return center[0] + x * cosine - y * sine, center[1] + x * sine + y * cosine


def _filled(parts: Sequence[Points], size: tuple[int, int]) -> np.ndarray:
    height, width = size
    flat = [[float(value) for point in part for value in point] for part in parts if len(part) > 2]
    for polygon in flat:
        _require_near(polygon, size)
    if not flat:
        return np.zeros(size, bool)
    coco_mask = _pycocotools()
    merged = coco_mask.merge(coco_mask.frPyObjects(flat, height, width))
    # Its own decoder uses what NumPy has deprecated.
    return _of_runs(_uncompressed(merged["counts"]), size)


def _of_runs(counts: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    height, width = size
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T


def _require_near(polygon: list[float], size: tuple[int, int]) -> None:
    height, width = size
    for values, side in ((polygon[::2], width), (polygon[1::2], height)):
        margin = _FARTHEST_OUTSIDE * side + 1
        for value in values:
            if not -margin <= value <= side + margin:  # also where it is NaN
                raise DataError(f"a point has the coordinate {value:g}, far outside the {width}x{height} image")


def _pycocotools() -> Any:
    try:
        from pycocotools import mask
    except ImportError:
        raise MissingDependencyError('polygons need pycocotools: `pip install "segkc-deploy[annotations]"`') from None
    return mask


def _uncompressed(text: str | bytes) -> list[int]:
    """Return the run lengths of COCO's string: 6 bits a character, each count from the third on a difference."""
    data = text.encode("ascii", "replace") if isinstance(text, str) else text
    counts: list[int] = []
    value = shift = 0
    for character in data:
        bits = character - 48
        if not 0 <= bits < 64 or shift > 30:
            raise DataError("a compressed run-length mask is damaged")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts
