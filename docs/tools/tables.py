"""Write the generated tables of the Markdown files; with `--check`, only name the files whose tables are outdated.

A table stands between `<!-- table: NAME -->` and `<!-- end of table -->`; NAME is a key of `TABLES`. The tables come
from the package itself and from the files in `benchmarks/results/`. `make tables` runs this.
"""

import json
import math
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from typer.main import get_command

from segkc_deploy.benchmarks.studies.analysis import StudyAnalysis
from segkc_deploy.benchmarks.studies.headroom import headroom_table
from segkc_deploy.benchmarks.studies.scaling import PairRow, ScalingResult
from segkc_deploy.benchmarks.studies.study_rows import read_rows
from segkc_deploy.cli import app
from segkc_deploy.engines import ENGINES, EngineEntry
from segkc_deploy.machine import cpu_text
from segkc_deploy.training.recipe import Recipe
from segkc_deploy.training.recipe_file import load_recipe, shipped_recipes
from segkc_deploy.training.recipe_table import COLUMNS, recipe_cells
from segkc_deploy.training.resuming import FREE_OVERRIDES

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks/results"
MARKED = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right_from: int = 99) -> str:
    """Return a Markdown table; the columns from `right_from` on are aligned to the right."""
    rows = list(rows)
    assert all(len(row) == len(header) for row in rows), "a row has as many cells as the header"
    alignment = ["--:" if column >= right_from else ":--" for column in range(len(header))]
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, alignment, *rows))


def commands() -> str:
    """Return every command with the first sentence of its help."""
    known = get_command(app).commands  # type: ignore[attr-defined]
    rows = [(f"`{name}`", _first_sentence(command.help)) for name, command in known.items()]
    return table(("command", "what it does"), rows)


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[.])\s", paragraph)[0].replace("|", "\\|")


def recipes() -> str:
    """Return every shipped recipe, as `segkc-deploy recipes` lists them."""
    rows = [recipe_cells(load_recipe(name)) for name in shipped_recipes()]
    return table(COLUMNS, [(f"`{name}`", *cells) for name, *cells in rows])


def engines() -> str:
    """Return the table of engines."""
    rows = [
        (f"`{entry.name}`", entry.files, entry.built_on, entry.runs_on, _needs(entry), ", ".join(entry.precisions))
        for entry in ENGINES.values()
    ]
    return table(("`--engine`", "file", "built on", "runs on", "extra", "`--precision`"), rows)


def _needs(entry: EngineEntry) -> str:
    extra = f"`{entry.extra}`" if entry.extra else "none"
    return f"{extra}: [{entry.page}]({entry.page})" if entry.page else extra


def report_rows() -> str:
    """Return the README's rows: what each form of the network costs and keeps, from the committed report."""
    report = _report()
    interleaved = {one["name"]: one for one in report["interleaved"]["contenders"]}
    rows = []
    for name, label in REPORT_ROWS.items():
        (row,) = [row for row in report["rows"] if row["name"] == name]
        accuracy = row["accuracy"]
        low, high = accuracy["miou_interval"]
        agreement = f"{math.floor(1000 * accuracy['agreement']) / 1000}%" if row["role"] == "artifact" else "–"
        size = (f"{row['parameters'] / 1e6:.2f} M", f"{row['file_bytes'] / 2**20:.1f} MiB")
        score = f"{accuracy['miou']:.1f} ({low:.1f} to {high:.1f})"
        rows.append((label, *size, score, agreement, f"{interleaved[name]['total']['p50']:.1f} ms"))
    header = ("network", "parameters", "file", "mIoU (95% interval)", "pixels with the junior's class", "latency p50")
    return table(header, rows, right_from=1)


#: The rows that the README shows: their names in the report, and what a reader who does not know it calls them.
REPORT_ROWS = {
    "segkc-speed senior": "senior, PyTorch",
    "segkc-speed junior": "junior, PyTorch",
    "junior-fp32.onnx": "exported junior, ONNX Runtime, FP32",
    "junior-int8.onnx": "exported junior, ONNX Runtime, INT8",
    "junior-fp32.xml": "exported junior, OpenVINO, FP32",
}


def report_interleaved() -> str:
    """Return the interleaved timing of the committed report, the usual baselines first."""
    rows = []
    for one in _report()["interleaved"]["contenders"]:
        low, high = one["speed_interval"]
        name = one["name"].removeprefix("segkc-speed ")
        numbers = (f"{one['total']['p50']:.1f} ms", f"{one['speed']:.2f} ({low:.2f} to {high:.2f})")
        rows.append((name, one["engine"], *numbers, f"{one['same_masks']:.1f}%"))
    header = ("contender", "engine", "latency p50", "times as fast (95% interval)", "pixels with the baseline's class")
    return table(header, rows, right_from=2)


def _report() -> dict[str, Any]:
    return json.loads((RESULTS / "camvid-report/benchmark.json").read_text())


def methods() -> str:
    """Return the junior's mIoU of every method with several seeds: mean ± sample standard deviation."""
    rows = [row for row in _study("camvid-methods") if row["role"] == "junior" and row["labels"] == "1/8"]
    lines = []
    for name, group in _grouped(rows, "row"):
        scores = [row["miou"] for row in group]
        if len(scores) > 1:
            score = f"{statistics.fmean(scores):.1f} ± {statistics.stdev(scores):.1f}"
            lines.append((f"`{name}`", str(len(scores)), score))
    return table(("row", "seeds", "junior mIoU (%)"), lines, right_from=1)


def steel() -> str:
    """Return what unlabeled pictures of steel add to few labels, and what more labels would."""
    rows = read_rows(RESULTS / "neu-steel.json")
    return headroom_table(StudyAnalysis(rows), "1/32") or ""


def facades() -> str:
    """Return the same of street photographs."""
    rows = read_rows(RESULTS / "labelmefacade.json")
    return headroom_table(StudyAnalysis(rows), "1/16") or ""


def longer_steel() -> str:
    """Return the same of steel in longer trainings."""
    return headroom_table(StudyAnalysis(read_rows(RESULTS / "neu-steel-long.json")), "1/32") or ""


def longer_facades() -> str:
    """Return the same of street photographs in longer trainings."""
    return headroom_table(StudyAnalysis(read_rows(RESULTS / "labelmefacade-long.json")), "1/16") or ""


def pseudo_labels() -> str:
    """Return by data set and rule how much pseudo-labels count, and how many of those that count are right."""
    lines = []
    for name in ("neu-steel", "labelmefacade"):
        found = json.loads((RESULTS / "pseudo-labels" / f"{name}.json").read_text())
        for rule, quality in found["rules"].items():
            of_class = [value for value in quality["right_of_class"] if value is not None]
            areas = [value for value in quality["area_of_class"] if value is not None]
            values = (quality["counted"], quality["right"], statistics.fmean(of_class), min(of_class), max(areas))
            lines.append((name, f"`{rule}`", *(f"{value:.1f}%" for value in values)))
    header = (
        "images",
        "`confidence_threshold`",
        "counted",
        "of these right",
        "right, mean of classes",
        "worst class",
        "largest area of a class",
    )
    return table(header, lines, right_from=2)


def input_scales() -> str:
    """Return by training the mIoU of its junior's masks at several scales of its input."""
    lines = []
    for path in sorted((RESULTS / "input-scales").glob("*.json"), key=_steps_and_name):
        steps, name = _steps_and_name(path)
        scales = json.loads(path.read_text())["scales"]
        lines.append((name, f"{steps:,}", *(f"{scores['miou']:.1f}" for scores in scales.values())))
    return table(("row, labels", "steps", *(f"{scale}×" for scale in scales)), lines, right_from=1)


def _steps_and_name(path: Path) -> tuple[int, str]:
    """Return the steps and the row that the name of a file of `input-scales` states."""
    _, steps, row = path.stem.split("-", 2)
    return int(steps), f"{row}, 1/32"


def resume_overrides() -> str:
    """Return the recipe values that a resumed run may be given, with what each of them is."""
    rows = []
    for name in FREE_OVERRIDES:
        section, _, key = f".{name}".rpartition(".")
        model = getattr(Recipe.model_construct(), section.strip("."), None)
        field = (type(model) if model else Recipe).model_fields[key]
        assert field.description is not None
        rows.append((f"`{name}`", field.description))
    return table(("`-o`", "what it is"), rows)


def gradients() -> str:
    """Return by pair of networks how many parameters learn, and the bytes of their gradients."""
    rows = [
        (f"`{row.recipe}`", f"{row.junior}, {row.senior}", f"{row.parameters / 1e6:.1f} M", _megabytes(row))
        for row in _scaling().pairs
    ]
    return table(("recipe", "junior, senior", "parameters that learn", "gradients"), rows, right_from=2)


def ranks() -> str:
    """Return how long a step takes that several processes of one machine share."""
    result = _scaling()
    rows = [
        (str(row.ranks), f"{row.seconds:.2f} s", f"{row.fastest:.2f} to {row.slowest:.2f} s", str(row.steps))
        for row in result.ranks
    ]
    what = (
        f"`{result.timed_recipe}` at {result.timed_crop}, {cpu_text(result.machine)}, one thread a process;"
        f" {result.remark}. `{result.command}`\n"
    )
    return (
        what + "\n" + table(("processes (gloo)", "a step, median", "fastest to slowest", "steps"), rows, right_from=1)
    )


def scaling_on_paper() -> str:
    """Return how long the gradients would take on 8 and 64 GPUs, from their bytes and three bandwidths."""
    rows = []
    for row in _scaling().pairs:
        inside, fast, slow = (_ring_ms(row, count, speed) for count, speed in ((8, 450), (64, 400), (64, 12.5)))
        cells = (f"{inside:.1f} ms", f"{fast:.1f} ms", f"{slow:.0f} ms", f"{19 * slow / 1000:.1f} s")
        rows.append((f"`{row.recipe}`", *cells))
    header = ("recipe", "8, NVLink", "64, eight adapters a machine", "64, one adapter a machine", "95% from")
    return table(header, rows, right_from=1)


def _ring_ms(row: PairRow, devices: int, gigabytes_per_s: float) -> float:
    return 1e3 * 2 * (devices - 1) / devices * row.gradient_bytes / (1e9 * gigabytes_per_s)


def _megabytes(row: PairRow) -> str:
    return f"{row.gradient_bytes / 1e6:.0f} MB"


def _scaling() -> ScalingResult:
    return ScalingResult.model_validate_json((RESULTS / "scaling.json").read_bytes())


def juniors() -> str:
    """Return what the junior of each recipe for one's own images costs, by engine."""
    files = ("inference-speed-dinov2.json", "inference-speed.json")
    rows = [row for name in files for row in json.loads((RESULTS / name).read_text())["rows"]]
    lines = []
    for name, group in _grouped([row for row in rows if row["image"] == JUNIOR_IMAGE], "network"):
        times = {row["variant"]: row["p50_ms"] for row in group}
        network = name.partition(",")[0]
        costs = (f"{group[0]['params_m']:.2f} M", f"{group[0]['gflop']:.1f}")
        cells = [f"{times[variant]:.1f}" if times[variant] else "–" for variant in JUNIOR_VARIANTS]
        fastest = min(time for variant in JUNIOR_VARIANTS if (time := times[variant]))
        lines.append((network, f"`{JUNIOR_RECIPES[network]}`", *costs, *cells, f"{1e3 / fastest:.0f}"))
    header = ("junior", "recipe", "parameters", "GFLOP", *(f"{variant}, ms" for variant in JUNIOR_VARIANTS), "images/s")
    return table(header, lines, right_from=2)


JUNIOR_IMAGE = "500x375"
JUNIOR_VARIANTS = ("onnx fp32", "openvino fp32", "openvino bf16", "openvino int8", "openvino int8-bf16")
JUNIOR_RECIPES = {
    "DINOv2-S + DPT": "own-data-24gb",
    "ConvNeXt-Nano + FPN": "own-data-24gb-convnext-nano",
    "EfficientNet-Lite0 + FPN": "own-data-cpu",
    "MobileNetV4-S + FPN": "own-data-cpu-mobilenetv4-s",
    "MobileNetV4-S x0.5 + FPN": "own-data-cpu-mobilenetv4-xs",
}


def _study(name: str) -> list[dict[str, Any]]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def _grouped(rows: list[dict[str, Any]], key: str) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    """Yield the groups of rows with one value of `key`, in the order of their first rows."""
    order = list(dict.fromkeys(row[key] for row in rows))
    ordered = sorted(rows, key=lambda row: order.index(row[key]))
    return ((value, list(group)) for value, group in groupby(ordered, key=lambda row: row[key]))


TABLES: dict[str, Callable[[], str]] = {
    "commands": commands,
    "recipes": recipes,
    "engines": engines,
    "report-rows": report_rows,
    "report-interleaved": report_interleaved,
    "methods": methods,
    "steel": steel,
    "facades": facades,
    "steel-long": longer_steel,
    "facades-long": longer_facades,
    "pseudo-labels": pseudo_labels,
    "input-scales": input_scales,
    "juniors": juniors,
    "resume": resume_overrides,
    "gradients": gradients,
    "ranks": ranks,
    "scaling-on-paper": scaling_on_paper,
}


def with_tables(text: str) -> str:
    """Return a Markdown file's text with every marked table written anew."""

    def written(match: re.Match[str]) -> str:
        return f"{match[1]}\n{TABLES[match['name']]()}\n{match[3]}"

    return MARKED.sub(written, text)


def markdown_files() -> list[Path]:
    """Return the Markdown files that may hold generated tables."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def outdated() -> dict[Path, str]:
    """Return the files whose tables are not current, each with its current text."""
    texts = {path: path.read_text(encoding="utf-8") for path in markdown_files()}
    current = {path: with_tables(text) for path, text in texts.items()}
    return {path: text for path, text in current.items() if text != texts[path]}


def main(arguments: Sequence[str]) -> int:
    """Write the tables, or with `--check` name the files that hold outdated ones; return the exit code."""
    found = outdated()
    for path, text in found.items():
        print(
            path.relative_to(ROOT),
            "holds an outdated table; `make tables` writes it" if "--check" in arguments else "written",
        )
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
    return 1 if found and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
