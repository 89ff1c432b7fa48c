"""The report as Markdown, for a README or a pull request."""

from collections.abc import Iterable

from segkc_deploy.benchmarks.report import formatting as f
from segkc_deploy.benchmarks.report.markdown_table import markdown
from segkc_deploy.benchmarks.report.not_measured import reasons
from segkc_deploy.benchmarks.report.recommendations import recommendations
from segkc_deploy.benchmarks.report.row_columns import columns_of
from segkc_deploy.benchmarks.report.summary import summary
from segkc_deploy.benchmarks.schema import BenchmarkResult, InterleavedTiming, Row


def report_markdown(result: BenchmarkResult) -> str:
    """Return the summary, the tables and the conditions of a benchmark as Markdown."""
    rows = result.rows
    sections = {
        "": _row_table(rows, ""),
        "Accuracy": _accuracy(rows),
        "Latency at batch 1 (ms)": _latency_table(rows),
        "Interleaved timing": _interleaved_table(result.interleaved) if result.interleaved else "",
        "Throughput (images/s, end to end)": _throughput_table(rows),
        "Sustained load and energy": _sustained_table(rows),
        "Size": _row_table(rows, "size"),
        "Memory and start": _row_table(rows, "memory and start"),
        "Roofline": _roofline(result),
        "IoU per class (%)": _class_table(result, "iou", "miou"),
        "Boundary IoU per class (%)": _class_table(result, "boundary_iou", "boundary_miou"),
        "Errors": _list(f"{failure.name}: {failure.error}" for failure in result.failures),
        "Not measured": _list(_not_measured(rows)),
        "Notes": _list(result.notes),
        "Conditions": _conditions(result),
    }
    parts = ["# Benchmark", _flags(rows), " ".join(summary(result)), _recommendations_table(result)]
    for title, body in sections.items():
        if body:
            parts += [f"## {title}" if title else "", body]
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _flags(rows: list[Row]) -> str:
    flagged = [
        f"> **Unreliable timings** of {row.name}: {'; '.join(row.state.flags)}" for row in rows if row.state.flags
    ]
    return "\n>\n".join(flagged)


def _recommendations_table(result: BenchmarkResult) -> str:
    chosen = recommendations(result)
    lines = [
        [one.purpose, one.row.name, "; ".join([one.metric, *one.remarks]), ", ".join(one.costs) or f.MISSING]
        for one in chosen
    ]
    return markdown(["for", "ship", "because of", "at the cost of"], lines, right_from=4) if lines else ""


def _row_table(rows: list[Row], group: str) -> str:
    """Return the columns of one group of the page's table of rows."""
    columns = [column for column in columns_of(rows) if column.group == group]
    header = ["row", *(f"{column.title} ({column.unit})" if column.unit else column.title for column in columns)]
    lines = [[row.name, *(column.text(row) for column in columns)] for row in rows]
    texts = sum(column.is_text for column in columns)
    return markdown(header, lines, right_from=1 + texts) if columns else ""


def _accuracy(rows: list[Row]) -> str:
    table = _row_table(rows, "accuracy")
    compared = dict.fromkeys(row.accuracy.agreement_with for row in rows if row.accuracy)
    juniors = [name for name in compared if name is not None]
    with_whom = f"The junior is {', '.join(juniors)}. " if juniors else ""
    return table and f"{table}\n{with_whom}{f.INTERVAL_NOTE}"


def _latency_table(rows: list[Row]) -> str:
    header = ["row", "stage", "p50", "p90", "p99", "max", "mean", "std", "cv %", "samples"]
    lines = []
    for row in rows:
        if row.latency is None:
            continue
        stages = {
            "pre": row.latency.preprocess,
            "infer": row.latency.infer,
            "post": row.latency.postprocess,
            "end to end": row.latency.total,
            "GPU time of infer": row.latency.device,
            "end to end, CUDA graph": row.latency_cuda_graph.total if row.latency_cuda_graph else None,
        }
        for stage, times in stages.items():
            if times is None:
                continue
            figures = (times.p50, times.p90, times.p99, times.max, times.mean, times.std)
            line = [f.significant(value) for value in figures]
            lines.append([row.name, stage, *line, f.percent(100 * times.cv), str(times.samples)])
    return markdown(header, lines, right_from=2) if lines else ""


def _interleaved_table(timing: InterleavedTiming) -> str:
    header = [
        "contender",
        "kind",
        "engine",
        "times as fast",
        "95% interval",
        "quartiles",
        "p50 ms",
        "p99 ms",
        "same masks %",
    ]
    lines = []
    for contender in timing.contenders:
        line = [contender.name, contender.kind, contender.engine]
        if contender.error:
            lines.append([*line, contender.error, *[f.MISSING] * 5])
            continue
        line += [f.significant(contender.speed), _ends(contender.speed_interval), _ends(contender.speed_quartiles)]
        line += (
            [f.significant(contender.total.p50), f.significant(contender.total.p99)]
            if contender.total
            else [f.MISSING] * 2
        )
        lines.append([*line, f.agreement(contender.same_masks)])
    about = (
        f"{timing.rounds} rounds of {timing.runs} alternating runs of each contender, compared with {timing.reference}."
    )
    return f"{about}\n\n{markdown(header, lines, right_from=3)}"


def _ends(ends: tuple[float, float] | None) -> str:
    return f.MISSING if ends is None else " to ".join(f.significant(end) for end in ends)


def _throughput_table(rows: list[Row]) -> str:
    batches = sorted({point.batch for row in rows for point in row.throughput})
    lines = []
    for row in rows:
        rates = {point.batch: point.images_per_s for point in row.throughput}
        lines.append([row.name, *(f.significant(rates.get(batch)) for batch in batches)])
    return markdown(["row", *(f"batch {batch}" for batch in batches)], lines, right_from=1) if batches else ""


def _sustained_table(rows: list[Row]) -> str:
    header = ["row", "meter", "batch", "seconds", "images", "images/s", "drift %", "J per image", "W", "idle W"]
    lines = []
    for row in rows:
        load = row.sustained
        if load is None:
            continue
        power = load.energy
        line = [row.name, power.source if power else f.MISSING, str(load.batch), f.significant(load.seconds)]
        line += [str(load.images), f.significant(load.images_per_s), f.signed_percent(load.drift)]
        figures = (power.joules_per_image, power.watts, power.idle_watts) if power else (None, None, None)
        lines.append([*line, *(f.significant(value) for value in figures)])
    return markdown(header, lines, right_from=2) if lines else ""


def _roofline(result: BenchmarkResult) -> str:
    """Return the table of the machine's peaks and that of the rows' bounds."""
    peaks = []
    for peak in result.peaks:
        figures = [f.significant(peak.gflops), f.significant(peak.copy_gb_per_s)]
        threads = f.MISSING if peak.threads is None else str(peak.threads)
        peaks.append([peak.device, peak.precision, peak.how, threads, *figures])
    bounds = []
    for row in result.rows:
        if row.roofline:
            times = [f.significant(row.roofline.compute_ms), f.significant(row.roofline.memory_ms)]
            bounds.append([row.name, row.roofline.peak, row.roofline.bound, *times, f.percent(row.roofline.efficiency)])
    tables = {
        ("device", "precision", "how", "threads", "matrix product GFLOP/s", "copy GB/s"): peaks,
        ("row", "peak", "bound by", "compute ms", "memory ms", "efficiency % of infer"): bounds,
    }
    return "\n".join(markdown(header, lines, right_from=3) for header, lines in tables.items() if lines)


def _class_table(result: BenchmarkResult, field: str, mean: str) -> str:
    """Return the table of a figure per class, the field `field` of an accuracy, and its mean over them."""
    scored = [(row.name, row.accuracy) for row in result.rows if row.accuracy and getattr(row.accuracy, field)]
    lines = [
        [name, *(f.percent(getattr(accuracy, field)[index]) for _, accuracy in scored)]
        for index, name in enumerate(result.labels.names)
    ]
    lines.append(["**mean**", *(f.percent(getattr(accuracy, mean)) for _, accuracy in scored)])
    return markdown(["class", *(name for name, _ in scored)], lines, right_from=1) if scored else ""


def _not_measured(rows: list[Row]) -> Iterable[str]:
    yield from (f"{reason.metric}: {reason.why} ({reason.whom})" for reason in reasons(rows))
    for row in rows:
        yield from (f"{row.name}: batch {point.batch}: {point.error}" for point in row.throughput if point.error)


def _conditions(result: BenchmarkResult) -> str:
    values = [("date", result.created), ("data", result.data), *f.flat(result.machine), *result.versions.items()]
    values += [(f"option {name}", value) for name, value in f.flat(result.options)]
    return _list(f"{name}: {value}" for name, value in values) + f"\n\n```\n{result.command}\n```"
