"""The report of trainings: what is read of a run, which runs are one row, and its figures against NumPy."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from command_line import CommandLine
from made_up_trainings import (
    LONE_JUNIORS,
    PAIR_JUNIORS,
    SESSION,
    STEPS,
    SUPERVISED,
    alone,
    pair,
    training,
    validation,
    write_run,
    write_study,
)
from test_benchmark_without_torch import segkc_deploy as without_torch

from segkc_deploy.benchmarks.report.trainings.curves import MOST_POINTS, read_curves
from segkc_deploy.benchmarks.report.trainings.facts import count_parameters, read_log
from segkc_deploy.benchmarks.report.trainings.report import report_trainings, watch_trainings
from segkc_deploy.benchmarks.report.trainings.rows import TrainingTable, training_table
from segkc_deploy.benchmarks.report.trainings.run import TrainingRun, read_runs
from segkc_deploy.benchmarks.report.trainings.text import network_title, summary
from segkc_deploy.errors import ConfigError

#: The 97.5% quantile of Student's t with two degrees of freedom, which has a closed form.
T2 = (2 * 0.975 - 1) / math.sqrt(2 * 0.975 * 0.025)


def one(path: Path) -> TrainingRun:
    (run,) = read_runs([path])
    return run


def table(*paths: Path, reference: str | None = None) -> TrainingTable:
    return training_table(read_runs(paths), reference)


# Curves


def test_curves_are_those_of_the_file(tmp_path: Path) -> None:
    run = one(write_run(tmp_path / "run", 0, pair(0, 61.25, 70.0)))
    assert run.training.steps == [10, 20, 30, 40]
    np.testing.assert_allclose(run.training.values["loss"], 2.0 / np.arange(1, 5), rtol=1e-5)  # type: ignore[arg-type]
    assert run.validation.steps == [20, 40]
    assert run.validation.values["miou_senior_ema"] == [66.0, 71.0]
    assert (run.miou["junior"], run.miou["senior_ema"]) == (61.25, 71.0)


def test_a_line_that_is_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = "".join(json.dumps(record) + "\n" for record in training(30, loss=6.0))
    for end in ('{"step": 40, "kind": "tra', "\0\0\0\0", '{"step": 40, "kind": "train", "loss": 1.5}', "[]", "7"):
        path.write_text(whole + end)
        curves, _, damaged = read_curves(path)
        expected = [6.0, 3.0, 2.0, 1.5] if end.endswith("}") else [6.0, 3.0, 2.0]
        assert (curves.values["loss"], damaged) == (expected, 0)


def test_damage_before_the_last_line_is_told(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", 0, alone(0, 60.0))
    lines = (path / "metrics.jsonl").read_text().splitlines()
    (path / "metrics.jsonl").write_text("\n".join([*lines[:1], "\udcff".encode(errors="replace").decode(), *lines[1:]]))
    run = one(path)
    assert run.notes == ["unreadable lines of metrics.jsonl, which are left out: 1"]
    assert run.state == "finished"


def test_what_was_not_measured_is_null_in_the_json(tmp_path: Path) -> None:
    records = [*training(20, loss=2.0), {"step": 30, "kind": "train", "loss": math.nan, "late": 5.0}]
    run = one(write_run(tmp_path / "run", 0, [*records, validation(40, junior=math.nan, junior_ema=50.0)]))
    assert run.training.values == {"loss": [2.0, 1.0, None], "late": [None, None, 5.0]}
    assert run.miou == {"junior_ema": 50.0}


def test_long_curves_are_joined_by_their_means(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    count = 2 * MOST_POINTS + 3
    loss, lr = rng.random(count), rng.random(count)
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        "".join(
            json.dumps({"step": 10 * (place + 1), "kind": "train", "loss": loss[place], "lr": lr[place]}) + "\n"
            for place in range(count)
        )
    )
    curves, _, _ = read_curves(path)
    whole = count // 3 * 3
    means = [*loss[:whole].reshape(-1, 3).mean(axis=1), loss[whole:].mean()]
    ends = [*range(2, whole, 3), count - 1]
    assert curves.joined == 3 and len(curves.steps) <= MOST_POINTS
    assert curves.steps == [10 * (end + 1) for end in ends]
    np.testing.assert_allclose(curves.values["loss"], means, rtol=1e-5)  # type: ignore[arg-type]
    np.testing.assert_allclose(curves.values["lr"], lr[ends], rtol=1e-5)  # type: ignore[arg-type]


# Facts


def test_the_time_is_that_of_all_sessions(tmp_path: Path) -> None:
    second = SESSION.replace("from step 0", "from step 20")
    lines = [
        f"2026-01-31 23:59:00 {SESSION}",
        "2026-02-01 00:01:00 step 20/40",
        f"2026-02-02 08:00:00 {second}",
        "no line of ours",
        "2026-02-02 08:00:30 interrupted; go on from step 20: segkc-deploy train --resume",
    ]
    (tmp_path / "train.log").write_text("\n".join(lines))
    facts = read_log(tmp_path / "train.log")
    assert facts.seconds == 120 + 30
    assert facts.started == "2026-01-31 23:59:00"
    assert (facts.images, facts.steps, facts.device) == ({"labeled": 4, "unlabeled": 6, "val": 3}, 40, "cpu")
    assert facts.interrupted


@pytest.mark.parametrize(
    ("records", "log", "recipe", "state", "steps"),
    [
        (alone(0, 60.0), None, {}, "finished", STEPS),
        (alone(0, 60.0)[:-1], None, {}, "unfinished", STEPS),  # trained to the end, not scored yet
        ([], None, {}, "unfinished", STEPS),
        (training(20, loss=1.0), [SESSION, "interrupted; go on"], {}, "interrupted", STEPS),
        (training(20, loss=1.0), [SESSION, "interrupted; go on", SESSION, "step 20/40"], {}, "unfinished", STEPS),
        (training(loss=1.0), [SESSION.replace("3 validation", "0 validation")], {}, "finished", STEPS),
        (alone(0, 60.0), None, {"schedule": {"epochs": 2}}, "finished", STEPS),  # the log knows how many steps it makes
        (alone(0, 60.0), ["another program's line"], {"schedule": {"epochs": 2}}, "unfinished", None),
    ],
)
def test_how_far_a_run_has_come(
    tmp_path: Path, records: list[Any], log: list[str] | None, recipe: dict[str, Any], state: str, steps: int | None
) -> None:
    stamped = {"log": [("2026-01-31 10:00:00", line) for line in log]} if log else {}
    run = one(write_run(tmp_path / "run", 0, records, **stamped, **SUPERVISED, **recipe))
    assert (run.state, run.steps) == (state, steps)
    assert bool(run.miou) == (state == "finished" and records[-1]["kind"] == "validation")


def test_a_real_run(run: Path) -> None:
    torch = pytest.importorskip("torch")
    from segkc_deploy.training.files.network_file import load_network

    found = one(run)
    assert (found.state, found.steps_done, found.notes) == ("finished", 12, [])
    assert found.images == {"labeled": 4, "unlabeled": 6, "val": 3}
    assert found.device == "cpu" and found.seconds is not None
    assert list(found.miou) == ["junior", "junior_ema", "senior", "senior_ema"]
    for role in ("junior", "senior"):
        network, metadata = load_network(run / f"{role}.safetensors")
        assert any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
        assert found.parameters[role] == sum(parameter.numel() for parameter in network.parameters())
        assert found.networks[role] == metadata.network.backbone
        for name, score in metadata.scores.items():
            assert found.miou[name] == pytest.approx(score, rel=1e-5)


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64, b"\x02" + b"\0" * 7 + b"[]", b"\x40" + b"\0" * 7])
def test_no_network_file_has_no_parameters(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "junior.safetensors").write_bytes(content)
    assert count_parameters(tmp_path / "junior.safetensors") is None
    assert count_parameters(tmp_path / "missing.safetensors") is None


# Rows


def test_runs_that_differ_by_seed_alone_are_one_row(tmp_path: Path) -> None:
    same = [
        write_run(tmp_path / "a-seed0", 0, alone(0, 60.0), **SUPERVISED),
        write_run(tmp_path / "a-seed1", 1, alone(0, 60.0), **SUPERVISED, workers=1, log_every=5, checkpoint_every=9),
    ]
    others = [
        write_run(tmp_path / "b", 0, alone(0, 60.0), **SUPERVISED, optimizer={"lr": 2e-3}),
        write_run(tmp_path / "c", 0, alone(0, 60.0), **SUPERVISED, data=tmp_path / "other.yaml"),
        write_run(tmp_path / "d", 0, alone(0, 60.0), **SUPERVISED, version="0.0.9"),
    ]
    found = table(same[0], *others, same[1])
    assert [row.runs for row in found.rows] == [["a-seed0", "a-seed1"], ["b"], ["c"], ["d"]]
    assert [row.name for row in found.rows] == ["a", "b", "c", "d"]
    assert set(found.keys) == {"optimizer.lr", "optimizer.decoder_lr_multiplier", "data", "segkc_deploy"}
    assert found.partial_keys == []
    assert found.rows[1].differing["optimizer.lr"] == "0.002"


def test_keys_that_only_some_rows_have_are_apart(tmp_path: Path) -> None:
    found = table(*write_study(tmp_path))
    assert {"method.name", "name"} <= set(found.keys)
    assert {"senior.backbone", "method.confidence_threshold"} <= set(found.partial_keys)
    assert "senior.backbone" not in found.rows[1].differing


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["x-seed0", "x-seed1"], "x"),
        (["lr-0.0", "lr-0.1"], "tiny"),  # another learning rate is no seed
        (["x_s0", "x_s1"], "x"),
        (["x-0", "x-1"], "x"),
        (["first", "second"], "tiny"),
        (["run300", "run301"], "tiny"),
    ],
)
def test_a_row_is_named_after_its_runs(tmp_path: Path, names: list[str], expected: str) -> None:
    runs = [write_run(tmp_path / name, seed, pair(seed, 60.0, 70.0)) for seed, name in enumerate(names)]
    assert [row.name for row in table(*runs).rows] == [expected]


def test_rows_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "x" / "r-0", 0), write_run(tmp_path / "y" / "r-0", 0, ship="raw")]
    found = table(*runs, runs[0])
    assert [row.runs for row in found.rows] == [["x/r-0"], ["y/r-0"]]
    assert [row.name for row in found.rows] == ["x/r", "y/r"]
    assert [row.shipped for row in found.rows] == ["junior_ema", "junior"]
    same = [write_run(tmp_path / "p-0", 0), write_run(tmp_path / "p-1", 1, ship="raw")]
    assert [row.name for row in table(*same).rows] == ["p (p-0)", "p (p-1)"]


def test_scores_and_differences_are_numpys(tmp_path: Path) -> None:
    pair_row, lone_row = table(*write_study(tmp_path)).rows
    ours, other = np.array([*PAIR_JUNIORS.values()]), np.array([*LONE_JUNIORS.values()])
    for row, values in ((pair_row, ours), (lone_row, other)):
        assert row.scores["junior"].mean == pytest.approx(values.mean())
        assert row.scores["junior"].deviation == pytest.approx(values.std(ddof=1))
        assert row.scores["junior_ema"].mean == pytest.approx(values.mean() + 1)
    assert (pair_row.unfinished, lone_row.unfinished) == (0, 1)
    assert lone_row.scores["junior"].by_seed == LONE_JUNIORS  # the run that still trains is not among them
    assert lone_row.differences == {}

    difference = pair_row.differences["junior"]
    apart = ours - other
    half = T2 * apart.std(ddof=1) / math.sqrt(3)
    assert difference.mean == pytest.approx(apart.mean())
    assert difference.deviation == pytest.approx(apart.std(ddof=1))
    assert difference.interval == pytest.approx((apart.mean() - half, apart.mean() + half), abs=1e-3)
    assert difference.significance == ("outside" if apart.mean() > half else "within")
    assert set(pair_row.differences) == {"junior", "junior_ema"}  # the reference has no senior


def test_seeds_that_one_row_lacks_are_not_compared(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"a-{seed}", seed, alone(0, 50.0 + seed), **SUPERVISED) for seed in (0, 1, 5)]
    runs += [write_run(tmp_path / f"b-{seed}", seed, pair(0, 60.0 + 2 * seed, 70.0)) for seed in (1, 2, 5)]
    difference = table(*runs).rows[1].differences["junior"]
    assert difference.by_seed == {1: 11.0, 5: 15.0}
    assert (difference.interval, difference.significance) == (None, "not judged")


def test_two_runs_of_one_seed_count_once(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / name, seed, pair(0, miou, 70.0))
        for name, seed, miou in (("a", 0, 60.0), ("again", 0, 62.0), ("b", 1, 64.0))
    ]
    score = table(*runs).rows[0].scores["junior"]
    assert (score.by_seed, score.mean) == ({0: 61.0, 1: 64.0}, 62.5)


def test_the_reference_row(tmp_path: Path) -> None:
    small, large = tmp_path / "small.yaml", tmp_path / "large.yaml"
    runs = [
        write_run(tmp_path / "pair-0", 0, pair(0, 60.0, 70.0), data=large),
        write_run(tmp_path / "few-0", 0, alone(0, 50.0), data=small, **SUPERVISED),
        write_run(tmp_path / "many-0", 0, alone(0, 55.0), data=large, **SUPERVISED),
    ]
    assert table(*runs).reference == "many"  # supervised, and on the data of the other rows
    assert table(*runs, reference="few").reference == "few"
    assert table(*runs, reference="pair-0").reference == "pair"
    assert table(runs[0]).reference == "pair"
    with pytest.raises(ConfigError, match="--reference 'lots': no row of that name; rows: pair, few, many"):
        table(*runs, reference="lots")


# The command


def test_the_command_writes_the_same_figures_three_times(tmp_path: Path, command: CommandLine) -> None:
    out = tmp_path / "report"
    finished = command("report", *write_study(tmp_path / "runs"), "--out", out)
    assert finished.code == 0, finished.err
    assert "7 runs in 2 rows; 1 unfinished" in finished.out and str(out / "index.html") in finished.out
    stored = json.loads((out / "trainings.json").read_text())
    assert stored["format"] == "segkc-deploy-trainings/1"
    row = stored["table"]["rows"][0]
    assert row["scores"]["junior"]["by_seed"] == {str(seed): miou for seed, miou in PAIR_JUNIORS.items()}
    score, difference = row["scores"]["junior"], row["differences"]["junior"]
    low, high = difference["interval"]
    written = (
        f"{score['mean']:.2f} ± {score['deviation']:.2f}",
        f"{difference['mean']:+.2f} ({low:+.2f} to {high:+.2f}: {difference['significance']})".replace("-", "−"),
        "unfinished at step 20 of 40",
        "4 labeled, 6 unlabeled, 3 validation",
        "1 min 30 s",
        "7 runs in 2 rows; 1 unfinished",
    )
    page, text = (out / "index.html").read_text(), (out / "trainings.md").read_text()
    for figure in written:
        assert figure in page and figure in text, figure
    assert "90.00 ±" not in text  # the score of a run that still trains is in no mean


def test_a_watched_report_follows_a_run_to_its_end(tmp_path: Path, command: CommandLine) -> None:
    run, out = tmp_path / "run", tmp_path / "report"
    records = alone(0, 60.0)
    write_run(run, 0, records[:3], **SUPERVISED)
    metrics = run / "metrics.jsonl"
    unfinished = metrics.read_text()
    lines = [json.dumps(record) + "\n" for record in records]
    # A line that is being written, then the end of the run.
    contents = iter([unfinished + lines[3][:20], "".join(lines)])
    pages = []

    def wait(seconds: float) -> None:
        assert seconds == 7
        pages.append((out / "index.html").read_text())
        metrics.write_text(next(contents))

    report = watch_trainings([run], out, None, 7, wait)
    assert [run.state for run in report.runs] == ["finished"]
    assert len(pages) == 2
    refresh = '<meta http-equiv="refresh" content="7">'
    assert all(refresh in page for page in pages)
    assert refresh not in (out / "index.html").read_text()
    metrics.write_text(unfinished)

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    assert [run.state for run in watch_trainings([run], out, None, 7, interrupt).runs] == ["unfinished"]
    assert refresh not in (out / "index.html").read_text()
    metrics.write_text("".join(lines))
    finished = command("report", run, "--out", out, "--watch", 5)
    assert finished.code == 0
    assert "every 5 s" in finished.out


def test_runs_of_one_method_or_one_run_alone(tmp_path: Path) -> None:
    report = report_trainings([write_run(tmp_path / "run", 0)], tmp_path / "out")
    assert [row.scores for row in report.table.rows] == [{}]
    report = report_trainings([write_run(tmp_path / "r2", 0, alone(0, 60.0), **SUPERVISED)], tmp_path / "out")
    assert "What differs" not in (tmp_path / "out" / "trainings.md").read_text()


def test_a_single_run_is_no_plural(tmp_path: Path) -> None:
    runs = write_study(tmp_path / "runs")
    for chosen, says in ((runs[:1], "<small>1 run, "), (runs[:2], "<small>2 runs, ")):
        report_trainings(chosen, tmp_path / "out")
        assert says in (tmp_path / "out" / "index.html").read_text()


def test_headings_and_values_of_text_are_both_aligned_left(tmp_path: Path) -> None:
    report_trainings(write_study(tmp_path / "runs"), tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text()
    for table in ("row-table", "run-table"):
        rows = re.findall(r"<tr>.*?</tr>", page.partition(f'id="{table}"')[2].partition("</table>")[0], re.DOTALL)
        headings, values = (re.findall(r"<t[hd]( [^>]*)?>", row) for row in rows[:2])
        left = [bool(re.search(r'class="(left|text|name)"', cell)) for cell in values]
        assert left == ["data-text" in heading for heading in headings]
        assert True in left and False in left


def test_names_from_elsewhere_stay_text(tmp_path: Path) -> None:
    evil = "</script><img src=x onerror=alert(1)>|`'\"<!-- ü 🚀"
    folder = tmp_path / evil.replace("/", "∕")
    report_trainings([write_run(folder, 0, pair(0, 60.0, 70.0), name=evil)], tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<img src=x" not in page and "&lt;img src=x onerror=alert(1)&gt;" in page
    rows = [line for line in (tmp_path / "out" / "trainings.md").read_text().splitlines() if line.startswith("|")]
    assert any("onerror=alert(1)>\\|`" in line for line in rows)


def test_mistakes(tmp_path: Path, command: CommandLine) -> None:
    run, out = write_run(tmp_path / "run", 0, alone(0, 60.0)), tmp_path / "out"
    (tmp_path / "empty").mkdir()
    assert "empty: not a run directory" in command.refused("report", run, tmp_path / "empty", "--out", out)
    assert "missing: not a run directory" in command.refused("report", tmp_path / "missing", "--out", out)
    assert "run: is a run directory; give another --out" in command.refused("report", run, "--out", run)
    assert "no row of that name; rows: run" in command.refused("report", run, "--out", out, "--reference", "x")
    broken = write_run(tmp_path / "broken", 0)
    content = yaml.safe_load((broken / "config.yaml").read_text())
    content["recipe"]["crop_sise"] = 3
    (broken / "config.yaml").write_text(yaml.safe_dump(content))
    assert "unknown key 'crop_sise'" in command.refused("report", broken, "--out", out)
    imported = write_run(tmp_path / "imported", 0)
    for name in ("metrics.jsonl", "train.log"):
        (imported / name).unlink()
    assert "imported: nothing was trained here" in command.refused("report", imported, "--out", out)
    out.mkdir()
    assert list(out.iterdir()) == []
    (out / "benchmark.json").write_text("{}")
    assert "holds the report of a benchmark" in command.refused("report", run, "--out", out)


def test_the_command_needs_no_torch(tmp_path: Path) -> None:
    runs = write_study(tmp_path / "runs")
    finished = without_torch(tmp_path, "report", *runs, "--out", tmp_path / "out")
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "out" / "index.html").is_file()


def test_the_summary_names_the_copy_that_is_compared(tmp_path: Path) -> None:
    report = report_trainings(write_study(tmp_path / "runs"), tmp_path / "out")
    against = next(sentence for sentence in summary(report.table, report.runs) if sentence.startswith("Against "))
    best = max((row for row in report.table.rows), key=lambda row: row.scores[row.shipped].mean)
    assert against.startswith(f"Against {report.table.reference}, {network_title(best.shipped)} too: ")
