"""What drawn scenes are made with: a brush that paints colors and a label together, color families, and textures.

Textures are multiplicative float32 fields around 1. Images are RGB uint8; points are (x, y) in pixels.
"""

from collections.abc import Sequence

import cv2
import numpy as np

Rng = np.random.Generator
Color = tuple[int, int, int]
Point = tuple[float, float]

#: Families are shared between the classes on purpose: a color alone must not give a class away.
FAMILIES: dict[str, tuple[Color, ...]] = {
    "grey": ((70, 72, 76), (110, 110, 112), (150, 150, 148), (190, 192, 196)),
    "earth": ((96, 70, 48), (140, 108, 76), (184, 156, 116), (204, 186, 150)),
    "green": ((46, 78, 40), (70, 106, 52), (104, 132, 66), (132, 150, 88)),
    "blue": ((56, 84, 130), (92, 132, 180), (150, 184, 214), (70, 100, 112)),
    "red": ((140, 50, 42), (170, 80, 58), (120, 44, 60), (196, 112, 84)),
    "light": ((226, 224, 216), (240, 236, 226), (214, 220, 226), (232, 214, 180)),
    "dark": ((28, 28, 32), (44, 40, 44), (36, 46, 58), (52, 40, 32)),
    "bright": ((214, 180, 40), (210, 96, 30), (40, 140, 150), (150, 60, 130)),
}

_UNUSUAL = 0.12  # share of things whose color is not one of their class's usual ones


def pick_color(rng: Rng, *families: str, jitter: float = 14.0) -> Color:
    """Return a color of one of `families`, each channel off by a normal error of `jitter`."""
    family = FAMILIES[families[rng.integers(len(families))]]
    color = np.asarray(family[rng.integers(len(family))]) + rng.normal(0, jitter, 3) * 0.5 + rng.normal(0, jitter)
    return _as_color(color)


def body_color(rng: Rng, *families: str) -> Color:
    """Return the main color of a thing: of one of its usual `families`, or now and then of any family at all."""
    return pick_color(rng, *(FAMILIES if rng.random() < _UNUSUAL else families))


def scaled(color: Color, factor: float) -> Color:
    """Return `color` made darker (`factor` < 1) or lighter (> 1)."""
    return _as_color(np.asarray(color) * factor)


def _as_color(values: np.ndarray) -> Color:
    red, green, blue = np.clip(values, 0, 255).astype(int).tolist()
    return red, green, blue


def smooth_noise(rng: Rng, shape: tuple[int, int], cell: float) -> np.ndarray:
    """Return float32 noise of `shape` with mean 0 and deviation of about 1 whose spots measure `cell` pixels."""
    height, width = shape
    coarse = rng.standard_normal((int(height / cell) + 2, int(width / cell) + 2), dtype=np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR) * 1.5


def speckle(rng: Rng, shape: tuple[int, int], cell: float, strength: float) -> np.ndarray:
    """Rough plaster, asphalt, earth: coarse spots under fine grain."""
    return 1 + strength * (0.6 * smooth_noise(rng, shape, cell) + 0.5 * smooth_noise(rng, shape, max(cell / 4, 1)))


def stripes(rng: Rng, shape: tuple[int, int], period: float, strength: float, vertical: bool) -> np.ndarray:
    """Corrugated metal, planks, blinds: parallel bands of one direction."""
    along = np.arange(shape[1 if vertical else 0], dtype=np.float32)
    band = 1 + strength * np.sign(np.sin(2 * np.pi * (along / period + rng.random())))
    return np.broadcast_to(band[None, :] if vertical else band[:, None], shape)


def bricks(rng: Rng, shape: tuple[int, int], course: int, strength: float) -> np.ndarray:
    """Courses of bricks, `course` pixels high and twice as wide, with joints and a shade of each brick's own."""
    rows, columns = np.indices(shape, sparse=True)
    course_index = rows // course
    shifted = columns + (course_index % 2) * course
    shades = 1 + strength * 0.6 * rng.standard_normal((shape[0] // course + 1, shape[1] // (2 * course) + 2))
    field = shades[course_index, shifted // (2 * course)]
    joint = (rows % course == 0) | (shifted % (2 * course) == 0)
    return np.where(joint, 1 - 1.5 * strength, field).astype(np.float32)


def leaves(rng: Rng, shape: tuple[int, int], cell: float, strength: float) -> np.ndarray:
    """Foliage: dark gaps and bright tips over clumps."""
    fine = smooth_noise(rng, shape, max(cell, 1))
    return 1 + strength * (0.5 * smooth_noise(rng, shape, cell * 5) + np.where(fine > 0.5, 0.9, -0.5))


class Brush:
    """Paints one object: its colors into `layer`, its outline into `region`.

    `layer` starts as a copy of the picture so far; what is outside `region` in the end is thrown away.
    """

    def __init__(self, picture: np.ndarray, rng: Rng):
        self.layer = picture.copy()
        self.region: np.ndarray = np.zeros(picture.shape[:2], np.uint8)
        self.rng = rng

    @property
    def shape(self) -> tuple[int, int]:
        return self.region.shape[0], self.region.shape[1]

    def polygon(self, points: Sequence[Point], color: Color) -> None:
        corners = np.rint(np.asarray(points)).astype(np.int32)
        cv2.fillPoly(self.layer, [corners], color)
        cv2.fillPoly(self.region, [corners], 1)

    def box(self, left: float, top: float, right: float, bottom: float, color: Color) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], color)

    def ellipse(self, center: Point, radii: Point, color: Color, angle: float = 0) -> None:
        whole = (round(center[0]), round(center[1])), (max(1, round(radii[0])), max(1, round(radii[1])))
        cv2.ellipse(self.layer, *whole, angle, 0, 360, color, -1)
        cv2.ellipse(self.region, *whole, angle, 0, 360, 1, -1)

    def line(self, start: Point, end: Point, width: float, color: Color) -> None:
        ends = (round(start[0]), round(start[1])), (round(end[0]), round(end[1]))
        cv2.line(self.layer, *ends, color, max(1, round(width)))
        cv2.line(self.region, *ends, 1, max(1, round(width)))

    def panel(self, flat: np.ndarray, corners: Sequence[Point], opaque: np.ndarray | None = None) -> None:
        """Lay the RGB picture `flat` onto the quadrilateral `corners` (clockwise from the top left).

        Where `opaque` (the size of `flat`) is 0 what lies behind shows through, but belongs to the object all the same.
        """
        points = np.rint(np.asarray(corners)).astype(np.int32)
        left, top = np.maximum(points.min(axis=0), 0).tolist()
        right, bottom = np.minimum(points.max(axis=0) + 1, self.shape[::-1]).tolist()
        if left >= right or top >= bottom:  # outside the picture
            return
        size = right - left, bottom - top
        height, width = flat.shape[:2]
        source = np.asarray([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
        matrix = cv2.getPerspectiveTransform(
            source, np.asarray(corners, np.float32) - np.asarray((left, top), np.float32)
        )
        inside = np.zeros(size[::-1], np.uint8)
        cv2.fillPoly(inside, [points - (left, top)], 1)
        painted = inside
        if opaque is not None:
            painted = inside & cv2.warpPerspective(opaque, matrix, size, flags=cv2.INTER_NEAREST)
        warped = cv2.warpPerspective(flat, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        area = np.s_[top:bottom, left:right]
        cv2.copyTo(warped, painted, self.layer[area])
        self.region[area] |= inside

    def shade(self, texture: np.ndarray) -> None:
        """Multiply everything painted so far by a texture of the picture's size."""
        left, top, width, height = cv2.boundingRect(self.region)
        area = np.s_[top : top + height, left : left + width]
        self.layer[area] = np.clip(self.layer[area] * texture[area][..., None], 0, 255)
