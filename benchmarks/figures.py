"""The report's plots. Each takes the rows and returns inline SVG, or None when no row has what it shows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from segkc_deploy.benchmarks.formatting import shortened, significant
from segkc_deploy.benchmarks.schema import Latency, Row
from segkc_deploy.benchmarks.svg import SURFACE, TEXT, drawing, label_ends, label_points, row_color, row_marker, to_svg

_WIDTH, _HEIGHT = 4.7, 3.1
_LONGEST_LABEL = 26
_STAGES = (("preprocess", 0.45), ("infer", 1.0), ("postprocess", 0.7))
_BINS = 48


def miou_against_parameters(rows: Sequence[Row]) -> Markup | None:
    """mIoU over parameters in millions, one point per row with its interval."""
    points = [
        (index, row.parameters / 1e6, row.accuracy.miou)
        for index, row in enumerate(rows)
        if row.parameters and row.accuracy and row.accuracy.miou is not None
    ]
    return _scatter(rows, points, "parameters (millions)", "mIoU against parameters")


def miou_against_latency(rows: Sequence[Row]) -> Markup | None:
    """mIoU, with its interval, over the median latency at batch 1; a line reaches to p99."""
    points = [
        (index, row.latency.total.p50, row.accuracy.miou)
        for index, row in enumerate(rows)
        if row.latency and row.accuracy and row.accuracy.miou is not None
    ]
    tails = {index: row.latency.total.p99 for index, row in enumerate(rows) if row.latency}
    return _scatter(
        rows, points, "latency at batch 1, end to end: p50, line to p99 (ms)", "mIoU against latency", tails
    )


def _scatter(
    rows: Sequence[Row],
    points: list[tuple[int, float, float]],
    x_label: str,
    description: str,
    tails: dict[int, float] | None = None,
) -> Markup | None:
    if not points:
        return None
    intervals = {index: scores.miou_interval or (y, y) for index, _, y in points if (scores := rows[index].accuracy)}
    with drawing(_WIDTH, _HEIGHT) as figure:
        axes = figure.subplots()
        axes.set(xlabel=x_label, ylabel="mIoU (%)")
        reach = max((tails or {}).get(index, x) for index, x, _ in points)
        axes.set_xlim(0, 1.12 * reach if len({x for _, x, _ in points}) > 1 else 2 * reach)
        axes.set_ylim(*_padded([end for interval in intervals.values() for end in interval]))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_locator(MaxNLocator(6))
        for order, (index, x, y) in enumerate(points):
            color = row_color(index)
            axes.plot([x, x], intervals[index], color=color, linewidth=1.4, alpha=0.55)
            if tails:
                axes.plot([x, tails[index]], [y, y], color=color, linewidth=1.4, alpha=0.55)
            # Later points are smaller, so that equal ones show around one another.
            size = 9.5 - 3.5 * order / max(len(points) - 1, 1)
            axes.plot(x, y, row_marker(index), color=color, markersize=size, mec=SURFACE, mew=0.8, zorder=3)
        texts = [shortened(rows[index].name, _LONGEST_LABEL) for index, _, _ in points]
        colors = [row_color(index) for index, _, _ in points]
        reaches = [(tails or {}).get(index, x) for index, x, _ in points]
        label_points(figure, axes, [(x, y) for _, x, y in points], texts, colors, reaches)
        return to_svg(figure, description)


def _padded(values: Sequence[float]) -> tuple[float, float]:
    """Limits of a percentage axis around `values`, at least four points wide."""
    low, high = min(values), max(values)
    pad = max(2.0, 0.18 * (high - low))
    return max(low - pad, 0.0), min(high + pad, 100.0)


def latency_split(rows: Sequence[Row]) -> Markup | None:
    """Median time of each stage, stacked, with marks at the end-to-end p50, p90 and p99."""
    timed = [(index, row, row.latency) for index, row in enumerate(rows) if row.latency]
    if not timed:
        return None
    with drawing(_WIDTH, 0.75 + 0.5 * len(timed)) as figure:
        axes = figure.subplots()
        axes.set(xlabel="milliseconds at batch 1", ylim=(len(timed) - 0.4, -0.65))
        reach = max(max(latency.total.p99, sum(_stage_medians(latency))) for _, _, latency in timed)
        axes.set_xlim(0, 1.03 * reach)
        axes.yaxis.set_major_locator(NullLocator())
        axes.xaxis.set_major_locator(MaxNLocator(7))
        axes.spines["left"].set_visible(False)
        for place, (index, row, latency) in enumerate(timed):
            _split_bar(axes, place, row, latency, row_color(index))
        return to_svg(figure, "Latency split into stages")


def _stage_medians(latency: Latency) -> list[float]:
    return [getattr(latency, stage).p50 for stage, _ in _STAGES]


def _split_bar(axes: Axes, place: int, row: Row, latency: Latency, color: str) -> None:
    start = 0.0
    for (_, strength), median in zip(_STAGES, _stage_medians(latency), strict=True):
        axes.barh(place, median, 0.36, start, color=color, alpha=strength, edgecolor=SURFACE, linewidth=0.8)
        start += median
    for value, height in ((latency.total.p50, 0.27), (latency.total.p90, 0.22), (latency.total.p99, 0.17)):
        axes.plot([value, value], [place - height, place + height], color=TEXT, linewidth=1.1)
    split = " + ".join(significant(median) for median in _stage_medians(latency))
    style: dict[str, Any] = {"va": "bottom", "transform": axes.get_yaxis_transform()}
    axes.text(0, place - 0.28, shortened(row.name, 30), color=color, **style)
    axes.text(1, place - 0.28, f"{split} ms", ha="right", fontsize=7.5, **style)


def latency_distribution(rows: Sequence[Row]) -> Markup | None:
    """A histogram of the end-to-end latency per row, each on its own scale up to a little above p99."""
    timed = [(index, row, row.latency) for index, row in enumerate(rows) if row.latency and row.latency.times_ms]
    if not timed:
        return None
    with drawing(_WIDTH, 0.35 + 0.85 * len(timed)) as figure:
        all_axes = figure.subplots(len(timed), squeeze=False)[:, 0]
        for axes, (index, row, latency) in zip(all_axes, timed, strict=True):
            _histogram(axes, row, latency, row_color(index))
        all_axes[-1].set_xlabel("milliseconds at batch 1 (each row on its own scale)")
        return to_svg(figure, "Distribution of the latency")


def _histogram(axes: Axes, row: Row, latency: Latency, color: str) -> None:
    times, total = np.asarray(latency.times_ms), latency.total
    low, high = float(times.min()), total.p99 + 0.1 * (total.p99 - float(times.min()))
    if high - low < 0.02 * high:  # all times alike: keep the bar a bar, not the whole width
        low, high = low - 0.05 * high, high + 0.05 * high
    axes.hist(times, bins=_BINS, range=(low, high), color=color, alpha=0.6)
    for value, style in ((total.p50, "-"), (total.p90, "--"), (total.p99, ":")):
        axes.axvline(value, color=TEXT, linewidth=1.0, linestyle=style)
    beyond = int((times > high).sum())
    rest = f" · {beyond} slower, up to {significant(total.max)}" if beyond else ""
    title = shortened(row.name, 24 if beyond else 34)
    axes.set_title(title, loc="left", color=color, fontsize=8.5, pad=3)
    axes.set_title(f"n={total.samples} · cv {100 * total.cv:.1f}%{rest}", loc="right", fontsize=7.5, pad=3)
    axes.set_xlim(low, high)
    axes.yaxis.set_major_locator(NullLocator())
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.spines["left"].set_visible(False)
    axes.grid(False)


def throughput(rows: Sequence[Row]) -> Markup | None:
    """Images/s end to end over the batch size."""
    lines: list[tuple[int, list[int], list[float]]] = []
    for index, row in enumerate(rows):
        points = [(p.batch, p.images_per_s) for p in row.throughput if p.images_per_s is not None]
        if points:
            lines.append((index, [batch for batch, _ in points], [rate for _, rate in points]))
    if not lines:
        return None
    batches = sorted({batch for _, xs, _ in lines for batch in xs})
    with drawing(_WIDTH, _HEIGHT) as figure:
        axes = figure.subplots()
        axes.set(xlabel="batch size", ylabel="images/s, end to end", xscale="log")
        # Room on the right for the names.
        axes.set_xlim(batches[0] / 1.25, batches[-1] * (batches[-1] / batches[0]) ** 0.45 * 1.6)
        axes.set_ylim(0, 1.12 * max(max(rates) for _, _, rates in lines))
        axes.xaxis.set_major_locator(FixedLocator(batches))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(batches, [str(batch) for batch in batches])
        style: dict[str, Any] = {"markersize": 6, "mec": SURFACE, "mew": 0.8, "linewidth": 1.5}
        for index, xs, rates in lines:
            axes.plot(xs, rates, marker=row_marker(index), color=row_color(index), **style)
        ends = [(xs[-1], rates[-1]) for _, xs, rates in lines]
        texts = [shortened(rows[index].name, 18) for index, _, _ in lines]
        label_ends(figure, axes, ends, texts, [row_color(index) for index, _, _ in lines])
        return to_svg(figure, "Throughput against batch size")
