"""Benchmark results that nobody measured, for tests of what is made of them."""

from typing import Any

import numpy as np

from segkc_deploy.benchmarks.measure.latency import summarize
from segkc_deploy.benchmarks.schema import (
    Accuracy,
    BatchPoint,
    BenchmarkResult,
    Contender,
    Energy,
    Failure,
    InterleavedTiming,
    Latency,
    MachineState,
    Memory,
    Peak,
    Reading,
    Roofline,
    Row,
    Sustained,
    WarmUp,
)
from segkc_deploy.labels import Labels, default_palette


def latency(base: float, samples: int = 200, seed: int = 1) -> Latency:
    times = base * (1 + np.random.default_rng(seed).gamma(1.2, 0.02, samples))
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
        "machine": {"cpu": "made up", "cpu_features": ["AVX2", "VNNI"], "gpus": [{"name": "one", "memory_mib": None}]},
        "versions": {"numpy": "2"},
        "data": "data.yaml",
        "labels": Labels(names=names, palette=default_palette(len(names))),
        "rows": rows,
    }
    return BenchmarkResult(**(fields | changes))


def rich_result(classes: int = 11, seconds: int = 60) -> BenchmarkResult:
    """Return a result that has everything there is: senior, junior, artifacts, baselines, a flag, a failure."""
    names = tuple(f"class {index}" for index in range(classes))
    specs = [
        ("segkc senior", "senior", "torch", "fp32", 61.0, 92.0, 17_000_000),
        ("segkc junior", "junior", "torch", "fp32", 55.2, 41.0, 3_400_000),
        ("junior-fp32.onnx", "artifact", "onnxruntime", "fp32", 55.2, 24.0, 3_400_000),
        ("junior-fp16.onnx", "artifact", "onnxruntime", "fp16", 55.1, 26.0, 3_400_000),
        ("junior-int8.onnx", "artifact", "onnxruntime", "int8", 53.0, 13.0, 3_400_000),
        ("junior-fp32.xml", "artifact", "openvino", "fp32", 55.2, 18.0, 3_400_000),
        ("junior-int8.xml", "artifact", "openvino", "int8", 53.1, 8.0, 3_400_000),
    ]
    rows = [_rich_row(place, spec, classes, seconds) for place, spec in enumerate(specs)]
    rows[3].state.flags = ["The processor's clock fell from 3200 to 2100 MHz."]
    rows[3].not_measured = {"energy": "no power meter can be read"}
    contenders = [
        Contender(
            name=row.name, kind="row", engine=row.engine, total=row.latency and row.latency.total,
            speed=41 / spec[5], speed_interval=(40 / spec[5], 42 / spec[5]),
            speed_quartiles=(38 / spec[5], 44 / spec[5]), same_masks=99.9,
        )
        for row, spec in zip(rows, specs, strict=True)
    ]  # fmt: skip
    contenders.append(Contender(name="torch.compile", kind="baseline", engine="torch", error="no compiler was found"))
    return result(
        rows,
        names,
        failures=[Failure(name="junior-bf16.engine", role="artifact", target="junior-bf16.engine", error="no GPU")],
        peaks=[Peak(device="cpu", precision="fp32", threads=1, gflops=90.0, copy_gb_per_s=11.0, how="made up")],
        interleaved=InterleavedTiming(reference="segkc junior", rounds=20, runs=5, contenders=contenders),
    )


def _rich_row(place: int, spec: tuple[Any, ...], classes: int, seconds: int) -> Row:
    name, role, engine, precision, miou, base, parameters = spec
    random = np.random.default_rng(place)
    confusion = random.integers(0, 200, (classes, classes)) + np.diag(random.integers(2000, 20000, classes))
    scores = Accuracy(
        images=40, miou=miou, pixel_accuracy=90.0, iou=np.clip(miou + random.normal(0, 15, classes), 1, 99).tolist(),
        boundary_miou=miou - 14, boundary_iou=np.clip(miou - 14 + random.normal(0, 9, classes), 1, 99).tolist(),
        miou_interval=(miou - 2.1, miou + 1.8), resamples=2000, resampling_seed=0, resampling_block=1,
        confusion=confusion.tolist(), image_miou={"one/image": miou - 20},
    )  # fmt: skip
    if role != "junior":
        loss = miou - 55.2
        scores.agreement, scores.agreement_with, scores.miou_difference = 99.0, "segkc junior", loss
        scores.miou_difference_interval = (loss - 0.3, loss + 0.3)
    energy = Energy(source="RAPL package-0", watts=21.0, idle_watts=6.0, joules_per_image=base * 0.021)
    rates = (1000 / base * (1 - 0.002 * np.arange(seconds)) * random.normal(1, 0.01, seconds)).tolist()
    batches = [
        BatchPoint(batch=b, images_per_s=b**0.2 * 900 / base, infer_images_per_s=b**0.2 * 950 / base,
                   total=summarize((base * b**0.8 * random.normal(1, 0.03, 30)).tolist()))
        for b in (1, 2, 4, 8)
    ]  # fmt: skip
    readings = [
        Reading(
            moment=moment, at_s=at, cpu_mhz=3200 - 40 * place - 5 * at, cpu_celsius=50 + at / 3, background_load=1.0
        )
        for moment, at in (("before", 0.0), ("latency", 5.0), ("sustained", 40.0), ("after", 70.0))
    ]
    return full_row(
        name, role, miou, base, classes,
        engine=engine, precision=precision, parameters=parameters, accuracy=scores,
        file_bytes=parameters * {"fp32": 4, "fp16": 2, "int8": 1}[precision], flops=3000 * parameters,
        latency=latency(base, 400, seed=place), throughput=batches, activation_peak_bytes=9_000_000,
        sustained=Sustained(batch=1, seconds=float(seconds), images=int(sum(rates)), images_per_s=sum(rates) / seconds,
                            by_second=rates, drift=-9.6, energy=energy if precision != "fp16" else None),
        roofline=Roofline(peak=precision, compute_ms=base * 0.3, memory_ms=base * 0.04, bound="compute",
                    efficiency=30.0 + 3 * place),
        state=MachineState(readings=readings), measured="2030-01-02T03:04:05+0000", threads={"intra_op": 1},
    )  # fmt: skip
