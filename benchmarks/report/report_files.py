"""The report's files from a result: `index.html` (one page, nothing fetched), `benchmark.md` and `benchmark.json`."""

import base64
import shutil
from itertools import groupby
from pathlib import Path

from segkc_deploy import atomic
from segkc_deploy.benchmarks.measure.latency import LEAST_SAMPLES, STABLE_WITHIN, WANTED_SAMPLES, WINDOW_RUNS
from segkc_deploy.benchmarks.measure.miou_interval import RESAMPLES
from segkc_deploy.benchmarks.report import formatting
from segkc_deploy.benchmarks.report.not_measured import reasons
from segkc_deploy.benchmarks.report.page_file import render_page
from segkc_deploy.benchmarks.report.pictures import remove_pictures
from segkc_deploy.benchmarks.report.recommendations import recommendations
from segkc_deploy.benchmarks.report.report_data import report_data
from segkc_deploy.benchmarks.report.report_markdown import report_markdown
from segkc_deploy.benchmarks.report.row_columns import columns_of
from segkc_deploy.benchmarks.report.summary import summary
from segkc_deploy.benchmarks.schema import BenchmarkResult, Comparison
from segkc_deploy.benchmarks.store.result_file import read_result
from segkc_deploy.boundary import BOUNDARY_RULE
from segkc_deploy.errors import ConfigError
from segkc_deploy.metrics import RULE

#: Bytes of the page with its pictures; worse images come first, so the best are left out where there is no room.
_PAGE_BUDGET = 4_800_000
#: Fewer samples than this, and p99 is the interpolated maximum.
SAMPLES_FOR_P99 = 100

#: Colors in `page.css`; further rows begin again.
ROW_COLORS = 10

_WITHOUT_PICTURES = "The pictures were left out: the report was asked for without pictures."
_NOT_THERE = "The pictures were left out: their files are not beside the result."
_NO_ROOM_AT_ALL = "The pictures were left out, since the page would have grown too large."
_NO_ROOM = "The others are left out, since the page would have grown too large."


def write_report(result: BenchmarkResult, out: Path, *, with_pictures: bool = True) -> Path:
    """Write the report of `result` into `out` and return the path of the page.

    The pictures that `result.comparisons` names are taken from `out`; those that are not there are left out.
    """
    result.write(out / "benchmark.json")
    atomic.write_text(out / "benchmark.md", report_markdown(result))
    page = out / "index.html"
    atomic.write_text(page, report_html(result, out if with_pictures else None))
    return page


def render_stored(file: Path, out: Path) -> Path:
    """Write the report of a stored result into `out`, with the pictures beside `file`, and return the page's path.

    Raises:
        ConfigError: the file is missing or is not a benchmark's result, or `out` holds another report.
    """
    result = read_result(file)
    require_no_trainings(out)
    if (out / "benchmark.json").exists() and read_result(out / "benchmark.json") != result:
        raise ConfigError(f"{out}: holds another benchmark, which would be lost; give another --out")
    if out.resolve() != file.parent.resolve():
        remove_pictures(out)
    for comparison in result.comparisons:
        for picture in comparison.pictures:
            source, target = file.parent / picture.file, out / picture.file
            if source.is_file() and source.resolve() != target.resolve():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
    return write_report(result, out, with_pictures=bool(result.comparisons))


def require_no_trainings(out: Path) -> None:
    """Refuse a folder whose page is that of trainings.

    Raises:
        ConfigError: it is.
    """
    if (out / "trainings.json").exists():
        raise ConfigError(f"{out}: holds a report of trainings, whose page would be lost; give another --out")


def report_html(result: BenchmarkResult, pictures: Path | None) -> str:
    """Return the page of `result`, with the pictures below the folder `pictures` embedded; without any for None."""
    room = _PAGE_BUDGET - len(_page(result, [], "").encode()) if pictures and result.comparisons else 0
    return _page(result, *_embedded(result.comparisons, pictures, room))


Layers = list[tuple[str, str]]


def _page(result: BenchmarkResult, comparisons: list[tuple[Comparison, Layers]], why_not: str) -> str:
    return render_page(
        "benchmark.html",
        "Benchmark report",
        report_data(result),
        result=result,
        rows=result.rows,
        columns=columns_of(result.rows),
        column_groups=[(name, len(list(group))) for name, group in groupby(c.group for c in columns_of(result.rows))],
        summary=summary(result),
        recommendations={
            machine: list(group) for machine, group in groupby(recommendations(result), key=lambda one: one.machine)
        },
        colors={row.name: f"var(--row-{index % ROW_COLORS})" for index, row in enumerate(result.rows)},
        comparisons=comparisons,
        why_not=why_not,
        image_miou={row.name: row.accuracy.image_miou for row in result.rows if row.accuracy},
        conditions=formatting.flat(result.machine),
        options=formatting.flat(result.options),
        few_samples=_few_samples(result),
        batch_errors=[(row.name, point) for row in result.rows for point in row.throughput if point.error],
        rule=RULE,
        boundary_rule=BOUNDARY_RULE,
        interval_note=formatting.INTERVAL_NOTE,
        resamples=RESAMPLES,
        stable_within=STABLE_WITHIN,
        window_runs=WINDOW_RUNS,
        least_samples=LEAST_SAMPLES,
        wanted_samples=WANTED_SAMPLES,
        not_measured=reasons(result.rows),
        samples_for_p99=SAMPLES_FOR_P99,
    )


def _few_samples(result: BenchmarkResult) -> list[str]:
    """Name the distributions whose p99 says little: of each row, and of the interleaved timing."""
    few = []
    for row in result.rows:
        parts = {"latency": row.latency.total} if row.latency else {}
        parts |= {f"batch {point.batch}": point.total for point in row.throughput if point.total}
        if named := [part for part, times in parts.items() if times.samples < SAMPLES_FOR_P99]:
            few.append(f"{row.name} ({', '.join(named)})")
    contenders = result.interleaved.contenders if result.interleaved else []
    if any(contender.total and contender.total.samples < SAMPLES_FOR_P99 for contender in contenders):
        few.append("the interleaved timing")
    return few


def _embedded(
    comparisons: list[Comparison], folder: Path | None, room: int
) -> tuple[list[tuple[Comparison, Layers]], str]:
    """Return each comparison with (title, data URI) of its pictures, as many as there is room for, and why not all."""
    if folder is None:
        return [], _WITHOUT_PICTURES
    embedded: list[tuple[Comparison, Layers]] = []
    for comparison in comparisons:
        layers = [
            (picture.title, _data_uri(path))
            for picture in comparison.pictures
            if (path := folder / picture.file).is_file()
        ]
        room -= sum(len(uri) for _, uri in layers)
        if room < 0:
            return embedded, _NO_ROOM if embedded else _NO_ROOM_AT_ALL
        if layers:
            embedded.append((comparison, layers))
    return embedded, "" if embedded or not comparisons else _NOT_THERE


def _data_uri(path: Path) -> str:
    kind = {".jpg": "image/jpeg", ".png": "image/png"}[path.suffix]
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
