"""The things that stand in drawn scenes: one function a class, each with several kinds, colors and textures.

Every function takes a brush, where the object touches the ground (`x`, `base`, in pixels) and `meter`, the pixels
that one meter measures at that distance.
"""

from itertools import pairwise

import numpy as np

from segkc_deploy.training.demo_scenes.brush import (
    Brush,
    Color,
    Point,
    Rng,
    body_color,
    bricks,
    leaves,
    pick_color,
    scaled,
    speckle,
    stripes,
)

_FLAT = 128  # pixels a side of the flat pictures that are laid onto walls and fences


def draw_tree(brush: Brush, x: float, base: float, meter: float) -> None:
    """A broadleaf tree, a conifer or a bush, from spring green to autumn red."""
    rng = brush.rng
    color = body_color(rng, "green")
    kind = rng.choice(["broadleaf", "conifer", "bush"], p=[0.6, 0.2, 0.2])
    height = meter * {"broadleaf": rng.uniform(4, 8), "conifer": rng.uniform(4, 8), "bush": rng.uniform(0.9, 2)}[kind]
    if kind == "bush":
        for _ in range(6):
            radius = height * rng.uniform(0.3, 0.55)
            center = x + rng.normal(0, 0.5) * height, base - radius * rng.uniform(0.8, 1.1)
            brush.ellipse(center, (radius, radius), scaled(color, rng.uniform(0.8, 1.15)))
    elif kind == "conifer":
        for step in np.linspace(0, 1, 5)[:-1]:
            spread = height * 0.24 * (1.1 - step)
            top = base - height * min(1.0, step + 0.42)
            foot = base - height * (0.1 + 0.8 * step)
            brush.polygon([(x - spread, foot), (x, top), (x + spread, foot)], scaled(color, 0.75 + 0.25 * step))
    else:
        crown = height * rng.uniform(0.28, 0.36)
        for _ in range(14):
            angle, reach = rng.uniform(0, 2 * np.pi), crown * rng.uniform(0.2, 0.85)
            center = x + reach * np.cos(angle), base - height * 0.68 + reach * np.sin(angle) * 0.8
            lit = 1 - 0.25 * np.sin(angle)
            brush.ellipse(center, (crown * rng.uniform(0.25, 0.5),) * 2, scaled(color, lit))
    brush.shade(leaves(rng, brush.shape, rng.uniform(0.15, 0.3) * meter, rng.uniform(0.2, 0.35)))
    if kind != "bush":
        bark = pick_color(rng, "earth", "dark")
        thick = height * rng.uniform(0.03, 0.05)
        top = base - height * (0.5 if kind == "broadleaf" else 0.1)
        brush.polygon([(x - thick, base), (x - thick * 0.6, top), (x + thick * 0.6, top), (x + thick, base)], bark)


def draw_vehicle(brush: Brush, x: float, base: float, meter: float) -> None:
    """A car, a van or a bus seen from its side or its end."""
    rng = brush.rng
    color = body_color(rng, "bright", "blue")
    glass, tire = pick_color(rng, "dark", "blue"), pick_color(rng, "dark", jitter=6)
    kind = rng.choice(["car", "van", "bus", "end"], p=[0.45, 0.2, 0.1, 0.25])
    if kind == "end":
        _vehicle_end(brush, x, base, meter, color, glass)
        return
    length, height = {"car": (4.3, 1.5), "van": (5.2, 2.2), "bus": (8.5, 2.9)}[kind]
    length, height = length * meter * rng.uniform(0.9, 1.1), height * meter * rng.uniform(0.9, 1.1)
    side = rng.choice([-1, 1])

    def at(along: float, up: float) -> Point:
        return x + side * (along - 0.5) * length, base - up * height

    if kind == "car":
        outline = [(0, 0.15), (0, 0.55), (0.2, 0.62), (0.34, 1), (0.74, 1), (0.9, 0.64), (1, 0.58), (1, 0.15)]
        panes = [[(0.25, 0.64), (0.36, 0.93), (0.52, 0.93), (0.52, 0.64)]]
        panes.append([(0.55, 0.64), (0.55, 0.93), (0.72, 0.93), (0.83, 0.64)])
    else:
        outline = [(0, 0.12), (0, 0.5), (0.08, 0.98), (0.12, 1), (1, 1), (1, 0.12)]
        count = 2 if kind == "van" else 6
        edges = np.linspace(0.08, 0.4 if kind == "van" else 0.97, count + 1)
        panes = [[(a, 0.5), (a + 0.01, 0.86), (b - 0.02, 0.86), (b - 0.02, 0.5)] for a, b in pairwise(edges)]
    brush.polygon([at(*point) for point in outline], color)
    brush.polygon([at(0, 0.15), at(0, 0.32), at(1, 0.32), at(1, 0.15)], scaled(color, 0.72))
    if rng.random() < 0.3:
        brush.polygon(
            [at(0.02, 0.36), at(0.02, 0.44), at(0.98, 0.44), at(0.98, 0.36)], pick_color(rng, "light", "bright")
        )
    for pane in panes:
        brush.polygon([at(*point) for point in pane], scaled(glass, rng.uniform(0.8, 1.4)))
    wheel = meter * (0.33 if kind == "car" else 0.42)
    for along in (0.2, 0.8):
        hub = at(along, 0)[0], base - wheel * 0.9
        brush.ellipse(hub, (wheel, wheel), tire)
        brush.ellipse(hub, (wheel * 0.5, wheel * 0.5), pick_color(rng, "grey"))
    brush.ellipse(at(0.02, 0.42), (meter * 0.12, meter * 0.1), (236, 226, 180))


def _vehicle_end(brush: Brush, x: float, base: float, meter: float, color: Color, glass: Color) -> None:
    rng = brush.rng
    half, height = meter * rng.uniform(0.85, 1.1), meter * rng.uniform(1.4, 2.2)
    for side in (-1, 1):
        brush.box(
            x + side * half * 0.7 - half * 0.16,
            base - height * 0.25,
            x + side * half * 0.7 + half * 0.16,
            base,
            (26, 26, 28),
        )
    brush.box(x - half, base - height * 0.58, x + half, base - height * 0.1, color)
    roof = [(x - half * 0.95, base - height * 0.56), (x - half * 0.72, base - height), (x + half * 0.72, base - height)]
    brush.polygon([*roof, (x + half * 0.95, base - height * 0.56)], scaled(color, 1.06))
    pane = [
        (x - half * 0.8, base - height * 0.58),
        (x - half * 0.64, base - height * 0.93),
        (x + half * 0.64, base - height * 0.93),
    ]
    brush.polygon([*pane, (x + half * 0.8, base - height * 0.58)], glass)
    lamp = (200, 40, 36) if rng.random() < 0.5 else (240, 234, 200)
    for side in (-1, 1):
        brush.ellipse((x + side * half * 0.78, base - height * 0.44), (half * 0.16, height * 0.06), lamp)
    brush.box(
        x - half * 0.26, base - height * 0.3, x + half * 0.26, base - height * 0.2, pick_color(rng, "light", "bright")
    )


def draw_person(brush: Brush, x: float, base: float, meter: float) -> None:
    """Somebody standing or walking, in clothes of any color, now and then with a bag."""
    rng = brush.rng
    height = meter * rng.uniform(1.6, 2.2)
    skin = scaled((226, 178, 146), rng.uniform(0.35, 1.05))
    families = ("grey", "dark", "red", "blue", "green", "earth", "light", "bright")
    top, legs = pick_color(rng, *families), pick_color(rng, "dark", "blue", "grey", "earth")
    stride, lean = height * rng.uniform(0.02, 0.14), height * rng.normal(0, 0.02)
    hip, shoulder, width = base - height * 0.47, base - height * 0.82, height * rng.uniform(0.14, 0.19)
    for side in (-1, 1):
        knee = x + side * stride * 0.8, base - height * 0.24
        brush.line((x + side * width * 0.4, hip), knee, height * 0.11, legs)
        brush.line(knee, (x + side * stride, base), height * 0.1, scaled(legs, 0.9))
    torso = [
        (x - width + lean, shoulder),
        (x + width + lean, shoulder),
        (x + width * 0.75, hip),
        (x - width * 0.75, hip),
    ]
    brush.polygon([*torso], top)
    if rng.random() < 0.3:  # a coat or a skirt
        hem = base - height * rng.uniform(0.22, 0.36)
        brush.polygon(
            [(x - width * 0.75, hip), (x + width * 0.75, hip), (x + width * 1.1, hem), (x - width * 1.1, hem)], top
        )
    for side in (-1, 1):
        elbow = x + lean + side * width * rng.uniform(1.1, 1.7), base - height * 0.62
        brush.line((x + lean + side * width * 0.9, shoulder + height * 0.03), elbow, height * 0.08, scaled(top, 0.85))
        brush.line(elbow, (x + side * width * rng.uniform(0.8, 1.8), base - height * 0.48), height * 0.07, skin)
    head = x + lean * 1.5, base - height * 0.92
    brush.ellipse(head, (height * 0.07, height * 0.085), skin)
    brush.ellipse(
        (head[0], head[1] - height * 0.03), (height * 0.073, height * 0.055), pick_color(rng, "dark", "earth")
    )
    if rng.random() < 0.3:
        brush.ellipse((x + width * 1.5, hip), (height * 0.06, height * 0.08), pick_color(rng, *families))


def draw_pole(brush: Brush, x: float, base: float, meter: float) -> None:
    """A lamp post, a road sign or a bollard: thin, upright, in the colors of walls and trunks."""
    rng = brush.rng
    color = body_color(rng, "dark")
    kind = rng.choice(["lamp", "sign", "bare", "bollard"], p=[0.35, 0.4, 0.15, 0.1])
    height = meter * {"lamp": rng.uniform(4, 7), "sign": rng.uniform(2.2, 3.2), "bare": 6.0, "bollard": 1.1}[kind]
    thick = max(6.0, meter * (0.55 if kind == "bollard" else rng.uniform(0.22, 0.38)))
    top = base - height
    brush.box(x - thick / 2, top, x + thick / 2, base, color)
    if kind == "lamp":
        reach = rng.choice([-1, 1]) * meter * rng.uniform(0.6, 1.5)
        brush.line((x, top), (x + reach, top), max(3.0, thick * 0.7), color)
        brush.ellipse((x + reach, top), (meter * 0.35, meter * 0.14), pick_color(rng, "light", "dark"))
    elif kind == "sign":
        _sign_plate(brush, (x, top), meter * rng.uniform(0.5, 0.8))
    elif kind == "bollard":
        brush.box(
            x - thick / 2, base - height * 0.8, x + thick / 2, base - height * 0.6, pick_color(rng, "light", "red")
        )


def _sign_plate(brush: Brush, center: Point, radius: float) -> None:
    rng, (x, y) = brush.rng, center
    rim, face = pick_color(rng, "red", "blue", "dark"), pick_color(rng, "light", "bright", "blue")
    shape = rng.integers(3)
    for size, color in ((radius, rim), (radius * 0.68, face)):
        if shape == 0:
            brush.ellipse(center, (size, size), color)
        elif shape == 1:
            brush.polygon([(x - size, y + size * 0.8), (x, y - size), (x + size, y + size * 0.8)], color)
        else:
            brush.box(x - size * 0.8, y - size, x + size * 0.8, y + size, color)


def facade(rng: Rng, floors: int, columns: int) -> np.ndarray:
    """Return a flat RGB picture of a house front: wall texture, rows of windows, sometimes a shop below."""
    wall = body_color(rng, "earth", "red", "red")
    shape = (_FLAT, _FLAT)
    kind = rng.choice(["bricks", "plaster", "planks", "panels"])
    texture = {
        "bricks": lambda: bricks(rng, shape, int(rng.integers(4, 8)), rng.uniform(0.08, 0.2)),
        "plaster": lambda: speckle(rng, shape, rng.uniform(8, 30), rng.uniform(0.03, 0.1)),
        "planks": lambda: stripes(
            rng, shape, rng.uniform(6, 12), rng.uniform(0.04, 0.1), vertical=bool(rng.integers(2))
        ),
        "panels": lambda: stripes(rng, shape, _FLAT / columns, 0.06, vertical=True) * speckle(rng, shape, 20, 0.04),
    }[kind]()
    flat = np.clip(np.asarray(wall, np.float32) * texture[..., None], 0, 255).astype(np.uint8)
    glass, frame = pick_color(rng, "dark", "blue", "grey"), scaled(wall, rng.choice([0.6, 1.35]))
    share_x, share_y = rng.uniform(0.35, 0.8), rng.uniform(0.4, 0.75)
    cell_x, cell_y = _FLAT / columns, _FLAT / floors
    for row in range(floors):
        for column in range(columns):
            pane = scaled(glass, rng.uniform(0.6, 1.3)) if rng.random() > 0.12 else (238, 214, 150)
            half_x, half_y = cell_x * share_x / 2, cell_y * share_y / 2
            x, y = (column + 0.5) * cell_x, (row + 0.5) * cell_y
            for grow, color in ((1.5, frame), (0.0, pane)):
                left, right = int(x - half_x - grow), int(x + half_x + grow)
                flat[int(y - half_y - grow) : int(y + half_y + grow), max(left, 0) : right] = color
    if rng.random() < 0.4:
        flat[int(_FLAT - cell_y * 0.9) :] = pick_color(rng, "dark", "bright", "light", "red")
        flat[int(_FLAT - cell_y * 0.6) :, int(_FLAT * 0.1) : int(_FLAT * 0.9)] = glass
    return flat


def draw_building(brush: Brush, corners: list[Point], floors: int, columns: int) -> None:
    """A house front on the quadrilateral `corners` (clockwise from the top left), flat-topped or with a roof."""
    rng = brush.rng
    (left, top), (right, right_top) = corners[:2]
    if rng.random() < 0.4:
        rise = abs(right - left) * rng.uniform(0.1, 0.3)
        ridge = rng.uniform(0.2, 0.5)
        ends = [(left + (right - left) * at, top + (right_top - top) * at - rise) for at in (ridge, 1 - ridge)]
        brush.polygon([(left, top), *ends, (right, right_top)], pick_color(rng, "red", "dark", "grey", "earth"))
        brush.shade(stripes(rng, brush.shape, 5, 0.08, vertical=False))
    brush.panel(facade(rng, floors, columns), corners)


def draw_fence(brush: Brush, corners: list[Point]) -> None:
    """A fence on the quadrilateral `corners`: pickets, rails, a mesh, or closed boards. Gaps belong to the fence."""
    rng = brush.rng
    kind = rng.choice(["pickets", "rails", "mesh", "boards"])
    rows, columns = np.indices((_FLAT // 2, _FLAT * 2), sparse=True)
    period = int(rng.integers(8, 18))
    rails = (rows % (_FLAT // 4) > _FLAT // 4 - 5) | (rows < 3)
    opaque = {
        "pickets": (columns % period < period * 0.45) | rails,
        "rails": (rows % 16 < 5) | (columns % (period * 4) < 6),
        "mesh": ((rows + columns) % period < 2) | ((rows - columns) % period < 2) | (columns % (period * 5) < 5),
        "boards": rows + columns >= 0,
    }[kind]
    flat = np.empty((*opaque.shape, 3), np.uint8)
    flat[:] = body_color(rng, "light", "earth")
    seams = (columns % period < 2) * 0.35 if kind == "boards" else 0.0
    shade = speckle(rng, opaque.shape, 10, 0.1) * (1 - seams)
    brush.panel(np.clip(flat * shade[..., None], 0, 255).astype(np.uint8), corners, opaque.astype(np.uint8))
