"""Rows of studies: how benchmarks and artifacts become rows, and rows a table."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_results import full_row, result
from tiny_artifact import make_artifact

from segkc_deploy.benchmarks.studies.artifact_rows import main as gate_main
from segkc_deploy.benchmarks.studies.benchmark_rows import main as study_main
from segkc_deploy.benchmarks.studies.study_rows import append_rows, read_rows, study_rows
from segkc_deploy.benchmarks.studies.tables import main as tables_main
from segkc_deploy.benchmarks.studies.tables import study_table
from segkc_deploy.errors import ConfigError, UserError
from segkc_deploy.manifest import Verification


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
    with pytest.raises(UserError, match=r"missing\.json"):
        tables_main([str(tmp_path / "missing.json")])


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
