"""Benchmark results that nobody measured, for tests of what is made of them."""

from typing import Any

import numpy as np

from segkc_deploy.benchmarks.latency import summarize
from segkc_deploy.benchmarks.schema import Accuracy, BatchPoint, BenchmarkResult, Latency, Memory, Row, WarmUp
from segkc_deploy.labels import Labels, default_palette


def latency(base: float, samples: int = 200) -> Latency:
    times = base * (1 + np.random.default_rng(1).gamma(1.2, 0.02, samples))
    return Latency(
        warm_up=WarmUp(runs=20, seconds=1.0, stable=True),
        preprocess=summarize(0.1 * times),
        infer=summarize(0.8 * times),
        postprocess=summarize(0.1 * times),
        total=summarize(times),
        times_ms=times.tolist(),
    )


def full_row(name: str, role: Any, miou: float, base: float, classes: int = 2, **changes: Any) -> Row:
    fields: dict[str, Any] = {
        "name": name,
        "role": role,
        "target": "runs/a",
        "engine": "made up",
        "precision": "fp32",
        "size": (352, 480),
        "parameters": 3_400_000,
        "flops": 10_000_000_000,
        "file_bytes": 13_600_000,
        "accuracy": Accuracy(images=3, miou=miou, pixel_accuracy=90.0, iou=[miou] * classes),
        "latency": latency(base),
        "throughput": [BatchPoint(batch=b, images_per_s=b * 900 / base, total=summarize([base * b])) for b in (1, 4)],
        "memory": Memory(host_baseline_mib=90.0, host_peak_mib=300.0, host_added_mib=210.0),
        "cold_start_s": 1.5,
    }
    return Row(**(fields | changes))


def result(rows: list[Row], names: tuple[str, ...] = ("road", "sky"), **changes: Any) -> BenchmarkResult:
    fields: dict[str, Any] = {
        "created": "2030-01-02T03:04:05+0000",
        "command": "segkc-deploy benchmark runs/a --data data.yaml --out report",
        "options": {"images": 32, "seconds": 5.0, "samples": None},
        "machine": {"cpu": "made up", "gpus": [{"name": "one", "memory_mib": None}]},
        "versions": {"numpy": "2"},
        "data": "data.yaml",
        "labels": Labels(names=names, palette=default_palette(len(names))),
        "rows": rows,
    }
    return BenchmarkResult(**(fields | changes))
