"""Matplotlib figures as SVG that takes its colors from the page: text in `currentColor`, rows in CSS variables."""

import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from markupsafe import Markup

#: Rows beyond this many share colors again; their marker still differs.
ROW_COLORS = 10
MARKERS = "osD^vPXph*<>"

# Stand-ins that matplotlib can draw with; `to_svg` puts the page's own colors in their places.
TEXT, GRID, SURFACE = "#ab0100", "#ab0200", "#ab0300"
_ROW = "#ab04{:02x}"
_FONT_SIZE = 8.5
_LABEL_GAP = 11.0  # points

_STYLE = {
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
    axes: Axes,
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    colors: Sequence[str],
    always_right: bool = False,
) -> None:
    """Write each point's text beside it, apart from one another; limits must be set before.

    Points in the right half of the axes have their text to the left, unless `always_right`.
    """
    axes.figure.draw_without_rendering()  # the layout decides where the points are
    to_points = 72.0 / axes.figure.dpi
    left, right = axes.transAxes.transform([(0, 0), (1, 0)])[:, 0]
    placed = [axes.transData.transform(point) for point in points]
    for side in ("left", "right"):
        on_side = [
            i for i, (x, _) in enumerate(placed) if (x > (left + right) / 2 and not always_right) == (side == "left")
        ]
        on_side.sort(key=lambda i: placed[i][1])
        heights = spread([placed[i][1] * to_points for i in on_side], _LABEL_GAP)
        for i, height in zip(on_side, heights, strict=True):
            offset = height - placed[i][1] * to_points
            axes.annotate(
                texts[i],
                points[i],
                xytext=(-10 if side == "left" else 10, offset),
                textcoords="offset points",
                ha="right" if side == "left" else "left",
                va="center_baseline",
                color=colors[i],
                arrowprops={"arrowstyle": "-", "color": colors[i], "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
                if abs(offset) > 1
                else None,
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
