"""What the report says to ship, and which rows it cannot distinguish."""

from typing import Any

from made_up_results import full_row, result, rich_result

from segkc_deploy.benchmarks.report.recommendations import Recommendation, recommendations
from segkc_deploy.benchmarks.schema import Accuracy, BenchmarkResult, Contender, InterleavedTiming, MachineState, Row


def scored(miou: float, interval: tuple[float, float] | None) -> Accuracy:
    compared: dict[str, Any] = {
        "agreement_with": "j",
        "miou_difference": miou - 55,
        "miou_difference_interval": interval,
    }
    return Accuracy(images=3, miou=miou, pixel_accuracy=90, iou=[miou, miou], **compared)


def artifacts() -> list[Row]:
    return [
        full_row("a", "artifact", 0, 20.0, accuracy=scored(55.1, (-0.2, 0.4)), file_bytes=1000),
        full_row("b", "artifact", 0, 18.0, accuracy=scored(54.9, (-0.4, 0.2)), file_bytes=4000),
        full_row("c", "artifact", 0, 10.0, accuracy=scored(52.0, (-3.4, -2.2)), file_bytes=4000),
    ]


def chosen(rows: list[Row], **changes: Any) -> dict[str, Recommendation]:
    return {choice.purpose: choice for choice in recommendations(result(rows, **changes))}


def test_each_purpose_has_the_best_row_with_its_cost() -> None:
    found = chosen([full_row("j", "junior", 55.0, 1.0), *artifacts()])
    assert {purpose: choice.row.name for purpose, choice in found.items()} == {
        "accuracy": "a",
        "latency": "c",
        "size": "a",
    }
    times = {row.name: row.latency.total.p50 for row in artifacts() if row.latency}
    assert found["accuracy"].metric == "55.1% mIoU"
    assert found["accuracy"].costs[0] == f"{times['a']:.1f} ms at the median (2.00× the fastest)"
    assert found["latency"].costs == ["52.0% mIoU (3.10 below the best)", "0.00381 MiB (4.00× the smallest)"]


def test_noise_is_distinguished_from_a_loss() -> None:
    assert chosen(artifacts())["accuracy"].remarks == ["not distinguishable on these images from b"]
    worse = [artifacts()[0], artifacts()[2]]
    assert chosen(worse)["accuracy"].remarks == []


def test_a_choice_without_intervals_says_so() -> None:
    rows = [full_row(name, "artifact", 0, 20.0, accuracy=scored(miou, None)) for name, miou in (("a", 55.1), ("b", 55))]
    assert chosen(rows)["accuracy"].remarks == ["whether it differs from b was not measured"]


def test_of_the_same_miou_as_written_the_faster_is_taken() -> None:
    first, second, _ = artifacts()
    second.accuracy = scored(55.06, (-0.3, 0.4))
    accuracy = chosen([first, second])["accuracy"]
    assert (accuracy.row.name, accuracy.metric) == ("b", "55.1% mIoU")
    second.accuracy = scored(55.04, (-0.3, 0.4))
    assert chosen([first, second])["accuracy"].row.name == "a"


def test_losses_to_the_junior_that_overlap_are_not_distinguished() -> None:
    first, second, third = artifacts()
    first.accuracy, second.accuracy = scored(53.0, (-2.3, -1.7)), scored(52.9, (-2.4, -1.8))
    third.accuracy = scored(51.0, (-4.3, -3.7))
    assert chosen([first, second, third])["accuracy"].remarks == ["not distinguishable on these images from b"]


def test_losses_to_different_juniors_are_not_compared() -> None:
    first, second, _ = artifacts()
    for junior, remarks in (("j", ["not distinguishable on these images from b"]), ("another", [])):
        alike = (-0.2, 0.4)
        first.accuracy = scored(55.1, alike).model_copy(update={"miou_interval": (54.0, 56.0)})
        second.accuracy = scored(51.0, alike).model_copy(
            update={"miou_interval": (50.0, 52.0), "agreement_with": junior}
        )
        assert chosen([first, second])["accuracy"].remarks == remarks


def test_a_lost_accuracy_is_a_remark_of_the_recommendation() -> None:
    rows = artifacts()
    rows[2].accuracy = None
    assert chosen(rows)["latency"].remarks == ["its mIoU was not measured"]


def test_interleaved_speeds_decide_whether_two_are_as_fast() -> None:
    def timing(interval: tuple[float, float]) -> InterleavedTiming:
        speeds = {"a": (1.0, 1.0), "b": interval, "c": (1.9, 2.1)}
        contenders = [
            Contender(name=name, kind="row", engine="e", speed_interval=ends) for name, ends in speeds.items()
        ]
        return InterleavedTiming(reference="a", rounds=9, runs=3, contenders=contenders)

    assert chosen(artifacts(), interleaved=timing((1.5, 1.8)))["latency"].remarks == []
    assert chosen(artifacts(), interleaved=timing((1.5, 2.0)))["latency"].remarks == [
        "not distinguishable by these measurements: b"
    ]
    assert chosen(artifacts(), interleaved=timing((2.2, 2.4)))["latency"].remarks == [
        "faster in the interleaved timing: b"
    ]


def test_intervals_of_the_median_decide_where_nothing_was_interleaved() -> None:
    rows = artifacts()
    for row, ends in zip(rows, ((19.0, 21.0), (10.5, 18.5), (9.5, 10.6)), strict=True):
        assert row.latency is not None
        row.latency.total.p50_interval = ends
    assert chosen(rows)["latency"].remarks == ["not distinguishable by these measurements: b"]
    assert rows[1].latency is not None
    rows[1].latency.total.p50_interval = None
    assert chosen(rows)["latency"].remarks == ["whether it is faster than b is unknown"]


def test_unreliable_timings_are_a_remark_of_the_recommendation() -> None:
    rows = artifacts()
    rows[0].state = rows[2].state = MachineState(flags=["it throttled"])
    found = chosen(rows)
    assert found["latency"].remarks == ["its timings are unreliable"]
    assert found["accuracy"].row is rows[0]
    assert "its timings are unreliable" not in found["accuracy"].remarks


def test_equal_sizes_are_a_remark_and_the_faster_taken() -> None:
    size = chosen(artifacts()[1:])["size"]
    assert (size.row.name, size.remarks) == ("c", ["as small: b"])


def test_machines_are_judged_one_by_one() -> None:
    rows = [row.model_copy(update={"machine": machine}) for machine in ("server", "board") for row in artifacts()]
    found = recommendations(result(rows))
    assert [choice.machine for choice in found] == ["server"] * 3 + ["board"] * 3


def test_juniors_are_chosen_from_where_there_is_no_artifact() -> None:
    rows = [full_row("s", "senior", 70.0, 90.0), full_row("j", "junior", 55.0, 20.0)]
    assert {choice.row.name for choice in recommendations(result(rows))} == {"j"}
    assert recommendations(result(rows[:1])) == []


def test_energy_is_a_purpose_where_it_was_measured() -> None:
    made: BenchmarkResult = rich_result()
    energy = recommendations(made)[-1]
    assert (energy.purpose, energy.row.name, energy.metric) == ("energy", "junior-int8.xml", "0.168 J per image")
