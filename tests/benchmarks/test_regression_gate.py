"""The gate: what conditions say, what they are judged against, and what is refused before anything is measured."""

from pathlib import Path
from typing import Any

import pytest
from made_up_results import full_row, result

from segkc_deploy.benchmarks.regression.conditions import parse_condition
from segkc_deploy.benchmarks.regression.regression_gate import Gate, read_gate
from segkc_deploy.benchmarks.schema import Accuracy, BenchmarkResult, MachineState, Row
from segkc_deploy.benchmarks.targets import PlannedRow
from segkc_deploy.errors import ConfigError

IMAGES = ["0", "1"]
OPTIONS = {"images": 32, "seconds": 5.0, "samples": None, "threads": 1, "batches": [1, 4]}


def accuracy(miou: float, **changes: Any) -> Accuracy:
    fields: dict[str, Any] = {"images": 2, "miou": miou, "pixel_accuracy": 90.0, "iou": [miou, miou]}
    return Accuracy(**(fields | {"image_miou": dict.fromkeys(IMAGES, miou)} | changes))


def row(name: str = "a.onnx", miou: float = 60.0, base: float = 10.0, **changes: Any) -> Row:
    fields: dict[str, Any] = {"role": "artifact", "accuracy": accuracy(miou), "engine": "onnxruntime 1.20.0 CPU"}
    fields |= changes
    return full_row(name, fields.pop("role"), miou, base, **fields)


def made(*rows: Row, **changes: Any) -> BenchmarkResult:
    return result(list(rows), **({"options": OPTIONS} | changes))


def gate(baseline: BenchmarkResult | None, *conditions: str) -> Gate:
    return Gate(tuple(map(parse_condition, conditions)), baseline, Path("old.json"))


def planned(*names: str) -> list[PlannedRow]:
    return [PlannedRow(name, "artifact", Path(name)) for name in names]


@pytest.mark.parametrize(
    ("text", "rows", "metric", "operator", "kind", "value"),
    [
        ("latency.p50 > 1.1x", None, "latency.p50", ">", "factor", 1.1),
        ("latency.p50>=1.1×", None, "latency.p50", ">=", "factor", 1.1),
        ("miou < -0.5", None, "miou", "<", "difference", -0.5),
        ("miou < baseline - 0.5", None, "miou", "<", "difference", -0.5),
        ("miou < baseline", None, "miou", "<", "factor", 1.0),
        ("cold_start_s > +2", None, "cold_start_s", ">", "difference", 2.0),
        ("miou < 60", None, "miou", "<", "number", 60.0),
        ("file_bytes > 1e6", None, "file_bytes", ">", "number", 1e6),
        ("artifact: iou.traffic light <= .5", "artifact", "iou.traffic light", "<=", "number", 0.5),
        ("runs/a junior: miou < 60", "runs/a junior", "miou", "<", "number", 60.0),
        ("artifact: miou_difference < -0.5", "artifact", "miou_difference", "<", "number", -0.5),
        ("miou_difference < baseline - 0.5", None, "miou_difference", "<", "difference", -0.5),
        ("sustained.drift < -5", None, "sustained.drift", "<", "number", -5.0),
        ("iou.lane: solid < 50", None, "iou.lane: solid", "<", "number", 50.0),
        ("junior: iou.a<b: c >= -0.5", "junior", "iou.a<b: c", ">=", "difference", -0.5),
    ],
)
def test_conditions(text: str, rows: str | None, metric: str, operator: str, kind: str, value: float) -> None:
    read = parse_condition(text)
    assert (read.rows, read.metric, read.operator, read.kind, read.value) == (rows, metric, operator, kind, value)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("miou", "write METRIC < VALUE"),
        ("miou < ", "write METRIC < VALUE"),
        ("miou = 60", "write METRIC < VALUE"),
        ("miou < 60 < 70", "write METRIC < VALUE"),
        ("latency.p50 > 10%", "write a factor, 1.1x"),
        ("latency.p50 > fast", "is no value"),
        ("latency.p50 > 1.1*baseline", "is no value"),
    ],
)
def test_what_is_no_condition_is_refused(text: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint) as refused:
        parse_condition(text)
    assert text in str(refused.value)


@pytest.mark.parametrize(
    ("condition", "before", "now", "fails"),
    [
        ("latency.p50 > 1.1x", row(base=10.0), row(base=10.9), False),
        ("latency.p50 > 1.1x", row(base=10.0), row(base=11.2), True),
        ("miou < -0.5", row(miou=60.0), row(miou=59.6), False),
        ("miou < -0.5", row(miou=60.0), row(miou=59.4), True),
        ("miou < -0.5", row(miou=60.0), row(miou=70.0), False),
        ("miou < baseline", row(miou=60.0), row(miou=60.0), False),
        ("miou <= baseline", row(miou=60.0), row(miou=60.0), True),
        ("cold_start_s > +2", row(cold_start_s=1.5), row(cold_start_s=3.6), True),
        ("cold_start_s > +2", row(cold_start_s=1.5), row(cold_start_s=3.4), False),
        ("miou < 59.5", row(miou=99.0), row(miou=59.4), True),
        ("miou < 59.5", row(miou=99.0), row(miou=59.5), False),
        ("throughput.4.images_per_s < 0.9x", row(base=10.0), row(base=12.0), True),
        ("iou.sky < -1", row(miou=60.0), row(miou=58.0), True),
        ("other: miou < 99", row(), row(), False),
        ("a.*: miou < 99", row(), row(), True),
        ("artifact: miou < 99", row(), row(), True),
        ("junior: miou < 99", row(), row(), False),
    ],
)
def test_a_row_is_judged(condition: str, before: Row, now: Row, fails: bool) -> None:
    assert len(gate(made(before), condition).violations(made(now))) == fails


@pytest.mark.parametrize("condition", ["sustained.drift < 0.9x", "miou_difference > 1.1x"])
def test_a_share_of_a_change_is_no_limit(condition: str) -> None:
    with pytest.raises(ConfigError, match="is a change, of which no share can be a limit"):
        gate(made(row()), condition).check(made(), planned("a.onnx"), IMAGES)


@pytest.mark.parametrize("condition", ["latency.p50 > 1.1x", "throughput.4.images_per_s < 0.9x"])
def test_timings_on_other_images_are_no_baseline(condition: str) -> None:
    other = accuracy(60.0, image_miou=dict.fromkeys(["0", "2"], 60.0))
    with pytest.raises(ConfigError, match=r"old\.json: no baseline for .*: it was scored on other images"):
        gate(made(row(accuracy=other)), condition).check(made(), planned("a.onnx"), IMAGES)


def test_memory_on_another_machine_is_no_baseline() -> None:
    judged = gate(made(row(), machine={"cpu": "another"}), "memory.host_added_mib > 1.1x")
    with pytest.raises(ConfigError, match=r"no baseline for memory\.host_added_mib: its cpu is another"):
        judged.check(made(), planned("a.onnx"), IMAGES)


def test_a_baseline_without_rows_lets_nothing_pass() -> None:
    assert gate(made(), "miou < -0.5").violations(made(row())) == [
        "`miou < -0.5` compared nothing: the baseline has none of its rows"
    ]


def test_rows_that_are_judged_by_unreliable_timings_are_named() -> None:
    restless = row(state=MachineState(flags=["other processes ran"]))
    assert gate(None, "latency.p50 > 9").unreliable(made(restless)) == [
        "a.onnx: its timings are marked as unreliable: other processes ran"
    ]
    assert gate(None, "latency.p50 > 9").unreliable(made(row())) == []
    assert gate(None, "miou < 9").unreliable(made(restless)) == []
    assert gate(None, "b.onnx: latency.p50 > 9", "a.onnx: miou < 9").unreliable(made(restless)) == []


def test_a_violation_tells_row_metric_both_values_and_the_limit() -> None:
    judged = gate(made(row(base=10.0, miou=60.25)), "latency.max > 1.1x", "miou<-0.5")
    before, now = row(), row(miou=58.0, base=12.0)
    assert before.latency is not None and now.latency is not None
    old, new = before.latency.total.max, now.latency.total.max
    assert judged.violations(made(now)) == [
        f"a.onnx: latency.max is {new:.6g} ms, above {1.1 * old:.6g} ms, the limit, with {old:.6g} ms in the baseline"
        " (`latency.max > 1.1x`)",
        "a.onnx: miou is 58 %, below 59.75 %, the limit, with 60.25 % in the baseline (`miou<-0.5`)",
    ]


def test_a_row_that_is_missing_now_fails() -> None:
    judged = gate(made(row("a.onnx"), row("b.onnx"), row("j", role="junior")), "artifact: miou < -0.5")
    assert judged.violations(made(row("a.onnx"))) == ["b.onnx: is in the baseline, but was not measured now"]


def test_a_row_that_is_new_is_told_and_judged_by_numbers_alone() -> None:
    judged = gate(made(row("a.onnx")), "miou < -0.5", "miou < 30")
    new = made(row("a.onnx"), row("new.onnx", miou=20.0))
    assert judged.not_compared(new) == ["new.onnx"]
    (line,) = judged.violations(new)
    assert line.startswith("new.onnx: miou is 20 %, below 30 %")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"precision": "int8"}, "int8"),
        ({"size": (64, 64)}, "64×64"),
        ({"engine": "onnxruntime 1.20.0 CUDA"}, "CUDA"),
        ({"role": "junior"}, "junior"),
    ],
)
def test_a_row_that_became_another_fails(changes: dict[str, Any], told: str) -> None:
    (line,) = gate(made(row()), "miou < -0.5").violations(made(row(**changes)))
    assert "is not what the baseline has under this name" in line
    assert told in line


def test_a_new_version_of_the_engine_is_compared() -> None:
    assert gate(made(row()), "miou < -0.5").violations(made(row(engine="onnxruntime 1.31.1+cu13 CPU"))) == []


def test_what_was_not_measured_fails() -> None:
    without = row(latency=None)
    (line,) = gate(made(row()), "latency.p50 > 1.1x").violations(made(without))
    assert line == "a.onnx: latency.p50 was not measured, so `latency.p50 > 1.1x` cannot be judged"
    (line,) = gate(made(without), "latency.p50 > 1.1x").violations(made(row()))
    assert "not measured in the baseline" in line


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("latncy.p50 > 1.1x", "did you mean 'latency.p50'"),
        ("p99 > 30", "'latency.preprocess.p99'"),
        ("images_per_s < 0.9x", "'throughput.1.images_per_s' or 'throughput.4.images_per_s' or 'sustained"),
        ("throughput.8.images_per_s < 0.9x", "did you mean"),
        ("iou.raod < -1", "did you mean 'iou.road'"),
        ("xyzzy > 30", "--list-metrics"),
        ("miou < 0.6", "in percent"),
        ("agreement < 999", "in percent"),
        ("b.onnx: miou < 50", "no row is called 'b.onnx'; there are a.onnx"),
    ],
)
def test_mistakes_are_told_before_measuring(condition: str, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        gate(made(row()), condition).check(made(), planned("a.onnx"), IMAGES)
    assert told in str(refused.value)


def test_good_conditions_pass_the_check() -> None:
    conditions = ("miou < -0.5", "latency.p50 > 1.1x", "iou.road <= 0", "a.onnx: throughput.4.images_per_s < 9")
    gate(made(row()), *conditions).check(made(), planned("a.onnx"), IMAGES)


@pytest.mark.parametrize(
    ("baseline", "condition", "told"),
    [
        ({"names": ("road", "tree")}, "miou < -0.5", "its classes are road, tree, not road, sky"),
        ({"machine": {"cpu": "another", "gpus": []}}, "latency.p50 > 1.1x", "its cpu is another, here made up"),
        ({"options": OPTIONS | {"threads": 4}}, "cold_start_s > +1", "--threads 4"),
    ],
)
def test_a_baseline_of_something_else_is_refused(baseline: dict[str, Any], condition: str, told: str) -> None:
    judged = gate(made(row(), **baseline), condition)
    with pytest.raises(ConfigError) as refused:
        judged.check(made(), planned("a.onnx"), IMAGES)
    assert str(refused.value).startswith("old.json: ")
    assert told in str(refused.value)
    other = "file_bytes > 1.1x"  # neither of the machine nor of the data
    gate(made(row(), **baseline), other).check(made(), planned("a.onnx"), IMAGES)


def test_another_driver_is_no_other_machine_and_another_memory_is() -> None:
    def machine(driver: str, memory: int) -> dict[str, Any]:
        return {"cpu": "made up", "gpus": [{"name": "GPU", "driver": driver, "memory_mib": memory}]}

    ours, condition = made(machine=machine("580", 1000)), "latency.p50 > 1.1x"
    gate(made(row(), machine=machine("570", 1000)), condition).check(ours, planned("a.onnx"), IMAGES)
    with pytest.raises(ConfigError, match=r"its gpus is GPU \(2000 MiB\), here GPU \(1000 MiB\)"):
        gate(made(row(), machine=machine("580", 2000)), condition).check(ours, planned("a.onnx"), IMAGES)


@pytest.mark.parametrize(
    ("images", "told"), [(["0", "2"], "other images: '1' is in one"), (["0"], "scored on 2 images, not on 1")]
)
def test_a_baseline_of_other_images_is_refused(images: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        gate(made(row()), "miou < -0.5").check(made(), planned("a.onnx"), images)


def test_reading_a_gate(tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    assert read_gate([], None) is None
    with pytest.raises(ConfigError, match=r"add --baseline OLD\.json"):
        read_gate(["miou < -0.5"], None)
    with pytest.raises(ConfigError, match="no such file"):
        read_gate(["miou < -0.5"], old)
    for content, told in (("x", "not a benchmark.json"), ('{"format": "segkc-deploy-benchmark/0"}', "benchmark/0")):
        old.write_text(content)
        with pytest.raises(ConfigError, match=told):
            read_gate(["miou < -0.5"], old)
    made(row()).write(old)
    with pytest.raises(ConfigError, match="add --fail-if"):
        read_gate([], old)
    read = read_gate(["miou < -0.5"], old)
    assert read is not None
    assert read.baseline == made(row())
    assert read_gate(["miou < 50"], None) is not None
