"""Matplotlib figures as SVG that takes its colors from the page: text in `currentColor`, rows in CSS variables."""

import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

#: Rows beyond this many share colors again; their marker still differs.
ROW_COLORS = 10
MARKERS = "osD^vPXph*<>"

# Stand-ins that matplotlib can draw with; `to_svg` puts the page's own colors in their places.
TEXT, GRID, SURFACE = "#ab0100", "#ab0200", "#ab0300"
_ROW = "#ab04{:02x}"
_FONT_SIZE = 8.5
_LABEL_GAP = 11.0  # points
_CHARACTER_WIDTH = 4.7  # points, of the average character

Point = tuple[float, float]

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": _FONT_SIZE,
    "text.color": TEXT,
    "axes.edgecolor": TEXT,
    "axes.labelcolor": TEXT,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def row_color(index: int) -> str:
    """Return the stand-in color of the row at `index`; in the page `var(--row-0)` and so on."""
    return _ROW.format(index % ROW_COLORS)


def row_marker(index: int) -> str:
    """Return the marker of the row at `index`."""
    return MARKERS[index % len(MARKERS)]


@contextmanager
def drawing(width: float, height: float) -> Iterator[Figure]:
    """Yield an empty figure of `width` × `height` inches in the report's style."""
    with mpl.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def to_svg(figure: Figure, description: str) -> Markup:
    """Return `figure` as an inline `<svg>` whose ids are its own and which refers to nothing outside.

    Must be called inside `drawing`. `description` is what a screen reader says of it.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # Page-wide unique ids: several figures stand in one document.
    prefix = hashlib.sha256(description.encode()).hexdigest()[:8]
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'((?:xlink:)?href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    svg = re.sub(r' xmlns(?::xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'<svg[^>]* viewBox="([^"]+)"[^>]*>', _opening(description), svg, count=1)
    svg = svg.replace(TEXT, "currentColor").replace(GRID, "var(--grid)").replace(SURFACE, "var(--surface)")
    for index in range(ROW_COLORS):
        svg = svg.replace(row_color(index), f"var(--row-{index})")
    return Markup(svg)


def _opening(description: str) -> str:
    label = Markup.escape(description).replace("\\", r"\\")
    return rf'<svg viewBox="\1" role="img" aria-label="{label}">'


def label_points(
    figure: Figure,
    axes: Axes,
    points: Sequence[Point],
    texts: Sequence[str],
    colors: Sequence[str],
    reaches: Sequence[float],
) -> None:
    """Write each point's text near it where it covers nothing; limits must be set before.

    Points may coincide; `reaches` is how far to the right (in data) each point's own drawing extends. A text that had
    to go further away is tied to its point by a thin line.
    """
    figure.draw_without_rendering()  # the layout decides where the points are
    scale = 72.0 / figure.dpi
    frame = _Box(*(np.asarray(axes.bbox.extents) * scale))
    placed = [(x * scale, y * scale) for x, y in (axes.transData.transform(point) for point in points)]
    ends = [axes.transData.transform((reach, y))[0] * scale for reach, (_, y) in zip(reaches, points, strict=True)]
    taken = [_Box(x - 6, y - 6, max(x, end) + 6, y + 6) for (x, y), end in zip(placed, ends, strict=True)]
    for point, (x, y), text, color in zip(points, placed, texts, colors, strict=True):
        width = _CHARACTER_WIDTH * len(text)
        candidates = [(_Box(x + dx, y + dy - 5, x + dx + width, y + dy + 5), dx, dy) for dx, dy in _offsets(width)]
        costs = [
            3 * box.area_outside(frame) + sum(box.overlap(other) for other in taken) + abs(dy) + 0.1 * abs(dx)
            for box, dx, dy in candidates
        ]
        box, dx, dy = candidates[int(np.argmin(costs))]
        taken.append(box)
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4}
        axes.annotate(
            text,
            point,
            xytext=(dx, dy),
            textcoords="offset points",
            ha="left",
            va="center_baseline",
            color=color,
            arrowprops=line if abs(dy) > _LABEL_GAP else None,
        )


def _offsets(width: float) -> list[Point]:
    """Offsets in points of a text's left middle from its point: beside, above and below, ever further away."""
    heights = [sign * step * _LABEL_GAP for step in range(6) for sign in (1, -1)]
    beside = [(dx, dy) for dy in heights for dx in (9.0, -9.0 - width)]
    return beside + [(-width / 2, dy) for dy in heights if dy]


class _Box(NamedTuple):
    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: "_Box") -> float:
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)

    def area_outside(self, frame: "_Box") -> float:
        return (self.right - self.left) * (self.top - self.bottom) - self.overlap(frame)


def label_ends(
    figure: Figure, axes: Axes, points: Sequence[Point], texts: Sequence[str], colors: Sequence[str]
) -> None:
    """Write each line's text to the right of its last point, apart from one another; limits must be set before."""
    figure.draw_without_rendering()
    heights = [axes.transData.transform(point)[1] * 72.0 / figure.dpi for point in points]
    order = sorted(range(len(points)), key=heights.__getitem__)
    for i, height in zip(order, spread([heights[i] for i in order], _LABEL_GAP), strict=True):
        offset = (8, height - heights[i])
        axes.annotate(
            texts[i], points[i], xytext=offset, textcoords="offset points", va="center_baseline", color=colors[i]
        )


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Move ascending `positions` apart until neighbors are at least `gap` from one another, each group around its mean.

    (Isotonic regression of the positions with the gaps taken out.)
    """
    groups: list[list[float]] = []
    for index, position in enumerate(positions):
        groups.append([position - index * gap])
        while len(groups) > 1 and _mean(groups[-2]) > _mean(groups[-1]):
            last = groups.pop()
            groups[-1] += last
    flat = [_mean(group) for group in groups for _ in group]
    return [value + index * gap for index, value in enumerate(flat)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
