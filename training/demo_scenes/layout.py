"""What stands where in a drawn scene: sky, ground, skyline, street sides, and things at any distance."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import cv2
import numpy as np

from segkc_deploy.training.demo_scenes.brush import (
    Brush,
    Color,
    Point,
    Rng,
    bricks,
    leaves,
    pick_color,
    smooth_noise,
    speckle,
    stripes,
)
from segkc_deploy.training.demo_scenes.objects import (
    draw_building,
    draw_fence,
    draw_person,
    draw_pole,
    draw_tree,
    draw_vehicle,
)

#: Class names and the colors of their overlays; a class's id is its place here.
CLASSES: dict[str, Color] = {
    "sky": (122, 176, 224),
    "ground": (120, 92, 132),
    "building": (158, 84, 60),
    "fence": (222, 172, 104),
    "tree": (84, 142, 58),
    "pole": (236, 214, 60),
    "vehicle": (40, 62, 168),
    "person": (220, 40, 74),
}

_ID = {name: index for index, name in enumerate(CLASSES)}


def compose(rng: Rng, height: int, width: int) -> "Scene":
    """Return a scene of that size in pixels, without light or the camera's faults."""
    scene = Scene(
        rng=rng,
        picture=np.zeros((height, width, 3), np.uint8),
        mask=np.zeros((height, width), np.uint8),
        horizon=int(height * rng.uniform(0.3, 0.5)),
        camera_height=rng.uniform(1.5, 2.6),
        haze=rng.uniform(0.4, 0.7) if rng.random() < 0.2 else rng.uniform(0.05, 0.3),
    )
    _sky(scene)
    _ground(scene)
    _skyline(scene)
    _street_sides(scene)
    _objects(scene)
    return scene


@dataclass
class Scene:
    """A picture in the making (RGB uint8), with its mask of class ids; things are placed from far to near."""

    rng: Rng
    picture: np.ndarray
    mask: np.ndarray
    horizon: int
    camera_height: float  # meters above the ground
    haze: float  # share of the haze's color in things at the horizon
    haze_color: np.ndarray = field(default_factory=lambda: np.zeros(3, np.uint8))

    @property
    def height(self) -> int:
        return self.mask.shape[0]

    @property
    def width(self) -> int:
        return self.mask.shape[1]

    def base_at(self, nearness: float) -> float:
        """Return the row where things touch the ground: 0 is the horizon, 1 the lower edge of the picture."""
        return self.horizon + nearness * (self.height - self.horizon)

    def meter_at(self, nearness: float) -> float:
        """Return how many pixels a meter measures there."""
        return nearness * (self.height - self.horizon) / self.camera_height

    def place(self, name: str, nearness: float, draw: Callable[[Brush], None]) -> None:
        """Draw an object of class `name` in front of everything placed so far."""
        brush = Brush(self.picture, self.rng)
        draw(brush)
        left, top, width, height = cv2.boundingRect(brush.region)
        area = np.s_[top : top + height, left : left + width]
        haze = self.haze * (1 - nearness) ** 2
        veil = np.broadcast_to(self.haze_color, brush.layer[area].shape)
        veiled = cv2.addWeighted(brush.layer[area], 1 - haze, veil, haze, 0)
        cv2.copyTo(veiled, brush.region[area], self.picture[area])
        self.mask[area][brush.region[area] > 0] = _ID[name]


def _sky(scene: Scene) -> None:
    rng, shape = scene.rng, (scene.height // 2, scene.width // 2)
    above, below = pick_color(rng, "blue", "blue", "light"), pick_color(rng, "light")
    down = np.linspace(0, 1.6, shape[0], dtype=np.float32).clip(0, 1)[:, None, None]
    sky = np.asarray(above, np.float32) * (1 - down) + np.asarray(below, np.float32) * down
    clouds = smooth_noise(rng, shape, rng.uniform(15, 45)) + 0.5 * smooth_noise(rng, shape, 7)
    cover = np.clip(clouds - rng.uniform(0.2, 1.8), 0, 1)[..., None] * np.float32(rng.uniform(0.2, 0.9))
    sky = sky * (1 - cover) + np.asarray(pick_color(rng, "light", "grey"), np.float32) * cover
    cv2.resize(sky.clip(0, 255).astype(np.uint8), (scene.width, scene.height), dst=scene.picture)
    scene.mask[:] = _ID["sky"]
    scene.haze_color = scene.picture[scene.horizon].mean(axis=0).astype(np.uint8)


def _ground(scene: Scene) -> None:
    rng, side = scene.rng, 192
    color = pick_color(rng, "grey", "grey", "grey", "grey", "earth", "green")
    kind = rng.choice(["asphalt", "slabs", "grass", "planks"], p=[0.45, 0.25, 0.2, 0.1])
    texture = {
        "asphalt": lambda: speckle(rng, (side, side), rng.uniform(6, 20), rng.uniform(0.04, 0.14)),
        "slabs": lambda: bricks(rng, (side, side), int(rng.integers(8, 20)), rng.uniform(0.06, 0.16)),
        "grass": lambda: leaves(rng, (side, side), rng.uniform(1, 2), rng.uniform(0.1, 0.25)),
        "planks": lambda: stripes(rng, (side, side), rng.uniform(10, 24), 0.08, vertical=True),
    }[kind]()
    flat = np.clip(np.asarray(color, np.float32) * texture[..., None], 0, 255).astype(np.uint8)
    for _ in range(rng.integers(0, 4)):  # lane markings, seams, puddles
        left, span = int(rng.integers(0, side)), int(rng.integers(2, 14))
        dash = int(rng.integers(side // 8, side))
        for top in range(0, side, 2 * dash):
            flat[top : top + dash, left : left + span] = pick_color(rng, "light", "dark", "grey", jitter=5)
    vanishing, spread = rng.uniform(0.1, 0.9) * scene.width, scene.width * rng.uniform(0.8, 2.2)
    corners = [
        (vanishing - spread * 0.1, scene.horizon),
        (vanishing + spread * 0.1, scene.horizon),
        (vanishing + spread * 1.2, scene.height),
        (vanishing - spread * 1.2, scene.height),
    ]

    def draw(brush: Brush) -> None:
        brush.panel(flat, corners)
        brush.region[scene.horizon :] = 1  # beside the corners the border of the texture goes on

    scene.place("ground", 0.7, draw)


def _skyline(scene: Scene) -> None:
    """Hills of trees or a row of far houses along the horizon."""
    rng = scene.rng
    foot = scene.base_at(rng.uniform(0.01, 0.06))
    if rng.random() < 0.5:
        color, strength = pick_color(rng, "green"), rng.uniform(0.15, 0.35)
        ridge = smooth_noise(rng, (1, scene.width), rng.uniform(16, 60))[0] * scene.height * rng.uniform(0.01, 0.05)
        ridge = scene.horizon - scene.height * rng.uniform(0.02, 0.12) - np.abs(ridge)

        def draw_hills(brush: Brush) -> None:
            brush.polygon([(0, foot), *enumerate(ridge), (scene.width, foot)], color)
            brush.shade(leaves(rng, brush.shape, 3, strength))

        scene.place("tree", 0.1, draw_hills)
        return
    left = -rng.uniform(0, 0.2) * scene.width
    while left < scene.width:
        right = left + scene.width * rng.uniform(0.1, 0.35)
        top = scene.horizon - scene.height * rng.uniform(0.05, 0.3)
        corners = [(left, top), (right, top), (right, foot), (left, foot)]
        floors, columns = rng.integers(2, 7, 2).tolist()
        scene.place("building", 0.15, partial(draw_building, corners=corners, floors=floors, columns=columns))
        left = right + (scene.width * rng.uniform(0.0, 0.3) if rng.random() < 0.4 else 0)


def _street_sides(scene: Scene) -> None:
    """Houses and fences that recede towards the horizon on either side."""
    rng = scene.rng
    for side in (-1, 1):
        kind = rng.choice(["building", "fence", "open"], p=[0.4, 0.25, 0.35])
        if kind == "open":
            continue
        edge = 0 if side < 0 else scene.width
        inwards = -side * scene.width * rng.uniform(0.15, 0.42)
        near, far = rng.uniform(0.35, 0.75), rng.uniform(0.08, 0.2)
        rise = rng.uniform(5, 14) if kind == "building" else rng.uniform(1, 2.2)
        outer = [(edge, scene.base_at(near) - rise * scene.meter_at(near)), (edge, scene.base_at(near))]
        inner = [
            (edge + inwards, scene.base_at(far) - rise * scene.meter_at(far)),
            (edge + inwards, scene.base_at(far)),
        ]
        left, right = (outer, inner) if side < 0 else (inner, outer)
        corners: list[Point] = [left[0], right[0], right[1], left[1]]
        if kind == "building":
            floors, columns = rng.integers(2, 6, 2).tolist()
            scene.place(kind, near / 2, partial(draw_building, corners=corners, floors=floors, columns=columns))
        else:
            scene.place(kind, near / 2, partial(draw_fence, corners=corners))


def _objects(scene: Scene) -> None:
    """Trees, vehicles, persons, poles and stretches of fence at any distance, far ones first."""
    rng = scene.rng
    kinds = rng.choice(
        ["tree", "vehicle", "person", "pole", "fence"], size=rng.integers(6, 10), p=[0.16, 0.2, 0.34, 0.2, 0.1]
    )
    draws = {"tree": draw_tree, "vehicle": draw_vehicle, "person": draw_person, "pole": draw_pole}
    for nearness, kind in zip(np.sort(rng.uniform(0.28, 0.9, len(kinds))), kinds, strict=True):
        x, base, meter = rng.uniform(0, scene.width), scene.base_at(nearness), scene.meter_at(nearness)
        _contact_shadow(scene, x, base, meter * (2.2 if kind == "vehicle" else 0.5))
        if kind == "fence":
            half, tall = meter * rng.uniform(2, 6), meter * rng.uniform(0.8, 1.5)
            tilt = rng.normal(0, 0.1) * half
            corners = [
                (x - half, base - tall),
                (x + half, base + tilt - tall),
                (x + half, base + tilt),
                (x - half, base),
            ]
            scene.place(kind, nearness, partial(draw_fence, corners=corners))
        else:
            scene.place(kind, nearness, partial(draws[kind], x=x, base=base, meter=meter))


def _contact_shadow(scene: Scene, x: float, base: float, radius: float) -> None:
    cx, cy = round(x + scene.rng.normal(0, 0.3) * radius), round(base)
    across, deep = round(radius) + 1, round(radius * 0.18) + 1
    left, top = max(cx - across, 0), max(cy - deep, 0)
    right, bottom = max(cx + across + 1, 0), cy + deep + 1
    ground = scene.mask[top:bottom, left:right] == _ID["ground"]
    shade = np.zeros(ground.shape, np.uint8)
    cv2.ellipse(shade, (cx - left, cy - top), (across, deep), 0, 0, 360, 1, -1)
    pixels = scene.picture[top:bottom, left:right]
    dark = (shade > 0) & ground
    pixels[dark] = pixels[dark] * scene.rng.uniform(0.45, 0.75)
