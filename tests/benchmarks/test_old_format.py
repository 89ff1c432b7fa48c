"""A `benchmark.json` of format 1, written before some fields were renamed, opens in report, compare and the gate."""

import json
from pathlib import Path

import pytest
from command_line import CommandLine

from segkc_deploy.benchmarks.regression.regression_gate import read_gate
from segkc_deploy.benchmarks.schema import FORMAT
from segkc_deploy.benchmarks.store.result_file import read_result
from segkc_deploy.errors import ConfigError

OLD = Path(__file__).parent / "files/benchmark-format-1.json"


def test_every_old_name_is_read() -> None:
    old, result = json.loads(OLD.read_text()), read_result(OLD)
    assert result.format == FORMAT != old["format"]
    assert result.interleaved is not None
    assert result.interleaved.reference == old["in_turn"]["reference"]
    speeds = [contender.speed for contender in result.interleaved.contenders]
    assert speeds == [way["speed"] for way in old["in_turn"]["ways"]] != []
    for row, stored in zip(result.rows, old["rows"], strict=True):
        assert row.roofline is not None
        assert row.roofline.efficiency == stored["floor"]["share"]
        loads = [reading.background_load for reading in row.state.readings]
        assert loads == [reading["other_load"] for reading in stored["state"]["readings"]]
        assert any(load is not None for load in loads)
    files = [[picture.file for picture in comparison.pictures] for comparison in result.comparisons]
    assert [note for note in result.notes if "floor" in note] == []
    assert files == [[cell["file"] for cell in comparison["cells"]] for comparison in old["comparisons"]]


def test_a_reason_under_an_old_name_is_read(tmp_path: Path) -> None:
    old = json.loads(OLD.read_text())
    old["rows"][0] |= {"floor": None, "not_measured": {"floor": "there is no latency of this row"}}
    old["in_turn"] = None
    file = tmp_path / "benchmark.json"
    file.write_text(json.dumps(old))
    result = read_result(file)
    assert result.rows[0].roofline is None
    assert result.rows[0].not_measured == {"roofline": "there is no latency of this row"}
    assert result.interleaved is None


def test_report_and_compare_open_it(tmp_path: Path, command: CommandLine) -> None:
    assert command("report", OLD, "--out", tmp_path / "again").code == 0
    again = json.loads((tmp_path / "again/benchmark.json").read_text())
    assert again["format"] == FORMAT
    assert read_result(tmp_path / "again/benchmark.json") == read_result(OLD)
    assert "Interleaved timing" in (tmp_path / "again/index.html").read_text()

    new = tmp_path / "again/benchmark.json"
    assert command("compare", f"old={OLD}", f"new={new}", "--out", tmp_path / "both").code == 0
    names = [row["name"] for row in json.loads((tmp_path / "both/benchmark.json").read_text())["rows"]]
    assert names == [f"{row.name} @ {label}" for label in ("old", "new") for row in read_result(OLD).rows]


def test_it_is_a_baseline_of_the_gate() -> None:
    gate = read_gate(["roofline.efficiency < 0.9x", "miou < -0.5"], OLD)
    assert gate is not None
    now = read_result(OLD)
    assert gate.violations(now) == []
    row = now.rows[0]
    assert row.roofline is not None
    row.roofline.efficiency /= 2
    (line,) = gate.violations(now)
    assert line.startswith(f"{row.name}: roofline.efficiency is ")


def test_other_formats_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "benchmark.json"
    file.write_text(json.dumps({"format": "segkc-deploy-benchmark/9"}))
    with pytest.raises(ConfigError, match="format 'segkc-deploy-benchmark/9', but this version reads"):
        read_result(file)
