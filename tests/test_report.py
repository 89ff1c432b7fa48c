"""The report of made-up results with awkward values, and the tables of studies."""

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from made_up_results import full_row, latency, result
from tiny_artifact import make_artifact

from segkc_deploy.benchmarks import figures, formatting
from segkc_deploy.benchmarks.gate import main as gate_main
from segkc_deploy.benchmarks.report import write_report
from segkc_deploy.benchmarks.results import append_rows, read_rows, study_rows
from segkc_deploy.benchmarks.schema import (
    Accuracy,
    BatchPoint,
    BenchmarkResult,
    Cell,
    Comparison,
    Failure,
    Row,
)
from segkc_deploy.benchmarks.study import main as study_main
from segkc_deploy.benchmarks.svg import spread
from segkc_deploy.benchmarks.tables import main as tables_main
from segkc_deploy.benchmarks.tables import study_table
from segkc_deploy.benchmarks.verdict import verdict
from segkc_deploy.errors import ConfigError
from segkc_deploy.manifest import Verification

EVIL = '<script>alert(1)</script> & $x_1$ | "quoted"'


class Page(HTMLParser):
    """Collects tags, ids and everything that a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for key, value in attributes:
            if key == "id":
                self.ids.append(value or "")
            if key in ("src", "href", "xlink:href", "srcset", "data", "action") and not (value or "").startswith("#"):
                self.fetched.append(value or "")


def read_page(out: Path) -> tuple[str, Page]:
    text = (out / "index.html").read_text()
    return text, Page(text)


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


AWKWARD = {
    "nothing": [],
    "one row": [full_row("junior", "junior", 50.0, 20.0)],
    "nothing measured": [Row(name="j", role="junior", target="a", engine="b", precision="fp32", size=(8, 8))],
    "nan": [
        full_row(
            "j", "junior", 50.0, 20.0,
            accuracy=Accuracy(images=1, miou=float("nan"), pixel_accuracy=float("nan"), iou=[float("nan"), 20.0]),
            cold_start_s=float("inf"),
        )
    ],
    "one sample, equal times": [full_row("j", "junior", 0.0, 20.0, latency=latency(20.0, 1))],
    "one batch": [full_row("j", "junior", 99.9, 20.0, throughput=[BatchPoint(batch=8, images_per_s=9.0)])],
    "failed batch": [full_row("j", "junior", 50.0, 20.0, throughput=[BatchPoint(batch=8, error="too large")])],
    "long names": [full_row("n" * 150 + f"{i}", "artifact", 50.0 + i, 20.0 + i) for i in range(3)],
    "twelve equal points": [full_row(f"row {i}", "artifact", 50.0, 20.0) for i in range(12)],
    "markup": [full_row(EVIL, "junior", 50.0, 20.0)],
}  # fmt: skip


@pytest.mark.parametrize("case", AWKWARD)
def test_awkward_results(case: str, tmp_path: Path) -> None:
    made = result(AWKWARD[case], (EVIL, "sky"), failures=[Failure(name="x", role="senior", target="y", error=EVIL)])
    write_report(made, tmp_path)
    text, page = read_page(tmp_path)
    assert "script" not in page.tags
    assert "&lt;script&gt;" in text
    assert page.fetched == []
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    assert len(page.ids) == len(set(page.ids))
    assert not re.search(r"\b(nan|NaN|inf|None)\b", re.sub(r"<style>.*?</style>", "", text, flags=re.S))
    stored = json.loads((tmp_path / "benchmark.json").read_text(), parse_constant=no_constant)
    assert len(stored["rows"]) == len(AWKWARD[case])
    assert BenchmarkResult.model_validate(stored) == made
    assert not re.search(r"\b(nan|None)\b", (tmp_path / "benchmark.md").read_text())


@pytest.mark.parametrize("classes", [2, 11, 21, 150])
def test_any_number_of_classes(classes: int, tmp_path: Path) -> None:
    names = tuple(f"class-{index}" for index in range(classes))
    write_report(result([full_row("j", "junior", 50.0, 20.0, classes)], names), tmp_path)
    text, _ = read_page(tmp_path)
    assert all(f">{name}<" in text.replace("</span>", ">") for name in names)


def test_plots_are_wellformed_and_use_the_colors_of_the_page() -> None:
    rows = [full_row("a senior", "senior", 60.0, 90.0), full_row("a junior", "junior", 55.0, 20.0)]
    plots = (
        figures.miou_against_parameters,
        figures.miou_against_latency,
        figures.latency_split,
        figures.latency_distribution,
        figures.throughput,
    )
    for plot in plots:
        svg = plot(rows)
        assert svg is not None
        ElementTree.fromstring(svg)
        assert "currentColor" in svg
        assert "var(--row-0)" in svg
        assert "var(--row-1)" in svg
        assert "#ab0" not in svg
        assert ">a senior<" in svg
        assert plot([]) is None


def test_pictures_are_embedded_and_missing_ones_left_out(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    cv2.imwrite(str(tmp_path / "pictures/a.png"), np.full((4, 4, 3), 7, np.uint8))
    cells = [Cell(title="input", file="pictures/a.png"), Cell(title="truth", file="pictures/gone.png")]
    comparison = Comparison(id="one/image", reason="worst", miou=12.3, cells=cells)
    write_report(result([full_row("j", "junior", 50, 20)], comparisons=[comparison], chosen_by="j"), tmp_path)
    _, page = read_page(tmp_path)
    assert page.tags.count("img") == 1
    assert page.fetched[0].startswith("data:image/png;base64,")


def test_page_stays_below_five_megabytes(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (500, 500, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "pictures/a.png"), noise)
    comparison = Comparison(id="i", reason="worst", miou=None, cells=[Cell(title="input", file="pictures/a.png")])
    write_report(result([full_row("j", "junior", 50, 20)], comparisons=[comparison] * 12, chosen_by="j"), tmp_path)
    assert 1e6 < (tmp_path / "index.html").stat().st_size < 5e6


def test_verdict_compares_what_belongs_together() -> None:
    senior = full_row("a senior", "senior", 60.0, 100.0, parameters=17_000_000)
    junior = full_row("a junior", "junior", 55.0, 40.0)
    accuracy = Accuracy(
        images=3, miou=55.0, pixel_accuracy=90, iou=[55, 55], agreement=99.9999, agreement_with="a junior"
    )
    artifact = full_row("junior.onnx", "artifact", 55.0, 20.0, accuracy=accuracy)
    first, second = verdict(result([senior, junior, artifact]))
    assert first == "a junior reaches 55.0% mIoU with 3.40M parameters, 5.00× fewer than a senior (60.0% mIoU, 17.0M)."
    assert "the class of a junior on 99.999% of the pixels" in second
    assert "2.00× as fast as a junior" in second


def test_verdict_starts_with_the_gain_over_the_other_juniors() -> None:
    rows = [full_row("supervised junior", "junior", 50.0, 20.0), full_row("segkc junior", "junior", 53.25, 20.0)]
    rows.append(full_row("large junior", "junior", 40.0, 20.0, parameters=9_000_000))
    first, second, *_ = verdict(result(rows))
    assert first == "segkc junior is 3.25 points of mIoU above supervised junior, with the same number of parameters."
    assert second.startswith("supervised junior: 50.0% mIoU")


def test_numbers() -> None:
    assert [formatting.significant(x) for x in (0.1234, 1.234, 12.34, 123.4, None)] == [
        "0.123",
        "1.23",
        "12.3",
        "123",
        "–",
    ]
    assert formatting.agreement(99.99999) == "99.999"
    assert formatting.agreement(100.0) == "100"
    assert formatting.quantity(24_800_000) == "24.8M"
    assert formatting.quantity(1_200_000_000) == "1.20G"
    assert formatting.shortened("abcdefghij", 5) == "abc…ij" or len(formatting.shortened("abcdefghij", 5)) == 5


def test_labels_are_spread_apart_around_their_places() -> None:
    assert spread([10, 50, 90], 11) == [10, 50, 90]
    assert spread([20, 20, 20], 10) == pytest.approx([10, 20, 30])
    moved = spread([0, 3, 4, 100], 10)
    assert all(later - earlier >= 10 - 1e-9 for earlier, later in pairwise(moved))
    assert moved[3] == 100


# --- studies


def study_row(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "study": "camvid",
        "row": "segkc",
        "role": "junior",
        "labels": "1/8",
        "seed": 0,
        "steps": 1000,
        "size": [352, 480],
        "params_m": 3.4,
        "miou": 60.0,
        "machine": "made up",
        "versions": {"torch": "2"},
        "command": "segkc-deploy train",
        "commit": "abc",
    }
    return fields | changes


TIMED = {"batch": 1, "engine": "onnxruntime", "precision": "fp32", "p50_ms": 20.0, "p90_ms": 21.0, "p99_ms": 25.0}


def test_rows_are_appended_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "camvid.json"
    append_rows(path, [study_row()])
    rows = append_rows(path, [study_row(seed=1, note="kept")])
    assert [row.seed for row in rows] == [0, 1]
    assert json.loads(path.read_text())[1]["note"] == "kept"
    assert read_rows(path) == rows


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"miou": float("nan")}, "miou"),
        ({"miou": 101}, "miou"),
        ({"role": "teacher"}, "role"),
        ({"commit": ""}, "commit"),
        (TIMED, "images_per_s"),
    ],
)
def test_a_wrong_row_is_refused_and_the_file_left(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    path = tmp_path / "camvid.json"
    append_rows(path, [study_row()])
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=field):
        append_rows(path, [study_row(**changes)])
    assert path.read_bytes() == before


def test_table_has_mean_and_spread_over_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "camvid.json"
    mious = [60.0, 61.0, 65.0]
    rows = [study_row(seed=seed, miou=miou) for seed, miou in enumerate(mious)]
    rows.append(study_row(row="supervised", miou=50.0))
    append_rows(path, rows)
    assert tables_main([str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "### camvid"
    assert (
        lines[4] == f"| segkc | junior | 1/8 | 0, 1, 2 | 1000 | 352×480 | 3.40 | 62.00 ± {np.std(mious, ddof=1):.2f} |"
    )
    assert lines[5] == "| supervised | junior | 1/8 | 0 | 1000 | 352×480 | 3.40 | 50.00 |"
    assert tables_main([str(tmp_path / "missing.json")]) == 2


def test_latency_columns_appear_where_present(tmp_path: Path) -> None:
    rows = append_rows(
        tmp_path / "s.json", [study_row(), study_row(row="junior-fp32", role="artifact", **TIMED, images_per_s=48.0)]
    )
    table = study_table(rows).splitlines()
    assert table[0].endswith("| engine | precision | batch | p50 (ms) | p90 (ms) | p99 (ms) | images/s |")
    assert table[2].endswith("| – | – | – | – | – | – | – |")
    assert table[3].endswith("| onnxruntime | fp32 | 1 | 20.00 | 21.00 | 25.00 | 48.00 |")


def test_benchmark_rows_become_study_rows(tmp_path: Path) -> None:
    made = result([full_row("a junior", "junior", 55.0, 40.0), full_row("e", "junior", 1.0, 1.0, accuracy=None)])
    for row in made.rows:
        row.about = {"method": "segkc", "step": 10}
    rows = study_rows(made, study="s", labels="1/8", seed=2, commit="abc")
    append_rows(tmp_path / "s.json", rows)
    assert [(row.batch, row.p50_ms, row.images_per_s) for row in rows] == [(1, 40.0, 22.5), (4, 160.0, 90.0)]
    assert {row.row for row in rows} == {"segkc"}


def test_what_the_gate_found_goes_with_an_artifacts_row(tmp_path: Path) -> None:
    made = result([full_row("a junior", "junior", 55.0, 40.0), full_row("a.onnx", "artifact", 54.9, 20.0)])
    for row in made.rows:
        row.about = {"method": "segkc", "step": 10}
    made.rows[1].about |= {"agreement": 0.99871, "verified": "graph"}
    rows = append_rows(tmp_path / "s.json", study_rows(made, study="s", labels="1/8", seed=0, commit="abc"))
    assert [row.agreement for row in rows] == [None, None, 0.99871, 0.99871]
    assert read_rows(tmp_path / "s.json")[2].model_extra == {"verified": "graph"}
    table = study_table(rows).splitlines()
    assert table[0].endswith("| agreement (%) |")
    assert [line.rsplit("| ", 1)[1] for line in table[2:]] == ["– |", "– |", "99.871 |", "99.871 |"]


def test_a_stored_benchmark_is_added_to_a_study_by_a_command(tmp_path: Path) -> None:
    made = result([full_row("a junior", "junior", 55.0, 40.0)])
    made.rows[0].about = {"method": "supervised", "step": 900}
    stored, study = tmp_path / "benchmark.json", tmp_path / "study.json"
    stored.write_text(made.model_dump_json())
    options = ["--study", "s", "--labels", "1/8", "--seed", "3", "--out", str(study)]
    assert study_main([str(stored), *options]) == 0
    assert [(row.row, row.steps, row.seed) for row in read_rows(study)] == [("supervised", 900, 3)] * 2
    assert study_main([str(tmp_path / "none.json"), *options]) == 2


def test_the_gates_figures_become_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verification = Verification(images=9, agreement=0.998, miou_network=50.0, miou_artifact=49.5, subject="graph")
    machine = {"packages": {"torch": "2.15.0"}}
    known = {"verification": verification, "machine": machine, "command": "segkc-deploy export"}
    path = make_artifact(tmp_path, precision="int8", **known)
    study = tmp_path / "gate.json"
    options = ["--study", "s", "--labels", "1/8", "--seed", "0", "--commit", "abc", "--out", str(study)]
    assert gate_main([str(path), *options]) == 0
    (row,) = read_rows(study)
    assert (row.row, row.precision, row.miou, row.agreement) == ("none, onnx", "int8", 49.5, 0.998)
    assert row.versions == machine["packages"]
    assert study_table([row]).splitlines()[2].endswith("| 49.50 | int8 | 99.800 | graph |")
    unproven = make_artifact(tmp_path / "other")
    assert gate_main([str(unproven), *options]) == 2
    assert "verified without masks" in capsys.readouterr().err
