"""A row on a GPU, measured in this process with a pretended GPU, driver and TensorRT."""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
import yaml
from fake_nvml import FakeGpu, install
from tiny_artifact import LABELS, expected_mask, make_artifact
from torch import nn

from segkc_deploy.benchmarks.measure import gpu_latency, worker
from segkc_deploy.benchmarks.measure.latency import Budget
from segkc_deploy.benchmarks.measure.worker import RowJob, measure
from segkc_deploy.benchmarks.options import MeasureOptions
from segkc_deploy.benchmarks.schema import Row
from segkc_deploy.errors import SegKCError
from segkc_deploy.export.torch_runner import TorchRunner
from segkc_deploy.manifest import read_manifest
from segkc_deploy.predictor import Predictor
from segkc_deploy.runners.base import Runner

SIZE = (8, 12)


class GpuRunner(Runner):
    """Says that it runs on a GPU, and takes a joule of it for each image."""

    def __init__(self, gpu: FakeGpu, engine: str, device_ms: float | None) -> None:
        self.gpu, self.description, self.device_ms = gpu, engine, device_ms
        self.activate()

    def activate(self) -> None:
        self.gpu.processes = [4711]  # a container has process ids of its own

    def infer(self, images: np.ndarray) -> dict[str, np.ndarray]:
        self.gpu.millijoules += 1000 * len(images)
        return {"masks": np.stack([expected_mask(image) for image in images])}

    def time_device(self, on: bool) -> None:
        self.last_device_ms = self.device_ms if on else None

    def deactivate(self) -> None:
        self.gpu.processes = []


@pytest.fixture
def data(tmp_path: Path) -> Path:
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    for name, content in (("images", image[..., ::-1]), ("masks", expected_mask(image))):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "0.png"), content)
    spec = {"layout": "folders", "classes": list(LABELS.names), "val": {"images": "images", "masks": "masks"}}
    path = tmp_path / "data.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def row_of(
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    gpus: Sequence[FakeGpu],
    engine: str = "TensorRT 11.4 NVIDIA H200",
    device_ms: float | None = 0.25,
    graphs_fail: bool = False,
) -> Row:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("segkc_deploy.benchmarks.measure.meters.IDLE_S", 0.0)
    monkeypatch.setattr("segkc_deploy.benchmarks.measure.sustained.idle_watts", lambda meter: 75.0)
    install(monkeypatch, *gpus)
    path = make_artifact(data.parent / "artifacts", size=SIZE)
    name = "trt" if "TensorRT" in engine else "onnx"
    manifest = read_manifest(path).model_copy(update={"engine": name})

    def predictor(*arguments: object, cuda_graph: bool = False) -> Predictor:
        if cuda_graph and graphs_fail:
            raise SegKCError("there is not enough memory")
        # With CUDA graphs the pretended network is twice as fast.
        milliseconds = device_ms / 2 if cuda_graph and device_ms else device_ms
        runner = GpuRunner(gpus[0] if gpus else FakeGpu(), engine, milliseconds)
        return Predictor(runner, manifest.labels, manifest.contract, manifest)

    monkeypatch.setattr(worker, "open_target", predictor)
    monkeypatch.setattr(gpu_latency, "load", predictor)
    masks = data.parent / "masks-of-row"
    masks.mkdir()
    options = MeasureOptions(batches=(1, 2), seconds=0.05, samples=5, images=1, sustained=0.2)
    job = RowJob(name="row", role="artifact", target=path, data=data, masks=masks, options=options)
    return measure(job, data.parent / "row.json")


def test_everything_of_a_tensorrt_row(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = row_of(data, monkeypatch, [FakeGpu(limit=350_000)])
    assert row == Row.model_validate_json((data.parent / "row.json").read_bytes())
    assert row.latency is not None
    assert row.latency.device is not None
    assert (row.latency.device.p50, row.latency.device.samples) == (0.25, 5)
    assert row.latency_cuda_graph is not None
    assert row.latency_cuda_graph.device is not None
    assert (row.latency_cuda_graph.device.p50, row.latency_cuda_graph.total.samples) == (0.125, 5)
    assert row.sustained is not None
    assert row.sustained.energy is not None
    assert row.sustained.energy.source == "NVML energy counter of the GPU"
    assert row.sustained.energy.joules_per_image == pytest.approx(1.0)
    assert row.sustained.energy.watts == pytest.approx(row.sustained.images / row.sustained.seconds)
    assert row.sustained.energy.idle_watts == 75.0
    assert [reading.gpu_mhz for reading in row.state.readings] == [1980] * len(row.state.readings)
    moments = list(dict.fromkeys(reading.moment for reading in row.state.readings))
    assert moments == ["before", "latency", "accuracy", "batch 1", "batch 2", "sustained", "CUDA graphs", "after"]
    assert [flag for flag in row.state.flags if "GPU" in flag] == [
        "the GPU's power limit is 350 W instead of its default of 700 W"
    ]
    assert not any("gpu" in name or "latency" in name or "sustained" in name for name in row.not_measured)


def test_what_onnxruntime_and_a_gpu_without_a_meter_do_not_tell(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unsupported = {"nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage"}
    gpu = FakeGpu(unsupported=unsupported)
    row = row_of(data, monkeypatch, [gpu], engine="onnxruntime 1.31 CUDAExecutionProvider", device_ms=None)
    assert row.latency is not None
    assert row.latency.device is None
    assert row.not_measured["latency.device"] == "the engine does not tell how long it takes on the GPU"
    assert row.latency_cuda_graph is None
    assert "latency_cuda_graph" not in row.not_measured, "no such thing is missing"
    assert row.sustained is not None
    assert row.sustained.energy is None
    assert row.not_measured["sustained.energy"] == "NVML: Not Supported"
    assert row.not_measured["state.gpu_watts"] == "NVML: Not Supported"
    assert row.state.readings[0].gpu_mhz == 1980


def test_captures_of_many_sizes_are_not_timed(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contract = read_manifest(make_artifact(data.parent / "artifacts", size=SIZE)).contract
    free = contract.model_copy(update={"size_multiple": 4, "min_size": (4, 4), "max_size": (64, 64)})
    monkeypatch.setattr(gpu_latency, "load", lambda *_, **__: nullcontext(SimpleNamespace(contract=free)))
    images = [np.zeros((4 * place, 8, 3), np.uint8) for place in range(1, 10)]
    row = Row(name="a", role="artifact", target="a", engine="TensorRT", precision="fp32", size=SIZE)
    gpu_latency.add_cuda_graph(row, Path("a.engine"), images, Budget(samples=5), nullcontext())
    assert row.latency_cuda_graph is None
    assert row.not_measured["latency_cuda_graph"].startswith(
        "the images have 9 sizes for the network, and a runner keeps"
    )


def test_without_nvml_and_without_memory_for_graphs(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = row_of(data, monkeypatch, [], graphs_fail=True)
    assert row.not_measured["state.gpu"] == row.not_measured["sustained.energy"] != ""
    assert row.not_measured["latency_cuda_graph"] == "there is not enough memory"
    assert row.state.readings[0].gpu_mhz is None
    assert row.accuracy is not None
    assert row.accuracy.miou == 100.0


class Tiny(nn.Module):
    """Stands in for a `DeployGraph`."""

    outputs = ("masks",)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        return (images.amax(dim=-1),)


IMAGES = np.random.default_rng(1).integers(0, 256, (2, *SIZE, 3)).astype(np.uint8)


def test_an_error_of_the_gpus_own_time_loses_that_alone(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_latency, "measure_device", Mock(side_effect=SegKCError("out of events")))
    row = row_of(data, monkeypatch, [FakeGpu()], engine="onnxruntime 1.31.1 CUDAExecutionProvider")
    assert row.not_measured["latency.device"] == "out of events"
    assert row.latency is not None and row.latency.device is None
    assert row.accuracy is not None


def test_an_artifact_that_always_runs_several_images_has_no_roofline_bound(
    data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = make_artifact(tmp_path / "four", size=SIZE, batch=4)
    masks = tmp_path / "masks-of-row"
    masks.mkdir()
    options = MeasureOptions(device="cpu", batches=(4,), seconds=0.05, samples=5, images=1, sustained=0)
    job = RowJob(name="row", role="artifact", target=path, data=data, masks=masks, options=options)
    row = measure(job, tmp_path / "row.json")
    assert row.moved_bytes is None
    assert row.not_measured["moved_bytes"].startswith("the artifact always runs 4 images")


def test_pytorch_on_the_cpu_tells_no_time_of_a_gpu() -> None:
    with TorchRunner(Tiny(), "cpu") as runner:  # type: ignore[arg-type]
        runner.time_device(True)
        np.testing.assert_array_equal(runner.infer(IMAGES)["masks"], IMAGES.max(axis=-1))
        assert runner.last_device_ms is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU")
def test_pytorch_tells_its_time_on_the_gpu() -> None:
    with TorchRunner(Tiny(), "cuda") as runner:  # type: ignore[arg-type]
        runner.infer(IMAGES)
        assert runner.last_device_ms is None
        runner.time_device(True)
        began = time.perf_counter()
        np.testing.assert_array_equal(runner.infer(IMAGES)["masks"], IMAGES.max(axis=-1))
        assert runner.last_device_ms is not None
        assert 0 < runner.last_device_ms < 1e3 * (time.perf_counter() - began)
        runner.time_device(False)
        assert runner.last_device_ms is None
