"""What the report says of accuracy: edges, intervals, and whether a difference is noise."""

import json
from pathlib import Path
from typing import Any

import pytest
from made_up_results import full_row, result

from segkc_deploy.benchmarks.report.formatting import INTERVAL_NOTE, difference, percent_range
from segkc_deploy.benchmarks.report.report_files import write_report
from segkc_deploy.benchmarks.report.summary import summary
from segkc_deploy.benchmarks.schema import Accuracy, BenchmarkResult, Row

NEW_FIELDS = {
    "boundary_miou", "boundary_iou", "miou_interval", "miou_difference", "miou_difference_interval", "resamples",
    "resampling_seed", "resampling_block",
}  # fmt: skip


def scored(miou: float, points: float | None = None, interval: tuple[float, float] | None = None) -> Accuracy:
    compared: dict[str, Any] = {}
    if points is not None:
        compared = {"miou_difference": points, "miou_difference_interval": interval, "agreement": 99.0}
        compared["agreement_with"] = "a junior"
    return Accuracy(
        images=3, miou=miou, pixel_accuracy=90.0, iou=[miou, miou], boundary_miou=41.25, boundary_iou=[31.5, None],
        miou_interval=(miou - 1.7, miou + 1.9), resamples=2000, resampling_seed=0, resampling_block=1, **compared,
    )  # fmt: skip


@pytest.fixture
def rows() -> list[Row]:
    return [
        full_row("a junior", "junior", 55.0, 40.0, accuracy=scored(55.0)),
        full_row("fp32.onnx", "artifact", 55.0, 20.0, accuracy=scored(55.0, 0.0, (0.0, 0.0))),
        full_row("fp16.onnx", "artifact", 54.8, 20.0, accuracy=scored(54.8, -0.2, (-0.45, 0.05))),
        full_row("int8.onnx", "artifact", 53.0, 20.0, accuracy=scored(53.0, -2.0, (-2.5, -1.5))),
    ]


def test_a_difference_is_noise_where_its_interval_contains_zero() -> None:
    assert difference(-0.31, (-0.8, 0.22)) == "−0.31 (−0.80 to +0.22: noise)"
    assert difference(0.31, (0.0, 0.5)) == "+0.31 (0.00 to +0.50: noise)"
    assert difference(-2.0, (-2.5, -0.001)) == "−2.00 (−2.50 to −0.00)"
    assert difference(2.0, (1.5, 2.5)) == "+2.00 (+1.50 to +2.50)"
    assert difference(0.0, (0.0, 0.0)) == "0.00 (0.00 to 0.00: equal)"
    assert difference(-0.002, (-0.004, -0.001)) == "0.00 (0.00 to 0.00: below 0.005)"
    assert difference(-0.002, (-0.004, 0.001)) == "0.00 (0.00 to 0.00: noise)"
    assert difference(0.5, None) == "+0.50"
    assert difference(None, None) == "–"


def test_an_interval_has_both_ends() -> None:
    assert percent_range((53.14, 56.9)) == "53.1 to 56.9"
    assert percent_range(None) == "–"


@pytest.mark.parametrize("file", ["index.html", "benchmark.md"])
def test_page_and_markdown_say_the_same(file: str, rows: list[Row], tmp_path: Path) -> None:
    write_report(result(rows), tmp_path)
    text = (tmp_path / file).read_text()
    assert text.count("+0.05: noise)") == 2  # in the summary and the table
    assert text.count(": noise)") == 2
    assert "−2.00 (−2.50 to −1.50)" in text
    assert "0.00 (0.00 to 0.00: equal)" in text
    assert "53.3 to 56.9" in text
    assert "Boundary IoU per class" in text
    assert "31.5" in text
    assert INTERVAL_NOTE in text


def test_the_verdict_tells_noise_from_loss(rows: list[Row]) -> None:
    sentences = "\n".join(summary(result(rows)))
    assert "fp16.onnx scores 54.8% mIoU, −0.20 (−0.45 to +0.05: noise) against a junior, gives the class" in sentences
    assert "int8.onnx scores 53.0% mIoU, −2.00 (−2.50 to −1.50) against a junior, gives" in sentences


def test_images_drawn_together_are_told(rows: list[Row], tmp_path: Path) -> None:
    write_report(result(rows), tmp_path)
    assert "successive images were drawn together" not in (tmp_path / "index.html").read_text()
    for row in rows:
        assert row.accuracy is not None
        row.accuracy.resampling_block = 10
    write_report(result(rows), tmp_path)
    assert "10 successive images were drawn together" in (tmp_path / "index.html").read_text()


def test_a_result_stored_before_there_were_intervals_reads_and_renders(rows: list[Row], tmp_path: Path) -> None:
    stored = json.loads(result(rows).model_dump_json())
    for row in stored["rows"]:
        for name in NEW_FIELDS:
            del row["accuracy"][name]
    old = BenchmarkResult.model_validate(stored)
    write_report(old, tmp_path)
    for file in ("index.html", "benchmark.md"):
        text = (tmp_path / file).read_text()
        assert "55.0" in text
        assert "Boundary IoU per class" not in text
        assert "noise)" not in text
