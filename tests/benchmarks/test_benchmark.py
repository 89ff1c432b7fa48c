"""A whole benchmark: a run and artifacts in processes of their own, against masks computed without them."""

import builtins
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from command_line import CommandLine
from PIL import Image
from tiny_artifact import LABELS, expected_mask, make_artifact

from segkc_deploy.benchmarks.options import MeasureOptions
from segkc_deploy.benchmarks.report.pictures import choose
from segkc_deploy.benchmarks.suite import Benchmark
from segkc_deploy.benchmarks.targets import plan
from segkc_deploy.boundary import BoundaryCounts
from segkc_deploy.errors import ConfigError, MissingDependencyError, RunDirectoryError
from segkc_deploy.manifest import read_manifest, sha256_of

SIZE = (32, 64)
QUICK = MeasureOptions(batches=(1, 3), samples=3, seconds=0.1, device="cpu", threads=1, images=2, sustained=0.3)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capfd)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three validation images, whose truth is what the tiny artifact says save for a known part."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(5)
    for name in ("images", "masks"):
        (root / name).mkdir()
    for index in range(3):
        image = np.kron(rng.integers(0, 256, (4, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        truth = expected_mask(image)
        truth[: 4 * index] = 3
        truth[-2:] = LABELS.ignore_index
        cv2.imwrite(str(root / f"images/{index}.png"), image[..., ::-1])
        cv2.imwrite(str(root / f"masks/{index}.png"), truth)
    spec = {"layout": "folders", "root": ".", "classes": list(LABELS.names)}
    path = root / "data.yaml"
    path.write_text(yaml.safe_dump(spec | {"val": {"images": "images", "masks": "masks"}}))
    return path


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained senior and junior."""
    import torch

    from segkc_deploy.training.files.network_file import NetworkMetadata, save_network
    from segkc_deploy.training.models.segmenter import Segmenter
    from segkc_deploy.training.models.spec import NetworkSpec

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    folder.mkdir()
    for role, backbone in (("senior", "resnet10t"), ("junior", "mobilenetv4_conv_small_035")):
        spec = NetworkSpec(backbone=backbone, decoder_channels=16, pretrained=False)
        metadata = NetworkMetadata(
            role=role, network=spec, labels=LABELS, input_size=SIZE, recipe="tiny", method="segkc", step=7,
            ema=False, scores={},
        )  # fmt: skip
        save_network(folder / f"{role}.safetensors", Segmenter(spec, LABELS.num_classes), metadata)
    return folder


def images(data: Path) -> list[np.ndarray]:
    return [cv2.imread(str(path))[..., ::-1] for path in sorted((data.parent / "images").iterdir())]


def truths(data: Path) -> list[np.ndarray]:
    return [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted((data.parent / "masks").iterdir())]


def iou_by_hand(data: Path) -> list[float]:
    """IoU of the tiny artifact per class in percent, by counting sets of pixels."""
    predicted = np.stack([expected_mask(image) for image in images(data)])
    truth = np.stack(truths(data))
    counted = truth != LABELS.ignore_index
    pairs = [(counted & (predicted == index), counted & (truth == index)) for index in range(4)]
    return [100 * np.sum(ours & real) / np.sum(ours | real) for ours, real in pairs]


def confusion_by_hand(data: Path) -> list[list[int]]:
    """Pixels of the tiny artifact by true class (rows) and predicted class."""
    predicted = np.stack([expected_mask(image) for image in images(data)])
    truth = np.stack(truths(data))
    return [[int(np.sum((truth == real) & (predicted == ours))) for ours in range(4)] for real in range(4)]


def test_run_and_artifacts(data: Path, run_directory: Path, tmp_path: Path) -> None:
    from segkc_deploy.export.torch_runner import load_run_predictor

    fixed = make_artifact(tmp_path, "fixed.onnx", size=SIZE, batch=1)
    weights = {"weights_sha256": sha256_of(run_directory / "junior.safetensors")}
    source = read_manifest(fixed).source.model_copy(update=weights)
    artifact = make_artifact(tmp_path, "junior.onnx", size=SIZE, source=source)
    other_names = LABELS.model_copy(update={"names": ("a", "b", "c", "d")})
    failing = make_artifact(tmp_path, "other.onnx", size=SIZE, labels=other_names)

    out = tmp_path / "report"
    result = Benchmark([run_directory, failing, artifact, fixed], data, out, QUICK).run()

    rows = {row.name: row for row in result.rows}
    assert list(rows) == ["tiny senior", "tiny junior", "junior.onnx", "fixed.onnx"]
    measured = rows["junior.onnx"]
    assert measured.accuracy is not None
    assert measured.accuracy.iou == pytest.approx(iou_by_hand(data))
    assert measured.accuracy.miou == pytest.approx(np.mean(iou_by_hand(data)))
    assert list(measured.accuracy.image_miou) == ["0", "1", "2"]
    assert measured.accuracy.confusion == confusion_by_hand(data)
    # 16 weights and biases in float32, the image and its mask of one byte a pixel.
    assert measured.moved_bytes == 4 * 16 + SIZE[0] * SIZE[1] * (3 + 1)
    assert measured.not_measured["activation_peak_bytes"].endswith("export again")
    assert [peak.precision for peak in result.peaks] == ["fp32"]
    for row in result.rows:
        assert row.roofline is not None, row.not_measured
        assert row.roofline.efficiency > 0
    junior = rows["tiny junior"]
    # At least what the first convolution writes: 16 or more channels at half the size.
    assert junior.activation_peak_bytes is not None
    assert junior.activation_peak_bytes > 4 * 16 * (SIZE[0] // 2) * (SIZE[1] // 2)
    edges = BoundaryCounts(LABELS.num_classes, LABELS.ignore_index)
    for image, truth in zip(images(data), truths(data), strict=True):
        edges.update(truth, expected_mask(image))
    assert measured.accuracy.boundary_iou == pytest.approx(edges.scores().iou)
    assert measured.accuracy.boundary_miou == pytest.approx(edges.scores().miou)
    assert measured.accuracy.miou_interval is not None
    low, high = measured.accuracy.miou_interval
    assert low < measured.accuracy.miou < high
    assert (measured.accuracy.resamples, measured.accuracy.resampling_seed) == (2000, 0)
    assert measured.latency is not None
    assert measured.latency.total.samples == 3
    assert [point.batch for point in measured.throughput] == [1, 3]
    assert all(point.images_per_s and point.error is None for point in measured.throughput)
    assert measured.sustained is not None
    assert measured.sustained.batch == max(measured.throughput, key=lambda point: point.images_per_s or 0).batch
    assert measured.sustained.seconds >= 0.3
    assert (measured.sustained.energy is None) == ("sustained.energy" in measured.not_measured)
    moments = [reading.moment for reading in measured.state.readings]
    assert list(dict.fromkeys(moments)) == [
        "before", "latency", "accuracy", "batch 1", "batch 3", "sustained", "after",
    ]  # fmt: skip
    assert not any("gpu" in name for name in measured.not_measured)
    assert (measured.latency.device, measured.latency_cuda_graph) == (None, None)
    assert measured.parameters == 16
    assert measured.file_bytes == artifact.stat().st_size
    memory = measured.memory
    assert memory.host_baseline_mib is not None
    assert memory.host_peak_mib is not None
    assert 0 < memory.host_baseline_mib < memory.host_peak_mib
    assert memory.host_added_mib == pytest.approx(memory.host_peak_mib - memory.host_baseline_mib)
    assert memory.device_added_mib is None

    # The artifact against the junior, computed here from the two on their own.
    with load_run_predictor(run_directory, "junior", "cpu") as junior:
        equal = [np.mean(junior.predict(image) == expected_mask(image)) for image in images(data)]
    assert measured.accuracy.agreement == pytest.approx(100 * np.mean(equal))
    assert measured.accuracy.agreement_with == "tiny junior"
    assert rows["tiny junior"].accuracy is not None
    assert rows["tiny junior"].accuracy.miou is not None
    lead = np.mean(iou_by_hand(data)) - rows["tiny junior"].accuracy.miou
    assert measured.accuracy.miou_difference == pytest.approx(lead)
    assert measured.accuracy.miou_difference_interval is not None
    low, high = measured.accuracy.miou_difference_interval
    assert low <= lead <= high
    assert high > low
    assert rows["fixed.onnx"].accuracy is not None
    assert rows["fixed.onnx"].accuracy.agreement is None  # of other weights
    assert rows["fixed.onnx"].accuracy.miou_difference is None
    assert rows["tiny junior"].about["step"] == 7
    assert rows["tiny junior"].threads["torch"] == 1

    # One failing row does not lose the others, and what cannot be run is said.
    (failure,) = result.failures
    assert failure.name == "other.onnx"
    assert "classes" in failure.error
    assert rows["fixed.onnx"].throughput[1].error is not None

    stored = json.loads((out / "benchmark.json").read_text())
    assert [row["name"] for row in stored["rows"]] == list(rows)
    assert {"machine", "versions", "command", "created"} <= stored.keys()
    assert (out / "benchmark.md").read_text().startswith("# Benchmark")
    page = (out / "index.html").read_text()
    # Three images by input, truth and the rows that predicted them.
    assert page.count('<img src="data:image/') == 3 * (2 + 4)


def test_command(data: Path, tmp_path: Path, run: CommandLine) -> None:
    artifact, out = make_artifact(tmp_path, size=SIZE), tmp_path / "report"
    options = ("--data", data, "--out", out, "--samples", 2, "--seconds", 0.1, "--batches", 1, "--device", "cpu")
    options += ("--sustained", 0)
    finished = run("benchmark", artifact, *options)
    assert finished.code == 0, finished
    assert finished.out.splitlines()[-1] == str(out / "index.html")
    assert finished.out.startswith("tiny.onnx scores ")
    command = json.loads((out / "benchmark.json").read_text())["command"]
    assert command.startswith(f"segkc-deploy benchmark {artifact} --data")

    # A network that the engine cannot load fails its row alone, with exit code 1.
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    manifest = read_manifest(artifact).model_dump(mode="json") | {"sha256": sha256_of(broken), "artifact": broken.name}
    broken.with_name("broken.onnx.json").write_text(json.dumps(manifest))
    finished = run("benchmark", artifact, broken, *options)
    assert finished.code == 1
    stored = json.loads((out / "benchmark.json").read_text())
    assert [row["name"] for row in stored["rows"]] == ["tiny.onnx"]
    assert [failure["name"] for failure in stored["failures"]] == ["broken.onnx"]


def test_mistakes_are_told_before_measuring(data: Path, tmp_path: Path, run: CommandLine) -> None:
    artifact = make_artifact(tmp_path)
    (tmp_path / "empty").mkdir()
    out = ("--out", tmp_path / "report")
    assert "missing.onnx" in run.refused("benchmark", tmp_path / "missing.onnx", "--data", data, *out)
    assert "no junior.safetensors" in run.refused("benchmark", tmp_path / "empty", "--data", data, *out)
    assert "twice" in run.refused("benchmark", artifact, artifact, "--data", data, *out)
    assert "nowhere.yaml" in run.refused("benchmark", artifact, "--data", tmp_path / "nowhere.yaml", *out)
    artifact.write_bytes(b"flipped")
    assert "sha256" in run.refused("benchmark", artifact, "--data", data, *out)
    assert not (tmp_path / "report").exists()
    for option in (("--batches", "1,x"), ("--batches", "²"), ("--seconds", "inf"), ("--sustained", "inf")):
        assert run("benchmark", artifact, "--data", data, *out, *option).code == 2, option
    other_names = LABELS.model_copy(update={"names": ("a", "b", "c", "d")})
    other = make_artifact(tmp_path, "other.onnx", labels=other_names)
    assert "have different classes (class 0 is 'a' against 'dark')" in run.refused(
        "benchmark", other, "--data", data, *out
    )
    odd = make_artifact(tmp_path / os.fsdecode(b"caf\xe9"))
    assert "not UTF-8" in run.refused("benchmark", odd, "--data", data, *out)
    for place in ("0", "1"):  # the same index of two palettes in two colors
        mask = Image.open(data.parent / "masks" / f"{place}.png").convert("P")
        mask.putpalette([7 * int(place) + 1, 2, 3] * 256)
        (tmp_path / "palettes").mkdir(exist_ok=True)
        mask.save(tmp_path / "palettes" / f"{place}.png")
    spec = yaml.safe_load(data.read_text())
    spec["root"] = str(data.parent)
    spec["val"] = {
        "images": spec["val"]["images"],
        "masks": str(tmp_path / "palettes"),
        "ids": str(tmp_path / "two.txt"),
    }
    (tmp_path / "two.txt").write_text("0\n1\n")
    (tmp_path / "palettes.yaml").write_text(yaml.safe_dump(spec))
    fitting = make_artifact(tmp_path, "fitting.onnx")
    assert "different colors" in run.refused("benchmark", fitting, "--data", tmp_path / "palettes.yaml", *out)
    finished = run("benchmark", make_artifact(tmp_path), "--data", data, *out, "--device", "gpu")
    assert (finished.code, "--device" in finished.err) == (2, True)
    assert not (tmp_path / "report").exists()


def test_without_torch_its_rows_are_left_out_and_said(
    tmp_path: Path, run_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = make_artifact(tmp_path)
    monkeypatch.setattr("segkc_deploy.benchmarks.targets.find_spec", lambda name: None if name == "torch" else name)
    rows, notes = plan([run_directory, artifact])
    assert [row.name for row in rows] == ["tiny.onnx"]
    assert "pip install" in notes[0]
    with pytest.raises(ConfigError, match="nothing to measure"):
        plan([run_directory])


def test_names_are_unique(tmp_path: Path, run_directory: Path) -> None:
    first, second = make_artifact(tmp_path / "a"), make_artifact(tmp_path / "b")
    rows, _ = plan([first, second])
    assert [row.name for row in rows] == ["a/tiny.onnx", "b/tiny.onnx"]
    (tmp_path / "only").mkdir()
    (tmp_path / "only/senior.safetensors").write_bytes((run_directory / "senior.safetensors").read_bytes())
    with pytest.raises(RunDirectoryError):
        plan([tmp_path / "only"])


def test_missing_extra_is_told(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: CommandLine) -> None:
    real = builtins.__import__

    def without_jinja2(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name == "segkc_deploy.benchmarks.suite":
            raise ModuleNotFoundError("No module named 'jinja2'", name="jinja2")
        return real(name, *arguments, **keywords)

    artifact = make_artifact(tmp_path)
    monkeypatch.setattr(builtins, "__import__", without_jinja2)
    line = run.refused("benchmark", artifact, "--data", data, "--out", tmp_path / "report")
    assert 'pip install "segkc-deploy[benchmark]"' in line
    assert issubclass(MissingDependencyError, Exception)


def test_pictures_are_the_worst_first_then_median_and_best() -> None:
    scores = {f"i{value}": float(value) for value in (50, 10, 90, 20, 70, 30, 80, 40, 60)} | {"none": None}
    assert choose(scores) == [
        ("i10", "worst"), ("i20", "2nd worst"), ("i30", "3rd worst"), ("i40", "4th worst"), ("i50", "median"),
        ("i90", "best"),
    ]  # fmt: skip
    assert choose({"a": 3.0}) == [("a", "worst")]
    assert choose({"a": None}) == []
