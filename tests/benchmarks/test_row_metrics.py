"""The names of a row's metrics, and what each of them reads."""

import pytest
from made_up_results import full_row

from segkc_deploy.benchmarks.regression.row_metrics import row_metrics
from segkc_deploy.benchmarks.schema import Accuracy, BatchPoint, Memory, Row

METRICS = row_metrics(["road", "traffic light"], [1, 4])


def test_every_name_reads_its_own_number() -> None:
    accuracy = Accuracy(
        images=3, miou=61.0, pixel_accuracy=90.0, iou=[70.0, None], agreement=99.5, miou_difference_interval=(-0.4, 0.1)
    )
    row = full_row("junior.onnx", "artifact", 50.0, 20.0, accuracy=accuracy)
    assert row.latency is not None and row.throughput[1].total is not None
    expected = {
        "miou": 61.0,
        "pixel_accuracy": 90.0,
        "iou.road": 70.0,
        "iou.traffic light": None,
        "agreement": 99.5,
        "miou_difference": None,
        "miou_difference_interval.low": -0.4,
        "miou_difference_interval.high": 0.1,
        "latency.p50": row.latency.total.p50,
        "latency.max": row.latency.total.max,
        "latency.infer.p99": row.latency.infer.p99,
        "throughput.4.images_per_s": 180.0,
        "throughput.4.p50": 80.0,
        "throughput.4.infer.p50": None,
        "memory.host_peak_mib": 300.0,
        "memory.device_added_mib": None,
        "cold_start_s": 1.5,
        "parameters": 3_400_000,
        "file_bytes": 13_600_000,
    }
    assert {name: METRICS[name].of(row) for name in expected} == expected


def test_a_row_without_anything_has_no_metrics() -> None:
    row = Row(name="j", role="junior", target="a", engine="b", precision="fp32", size=(8, 8), memory=Memory())
    assert {metric.of(row) for metric in METRICS.values()} == {None}
    row.throughput = [BatchPoint(batch=1, error="too large")]
    assert METRICS["throughput.1.images_per_s"].of(row) is None


def test_a_batch_that_was_not_measured_is_not_another_one() -> None:
    row = full_row("j", "junior", 50.0, 20.0)
    row.throughput = [point for point in row.throughput if point.batch == 1]
    assert METRICS["throughput.1.images_per_s"].of(row) == 45.0
    assert METRICS["throughput.4.images_per_s"].of(row) is None


def test_only_findings_are_metrics() -> None:
    assert {"name", "size", "images", "latency.samples", "throughput.1.batch", "latency.times_ms"}.isdisjoint(METRICS)
    assert not any(name.startswith(("about", "threads", "accuracy", "latency.total")) for name in METRICS)


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("miou", " %"),
        ("iou.road", " %"),
        ("latency.p50", " ms"),
        ("latency.cv", ""),
        ("latency.warm_up.seconds", " s"),
        ("throughput.4.images_per_s", " images/s"),
        ("throughput.1.host_peak_mib", " MiB"),
        ("memory.host_peak_mib", " MiB"),
        ("cold_start_s", " s"),
        ("file_bytes", " bytes"),
        ("parameters", ""),
    ],
)
def test_units(name: str, unit: str) -> None:
    assert METRICS[name].unit == unit
