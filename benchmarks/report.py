"""The report's files from a result: `index.html` (one page, nothing fetched), `benchmark.md` and `benchmark.json`."""

import base64
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from segkc_deploy import atomic
from segkc_deploy.benchmarks import figures, formatting
from segkc_deploy.benchmarks.interval import RESAMPLES
from segkc_deploy.benchmarks.latency import LEAST_SAMPLES, STABLE_WITHIN, WINDOW_RUNS
from segkc_deploy.benchmarks.report_markdown import report_markdown
from segkc_deploy.benchmarks.schema import BenchmarkResult, Comparison, Row
from segkc_deploy.benchmarks.svg import ROW_COLORS
from segkc_deploy.benchmarks.verdict import verdict
from segkc_deploy.boundary import BOUNDARY_RULE
from segkc_deploy.metrics import RULE

#: Characters of embedded pictures, so that the page stays below 5 MB.
_PICTURE_BUDGET = 3_800_000
_BETTER = "Up and to the left is better. Upright lines: 95% interval of mIoU."
#: Fewer samples than this, and p99 is the interpolated maximum.
SAMPLES_FOR_P99 = 100


def write_report(result: BenchmarkResult, out: Path) -> Path:
    """Write the report of `result` into `out` and return the path of the page.

    The pictures that `result.comparisons` names are taken from `out`; those that are not there are left out.
    """
    result.write(out / "benchmark.json")
    atomic.write_text(out / "benchmark.md", report_markdown(result))
    page = out / "index.html"
    atomic.write_text(page, report_html(result, out))
    return page


def report_html(result: BenchmarkResult, pictures: Path) -> str:
    """Return the page of `result`, with the pictures below the folder `pictures` embedded."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    names = ("significant", "percent", "percent_range", "agreement", "difference", "quantity", "mebibytes")
    environment.filters |= {name: getattr(formatting, name) for name in names}
    template = environment.from_string(files("segkc_deploy.benchmarks").joinpath("report.html").read_text("utf-8"))
    return template.render(
        result=result,
        rows=[_PageRow(row, f"var(--row-{index % ROW_COLORS})") for index, row in enumerate(result.rows)],
        verdict=verdict(result),
        plots=_plots(result.rows),
        comparisons=_embedded(result.comparisons, pictures),
        conditions=formatting.flat(result.machine),
        few_samples=[row.name for row in result.rows if row.latency and row.latency.total.samples < SAMPLES_FOR_P99],
        batch_errors=[(row.name, point) for row in result.rows for point in row.throughput if point.error],
        rule=RULE,
        boundary_rule=BOUNDARY_RULE,
        interval_note=formatting.INTERVAL_NOTE,
        resamples=RESAMPLES,
        stable_within=STABLE_WITHIN,
        window_runs=WINDOW_RUNS,
        least_samples=LEAST_SAMPLES,
        samples_for_p99=SAMPLES_FOR_P99,
        missing=formatting.MISSING,
    )


@dataclass(frozen=True)
class _PageRow:
    row: Row
    color: str

    @property
    def best_rate(self) -> tuple[float, int] | None:
        """The highest images/s and its batch size."""
        rates = [(p.images_per_s, p.batch) for p in self.row.throughput if p.images_per_s is not None]
        return max(rates, default=None)


def _plots(rows: list[Row]) -> list[tuple[str, str, Any]]:
    """Return (title, what it shows, SVG) of the plots that there are figures for."""
    plots = [
        ("mIoU against parameters", _BETTER, figures.miou_against_parameters(rows)),
        ("mIoU against latency", _BETTER, figures.miou_against_latency(rows)),
        (
            "Where the time goes",
            "Median of each stage: pre (lighter), infer (full), post (lighter). Ticks: end-to-end p50, p90, p99.",
            figures.latency_split(rows),
        ),
        (
            "Distribution of the latency",
            "End to end. Lines: p50 (solid), p90 (dashed), p99 (dotted).",
            figures.latency_distribution(rows),
        ),
        ("Throughput against batch size", "End to end, one process, no overlap of stages.", figures.throughput(rows)),
    ]
    return [plot for plot in plots if plot[2] is not None]


def _embedded(comparisons: list[Comparison], folder: Path) -> list[tuple[Comparison, list[tuple[str, str]]]]:
    """Return each comparison with (title, data URI) of its pictures, as many as the page has room for."""
    embedded, used = [], 0
    for comparison in comparisons:
        cells = [(cell.title, _data_uri(path)) for cell in comparison.cells if (path := folder / cell.file).is_file()]
        used += sum(len(uri) for _, uri in cells)
        if used > _PICTURE_BUDGET:
            break
        if cells:
            embedded.append((comparison, cells))
    return embedded


def _data_uri(path: Path) -> str:
    kind = {".jpg": "image/jpeg", ".png": "image/png"}[path.suffix]
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
