"""What the study of inference speed writes: its rows as JSON, and tables of them."""

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from segkc_deploy.benchmarks.report.markdown_table import markdown
from segkc_deploy.benchmarks.schema import Peak
from segkc_deploy.machine import cpu_text

_HEADER = ("variant", "p50, ms", "times faster", "95% interval", "same pixels, %", "roofline, %")


class InferenceRow(BaseModel):
    """A variant of a network on images of one size.

    Attributes:
        network, params_m, gflop, input_size: the network: millions of parameters, 1e9 operations for one image at its
            input size, (height, width).
        image: width x height of the decoded image, and of its mask.
        variant, precision, engine: how it ran.
        p50_ms, p90_ms: milliseconds from the decoded image to the mask.
        speed, speed_interval: times faster than the first variant: median of the rounds' ratios, 95% interval.
        agreement: percentage of pixels with the first variant's class.
        roofline_ms, roofline_share: the least time of the network's products alone at the machine's peak, and its
            share of `p50_ms` in percent.
        error: why the variant did not run.
    """

    model_config = ConfigDict(extra="forbid")

    network: str
    params_m: float
    gflop: float
    input_size: tuple[int, int]
    image: str
    variant: str
    precision: str
    engine: str | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    speed: float | None = None
    speed_interval: tuple[float, float] | None = None
    agreement: float | None = None
    roofline_ms: float | None = None
    roofline_share: float | None = None
    error: str | None = None


class InferenceResult(BaseModel):
    """All rows of one invocation, and the machine that they were measured on."""

    model_config = ConfigDict(extra="forbid")

    study: str = "inference-speed"
    machine: dict[str, Any]
    remark: str
    command: str
    commit: str
    threads: int
    rounds: int
    runs: int
    peaks: list[Peak]
    rows: list[InferenceRow]


def as_markdown(result: InferenceResult) -> str:
    """Return the page of a result: the machine, its peaks, and a table for each network and size of the image."""
    machine = result.machine
    lines = [
        "# From image to mask on a CPU",
        "",
        f"{cpu_text(machine)}, {machine['cores']} cores, {machine['ram_gib']} GiB, {machine['os']};"
        f" {result.threads} thread{'s' if result.threads > 1 else ''}. {result.remark}".rstrip(),
        "",
        f"Batch 1, from a decoded image to its mask at the image's own size. All variants of a network ran interleaved,"
        f" {result.rounds} rounds of {result.runs} runs, each in a process of its own. `times faster` is the median of"
        " the rounds' ratios to the first row. `roofline` is the time of the network's products at the machine's peak"
        " in percent of the whole time. `same pixels` have the first row's class; where that one resizes with Pillow, a"
        " network with random weights magnifies the difference between the two ways to resize.",
        "",
        markdown(
            ("peak", "GFLOP/s", "measured with"),
            [(peak.precision, f"{peak.gflops:.0f}", peak.how) for peak in result.peaks],
            1,
        ),
        *_tables(result.rows),
        f"`{result.command}`, commit {result.commit[:12]}",
        "",
    ]
    return "\n".join(lines)


def _tables(rows: Sequence[InferenceRow]) -> Iterator[str]:
    for network, image in dict.fromkeys((row.network, row.image) for row in rows):
        found = [row for row in rows if (row.network, row.image) == (network, image)]
        height, width = found[0].input_size
        yield f"## {network}, image {image}\n"
        yield f"{found[0].params_m:.1f}M parameters, {found[0].gflop:.1f} GFLOP at {width}×{height}.\n"
        yield markdown(_HEADER, [_cells(row) for row in found], 1)


def _cells(row: InferenceRow) -> tuple[str, ...]:
    if row.p50_ms is None or row.speed is None or row.roofline_share is None:
        return (row.variant, f"failed: {row.error}", "", "", "", "")
    interval = "" if row.speed_interval is None else f"{row.speed_interval[0]:.2f} to {row.speed_interval[1]:.2f}"
    agreement = "" if row.agreement is None else f"{row.agreement:.2f}"
    return (
        row.variant,
        f"{row.p50_ms:.1f}",
        f"{row.speed:.2f}",
        interval,
        agreement,
        f"{row.roofline_share:.0f}",
    )
