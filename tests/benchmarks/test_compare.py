"""Results of several machines in one report, and the published schema of a result."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine
from made_up_results import full_row, result

from segkc_deploy.benchmarks.regression.compare import compare, short_name
from segkc_deploy.benchmarks.schema import Accuracy, BenchmarkResult, Comparison, Failure, Picture, Row, json_schema
from segkc_deploy.benchmarks.studies.benchmark_rows import main as study_main

SERVER = {"cpu": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "cores": 8, "gpus": [{"name": "NVIDIA H200"}]}
SERVER["cpu_features"] = ["AVX2", "VNNI"]
BOARD = {"cpu": "ARMv8 Processor rev 1 (v8l)", "cores": 6, "gpus": [], "cpu_features": ["NEON"]}


def rows(base: float, miou: float = 60.0) -> list[Row]:
    accuracy: dict[str, Any] = {"images": 2, "miou": miou, "pixel_accuracy": 90.0, "iou": [miou, miou]}
    accuracy["image_miou"] = {"0": miou, "1": miou}
    twin = {"agreement": 99.5, "agreement_with": "a junior"}
    return [
        full_row("a junior", "junior", miou, base, accuracy=Accuracy(**accuracy)),
        full_row("junior.onnx", "artifact", miou, base / 2, accuracy=Accuracy(**accuracy | twin)),
    ]


def write(folder: Path, name: str, base: float, **changes: Any) -> Path:
    """Store a result as `folder/name/benchmark.json`, with a picture."""
    cells = [Picture(title=title, file=f"pictures/{title}.png") for title in ("input", "truth", "a junior")]
    made = result(
        changes.pop("rows", rows(base)),
        **(
            {"comparisons": [Comparison(id="0", reason="worst", miou=60.0, pictures=cells)], "chosen_by": "a junior"}
            | changes
        ),
    )
    (folder / name / "pictures").mkdir(parents=True)
    for cell in cells:
        (folder / name / cell.file).write_bytes(cell.title.encode())
    made.write(folder / name / "benchmark.json")
    return folder / name / "benchmark.json"


def stored(out: Path) -> BenchmarkResult:
    return BenchmarkResult.model_validate_json((out / "benchmark.json").read_bytes())


def test_two_machines_in_one_report(tmp_path: Path, command: CommandLine) -> None:
    server = write(tmp_path, "server", 10.0, machine=SERVER, versions={"numpy": "2", "torch": "2.15"})
    failures = [Failure(name="b.onnx", role="artifact", target="b", error="no such operator")]
    board = write(tmp_path, "board", 80.0, machine=BOARD, failures=failures, notes=["torch is not installed"])
    out = tmp_path / "both"
    finished = command("compare", server, f"orin={board}", "--out", out)
    assert finished.code == 0

    joined = stored(out)
    names = ["a junior @ H200", "junior.onnx @ H200", "a junior @ orin", "junior.onnx @ orin"]
    assert [row.name for row in joined.rows] == names
    assert [row.machine for row in joined.rows] == ["H200", "H200", "orin", "orin"]
    assert joined.rows[3].latency == rows(80.0)[1].latency
    assert joined.rows[3].accuracy is not None
    assert joined.rows[3].accuracy.agreement_with == "a junior @ orin"
    assert joined.failures[0].name == "b.onnx @ orin"
    assert joined.notes == ["orin: torch is not installed"]
    assert joined.versions == {"numpy": "2", "torch": "2.15 (H200); none (orin)"}
    assert joined.machine["cores"] == "8 (H200); 6 (orin)"
    assert joined.machine["cpu_features"] == "AVX2, VNNI (H200); NEON (orin)"
    assert joined.machine["gpus"] == "NVIDIA H200 (H200); none (orin)"
    assert [(source.label, source.machine) for source in joined.sources] == [("H200", SERVER), ("orin", BOARD)]
    assert joined.options == joined.sources[0].options

    # Ratios within a machine alone, and nobody is above himself on another machine.
    sentences = finished.out.splitlines()[:-1]
    assert [sentence.partition(" @ ")[2].partition(" ")[0] for sentence in sentences[:4]] == [
        "H200:",
        "H200",
        "orin:",
        "orin",
    ]
    assert all("2.00× as fast as a junior @ " in sentences[place] for place in (1, 3))
    assert not any("H200" in sentence and "orin" in sentence for sentence in sentences)

    page, text = (out / "index.html").read_text(), (out / "benchmark.md").read_text()
    assert all(name in page and name in text for name in names)
    assert "2.15 (H200); none (orin)" in page
    assert "A, V, X" not in page
    assert page.count('<img src="data:image/') == 3
    assert [cell.title for cell in joined.comparisons[0].pictures] == ["input", "truth", "a junior @ H200"]
    assert joined.chosen_by == "a junior @ H200"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"names": ("road", "tree")}, "its classes are road, tree, not road, sky"),
        ({"rows": [full_row("j", "junior", 9, 9, accuracy=Accuracy(images=1, miou=9, pixel_accuracy=9, iou=[9, 9],
                   image_miou={"7": 9.0}))]}, "scored on 1 images, not on 2"),
    ],
)  # fmt: skip
def test_other_data_are_refused_unless_the_accuracy_is_left_out(
    tmp_path: Path, command: CommandLine, changes: dict[str, Any], told: str
) -> None:
    first = write(tmp_path, "server", 10.0, machine=SERVER)
    second = write(tmp_path, "board", 80.0, machine=BOARD, **changes)
    line = command.refused("compare", first, second, "--out", tmp_path / "both")
    assert str(first) in line and str(second) in line
    assert told in line
    assert not (tmp_path / "both").exists()
    finished = command("compare", first, second, "--out", tmp_path / "both", "--without-accuracy")
    assert finished.code == 0
    joined = stored(tmp_path / "both")
    assert [row.accuracy for row in joined.rows] == [None] * len(joined.rows)
    assert joined.comparisons == []


def test_results_of_other_images_are_refused_behind_one_that_was_not_scored(
    tmp_path: Path, command: CommandLine
) -> None:
    unscored = [full_row("j", "junior", 9, 9, accuracy=None)]
    one_image = Accuracy(images=1, miou=9, pixel_accuracy=9, iou=[9, 9], image_miou={"7": 9.0})
    files = [
        write(tmp_path, "first", 10.0, rows=unscored),
        write(tmp_path, "second", 10.0),
        write(tmp_path, "third", 10.0, rows=[full_row("j", "junior", 9, 9, accuracy=one_image)]),
    ]
    line = command.refused("compare", *files, "--out", tmp_path / "all")
    assert str(files[1]) in line and str(files[2]) in line and "scored on 1 images, not on 2" in line


def test_a_comparison_keeps_no_pictures_of_an_earlier_one(tmp_path: Path) -> None:
    first, second = write(tmp_path, "server", 10.0, machine=SERVER), write(tmp_path, "board", 80.0, machine=BOARD)
    out = tmp_path / "both"
    compare([(None, first), (None, second)], out)
    (out / "pictures" / "01-00.jpg").write_bytes(b"of a benchmark")
    compare([(None, first), (None, second)], out, accuracy=False)
    assert "01-00.jpg" not in {path.name for path in (out / "pictures").iterdir()}


def test_two_results_of_one_machine_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    before, after = (write(tmp_path, name, 10.0, machine=SERVER) for name in ("before", "after"))
    joined = compare([(None, before), (None, after)], tmp_path / "both")
    assert [source.label for source in joined.sources] == ["H200, before", "H200, after"]


def test_options_that_differ_are_told_for_each(tmp_path: Path) -> None:
    first = write(tmp_path, "server", 10.0, machine=SERVER, options={"images": 32, "seconds": 5.0, "samples": None})
    second = write(tmp_path, "board", 10.0, machine=BOARD, options={"images": 32, "seconds": 9.0, "samples": None})
    joined = compare([(None, first), ("orin", second)], tmp_path / "both")
    assert joined.options == {"images": 32, "seconds": "5.0 (H200); 9.0 (orin)", "samples": None}
    assert "5.0 (H200); 9.0 (orin) s" in (tmp_path / "both/index.html").read_text()


def test_mistakes(tmp_path: Path, command: CommandLine, capfd: pytest.CaptureFixture[str]) -> None:
    first, second = write(tmp_path, "server", 10.0), write(tmp_path, "board", 10.0)
    out = tmp_path / "both"
    assert "no such file" in command.refused("compare", tmp_path / "none.json", first, "--out", out)
    assert "both would be called 'x'" in command.refused("compare", f"x={first}", f"x={second}", "--out", out)
    assert "would be overwritten" in command.refused("compare", first, second, "--out", first.parent)
    third = write(tmp_path, "third", 10.0)
    assert "would be lost" in command.refused("compare", first, second, "--out", third.parent)
    compare([("a", first), ("b", second)], out)
    assert compare([("a", first), ("b", second)], out).sources  # a comparison may be made again
    again = ("compare", out / "benchmark.json", first, "--out", tmp_path / "again")
    assert "is a comparison itself" in command.refused(*again)
    study = ["--study", "s", "--labels", "1/8", "--seed", "0", "--out", str(tmp_path / "study.json")]
    assert study_main([str(out / "benchmark.json"), *study]) == 2
    assert "a comparison of several machines" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        (SERVER, "H200"),
        (SERVER | {"gpus": []}, "Xeon Platinum 8481C"),
        ({"cpu": "AMD EPYC 9654 96-Core Processor"}, "EPYC 9654"),
        ({"cpu": "AMD"}, "AMD"),
        ({}, "machine"),
    ],
)
def test_short_names(machine: dict[str, Any], name: str) -> None:
    assert short_name(machine) == name


def test_the_published_schema_is_current_and_fits_a_result() -> None:
    published = json.loads((Path(__file__).parents[2] / "docs/benchmark.schema.json").read_text())
    hint = "python -m segkc_deploy.benchmarks.schema > docs/benchmark.schema.json"
    assert published == json_schema(), hint
    made = json.loads(result(rows(10.0)).model_dump_json())
    assert set(published["required"]) <= set(made) <= set(published["properties"])
    assert published["properties"]["format"] == {"const": made["format"]}
    row = published["$defs"]["Row"]
    assert set(row["required"]) <= set(made["rows"][0]) <= set(row["properties"])
