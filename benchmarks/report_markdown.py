"""The report as Markdown, for a README or a pull request."""

from segkc_deploy.benchmarks import formatting as f
from segkc_deploy.benchmarks.schema import BenchmarkResult, Row
from segkc_deploy.benchmarks.tables import markdown
from segkc_deploy.benchmarks.verdict import verdict


def report_markdown(result: BenchmarkResult) -> str:
    """Return the verdict, the tables and the conditions of a benchmark as Markdown."""
    parts = ["# Benchmark", " ".join(verdict(result)), _main_table(result.rows)]
    parts += ["## Latency at batch 1 (ms)", _latency_table(result.rows)]
    parts += ["## Throughput (images/s, end to end)", _throughput_table(result.rows)]
    parts += ["## Accuracy (%)", _accuracy_table(result.rows), f.INTERVAL_NOTE]
    parts += ["## IoU per class (%)", _class_table(result, "iou", "miou")]
    if any(row.accuracy and row.accuracy.boundary_iou for row in result.rows):
        parts += ["## Boundary IoU per class (%)", _class_table(result, "boundary_iou", "boundary_miou")]
    if result.failures:
        parts += ["## Errors", *(f"- {failure.name}: {failure.error}" for failure in result.failures)]
    if result.notes:
        parts += ["## Notes", *(f"- {note}" for note in result.notes)]
    conditions = [f"- {name}: {value}" for name, value in (*f.flat(result.machine), *result.versions.items())]
    parts += ["## Conditions", f"- date: {result.created}\n- data: {result.data}\n" + "\n".join(conditions)]
    parts += [f"```\n{result.command}\n```"]
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def _main_table(rows: list[Row]) -> str:
    header = ["row", "role", "engine", "precision", "input", "params", "FLOPs", "file MiB", "mIoU %", "pixel acc. %"]
    header += ["agreement %", "p50 ms", "p99 ms", "peak MiB", "cold start s"]
    lines = []
    for row in rows:
        scores, total = row.accuracy, row.latency.total if row.latency else None
        line = [row.name, row.role, row.engine, row.precision, f"{row.size[0]}×{row.size[1]}"]
        line += [f.quantity(row.parameters), f.quantity(row.flops), f.mebibytes(row.file_bytes)]
        line += [f.percent(scores.miou), f.percent(scores.pixel_accuracy)] if scores else [f.MISSING] * 2
        line += [f.agreement(scores.agreement if scores else None)]
        line += [f.significant(total.p50), f.significant(total.p99)] if total else [f.MISSING] * 2
        line += [f.significant(row.memory.host_peak_mib), f.significant(row.cold_start_s)]
        lines.append(line)
    return markdown(header, lines, right_from=5)


def _latency_table(rows: list[Row]) -> str:
    header = ["row", "stage", "p50", "p90", "p99", "max", "mean", "std", "cv %", "samples"]
    lines = []
    for row in rows:
        if row.latency is None:
            continue
        stages = {"pre": row.latency.preprocess, "infer": row.latency.infer, "post": row.latency.postprocess}
        for stage, times in (*stages.items(), ("end to end", row.latency.total)):
            figures = (times.p50, times.p90, times.p99, times.max, times.mean, times.std)
            line = [f.significant(value) for value in figures]
            lines.append([row.name, stage, *line, f.percent(100 * times.cv), str(times.samples)])
    return markdown(header, lines, right_from=2)


def _throughput_table(rows: list[Row]) -> str:
    batches = sorted({point.batch for row in rows for point in row.throughput})
    lines = []
    for row in rows:
        rates = {point.batch: point.images_per_s for point in row.throughput}
        lines.append([row.name, *(f.significant(rates.get(batch)) for batch in batches)])
    return markdown(["row", *(f"batch {batch}" for batch in batches)], lines, right_from=1) if batches else ""


def _accuracy_table(rows: list[Row]) -> str:
    header = ["row", "compared with", "mIoU", "95% interval", "boundary IoU", "pixel acc.", "agreement"]
    lines = []
    for row in rows:
        if row.accuracy is None:
            continue
        scores = row.accuracy
        line = [row.name, scores.agreement_with or f.MISSING, f.percent(scores.miou)]
        line += [f.percent_range(scores.miou_interval), f.percent(scores.boundary_miou)]
        line += [f.percent(scores.pixel_accuracy), f.agreement(scores.agreement)]
        lines.append([*line, f.difference(scores.miou_difference, scores.miou_difference_interval)])
    return markdown([*header, "difference of mIoU (95% interval)"], lines, right_from=2)


def _class_table(result: BenchmarkResult, field: str, mean: str) -> str:
    """Return the table of a figure per class, the field `field` of an accuracy, and its mean over them."""
    scored = [(row.name, row.accuracy) for row in result.rows if row.accuracy and getattr(row.accuracy, field)]
    lines = [
        [name, *(f.percent(getattr(accuracy, field)[index]) for _, accuracy in scored)]
        for index, name in enumerate(result.labels.names)
    ]
    lines.append(["**mean**", *(f.percent(getattr(accuracy, mean)) for _, accuracy in scored)])
    return markdown(["class", *(name for name, _ in scored)], lines, right_from=1) if scored else ""
