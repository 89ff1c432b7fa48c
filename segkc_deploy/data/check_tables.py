"""A check's report for people (rich tables) and for programs (JSON)."""

import json
from collections.abc import Iterator
from dataclasses import asdict

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from segkc_deploy.data.check import CheckReport, Finding
from segkc_deploy.data.set_report import SetReport, Sizes
from segkc_deploy.labels import Labels

FILES_NAMED = 10

_BAR_WIDTH = 8


def print_report(report: CheckReport, console: Console) -> None:
    """Print the figures of every set, then the findings with the first files of each."""
    console.print(_sets_table(report.sets))
    if masked := [one for one in report.sets if one.masks]:
        console.print(_classes_table(report.labels, masked))
    for finding in report.findings:
        for line in _finding_lines(finding):
            console.print(line, soft_wrap=True)
    errors = "no errors" if not report.errors else f"{report.errors} {'error' if report.errors == 1 else 'errors'}"
    warnings = f"{report.warnings} {'warning' if report.warnings == 1 else 'warnings'}"
    console.print(f"[bold {'red' if report.errors else 'green'}]{errors}[/], {warnings}", soft_wrap=True)


def to_json(report: CheckReport) -> str:
    """Return the whole report, every file of every finding included, as JSON."""
    data = {
        "labels": report.labels.model_dump(),
        "sets": [asdict(one) for one in report.sets],
        "findings": [asdict(finding) for finding in report.findings],
        "errors": report.errors,
        "warnings": report.warnings,
    }
    return json.dumps(data, indent=2) + "\n"


def _sets_table(sets: tuple[SetReport, ...]) -> Table:
    table = Table("set", "images", "masks", "smallest", "median", "largest", "distinct sizes", title="Images")
    for column in table.columns[1:]:
        column.justify = "right"
    for one in sets:
        table.add_row(one.name, str(one.images), str(one.masks), *_size_cells(one.sizes))
    return table


def _size_cells(sizes: Sizes | None) -> tuple[str, ...]:
    if sizes is None:
        return ("-",) * 4
    shown = (f"{width}x{height}" for height, width in (sizes.smallest, sizes.median, sizes.largest))
    return (*shown, str(sizes.distinct))


def _classes_table(labels: Labels, sets: list[SetReport]) -> RenderableType:
    table = Table(title="Classes")
    table.add_column("id", justify="right")
    table.add_column("class")
    for one in sets:
        table.add_column(f"{one.name}: pixels", no_wrap=True)
        table.add_column("images", justify="right")
    for index, (name, color) in enumerate(zip(labels.names, labels.palette, strict=True)):
        cells: list[RenderableType] = []
        for one in sets:
            cells += [_bar(one, index), str(one.class_images[index])]
        table.add_row(str(index), Text.assemble(("■ ", f"rgb({color[0]},{color[1]},{color[2]})"), name), *cells)
    ignored: list[RenderableType] = []
    for one in sets:
        total = one.labeled_pixels + one.ignored_pixels
        ignored += [f"{100 * one.ignored_pixels / max(total, 1):6.2f}% of all", ""]
    table.add_row(str(labels.ignore_index), "  ignored", *ignored)
    return Group(table, Text("Pixels in percent of the labeled ones; images: how many hold the class.", style="dim"))


def _bar(report: SetReport, index: int) -> Text:
    share = report.class_pixels[index] / max(report.labeled_pixels, 1)
    largest = max(report.class_pixels) / max(report.labeled_pixels, 1)
    filled = round(_BAR_WIDTH * share / largest) if largest else 0
    return Text(f"{100 * share:6.2f}% {'█' * filled}")


def _finding_lines(finding: Finding) -> Iterator[str]:
    color = "red" if finding.level == "error" else "yellow"
    number = len(finding.files)
    count = f" ({number} {'file' if number == 1 else 'files'})" if number else ""
    yield f"[bold {color}]{finding.level}[/]{count}: {escape(finding.message)}"
    yield from (f"    {escape(line)}" for line in finding.files[:FILES_NAMED])
    if len(finding.files) > FILES_NAMED:
        yield f"    … and {len(finding.files) - FILES_NAMED} more"
