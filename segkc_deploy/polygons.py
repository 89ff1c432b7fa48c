"""Masks as polygons: for each region of a class its outline, along the edges of the pixels."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from segkc_deploy.labels import Labels


@dataclass(frozen=True)
class Polygon:
    """One region of a class: pixels that touch by a side or a corner.

    Attributes:
        class_id: the class.
        rings: the outline and then one ring for each hole, each float64 (points, 2): x to the right and y down, in
            pixels from the image's upper left corner. The last point of a ring is joined to its first one. A ring may
            touch itself at a corner between pixels; the inside is by the even-odd rule.
    """

    class_id: int
    rings: tuple[np.ndarray, ...]


def mask_polygons(mask: np.ndarray, num_classes: int, tolerance: float = 0.0, min_area: float = 0.0) -> list[Polygon]:
    """Return the regions of a mask as polygons.

    With a tolerance of 0 they are exact: filled by the even-odd rule they give the mask back.

    Args:
        mask: uint8 (H, W) class ids; other values are left out.
        num_classes: class ids are below this number.
        tolerance: how far, in pixels, an outline may be from the exact one, to have fewer points (Douglas-Peucker).
        min_area: regions and holes of fewer pixels are left out.
    """
    found = []
    for class_id in np.flatnonzero(np.bincount(mask.ravel(), minlength=256)[:num_classes]).tolist():
        region = (mask == class_id).view(np.uint8)
        left, top, width, height = cv2.boundingRect(region)
        inner = region[top : top + height, left : left + width]
        for rings in _trace(inner):
            kept = [_simplify(ring, tolerance) for ring in rings if outline_area(ring) >= min_area]
            if kept and outline_area(rings[0]) >= min_area:
                found.append(Polygon(class_id, tuple(ring + np.array([left, top]) for ring in kept)))
    return found


def geojson(polygons: list[Polygon], labels: Labels, confidence: dict[int, float] | None = None) -> dict[str, Any]:
    """Return a GeoJSON FeatureCollection: one Polygon feature a region, in pixel coordinates.

    The properties are `class_id`, `class`, `color` (`#rrggbb`) and, of the classes in `confidence`, their mean
    `confidence` (0-1).
    """
    return {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "properties": {
                    "class_id": polygon.class_id,
                    "class": labels.names[polygon.class_id],
                    "color": "#{:02x}{:02x}{:02x}".format(*labels.palette[polygon.class_id]),
                }
                | ({"confidence": confidence[polygon.class_id]} if confidence else {}),
                "geometry": {"type": "Polygon", "coordinates": [_closed(ring) for ring in polygon.rings]},
            }
            for polygon in polygons
        ],
    }


def _trace(region: np.ndarray) -> list[list[np.ndarray]]:
    """Return for each region of nonzero pixels the outline and its holes, in order along the pixels' edges.

    OpenCV's contours run through the centers of border pixels. With each pixel doubled, an even coordinate lies at a
    pixel's left or upper edge and an odd one at the other, so that halving, rounded up, gives the edges themselves.
    """
    doubled = cv2.resize(region, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = [_corners((contour[:, 0, :].astype(np.float64) + 1) // 2) for contour in contours]
    parents = hierarchy[0, :, 3].tolist() if hierarchy is not None else []
    groups = {index: [ring] for index, (ring, parent) in enumerate(zip(rings, parents, strict=True)) if parent < 0}
    for ring, parent in zip(rings, parents, strict=True):
        if parent >= 0:
            groups[parent].append(ring)
    return list(groups.values())


def _corners(points: np.ndarray) -> np.ndarray:
    """Drop points that repeat the one before them or lie on a straight line between their neighbors."""
    points = points[(points != np.roll(points, 1, axis=0)).any(axis=1)]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    return points[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]


def _simplify(ring: np.ndarray, tolerance: float) -> np.ndarray:
    if tolerance <= 0:
        return ring
    simple = cv2.approxPolyDP(ring.astype(np.float32)[:, None], tolerance, closed=True)[:, 0].astype(np.float64)
    return simple if len(simple) >= 3 else ring


def outline_area(ring: np.ndarray) -> float:
    """Return the pixels inside a ring, float64 (points, 2), holes not considered (shoelace formula)."""
    following = np.roll(ring, -1, axis=0)
    return float(abs((ring[:, 0] * following[:, 1] - following[:, 0] * ring[:, 1]).sum()) / 2)


def _closed(ring: np.ndarray) -> list[list[float]]:
    points: list[list[float]] = ring.tolist()
    return [*points, points[0]]
