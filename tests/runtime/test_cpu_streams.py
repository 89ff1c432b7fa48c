"""Several batches at once on a CPU: the same masks in the same order, and really at once."""

import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from command_line import CommandLine
from tiny_artifact import LABELS, expected_mask, make_artifact

import segkc_deploy
from segkc_deploy.errors import ConfigError
from segkc_deploy.manifest import read_manifest
from segkc_deploy.predictor import Predictor
from segkc_deploy.prefetch import run_streams
from segkc_deploy.runners import base
from segkc_deploy.runners.base import Runner, RunnerOptions
from segkc_deploy.runners.factory import create_runner
from segkc_deploy.runners.onnx_runner import OnnxRuntimeRunner


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capfd)


def photos(folder: Path, count: int = 9) -> list[np.ndarray]:
    folder.mkdir()
    images = [np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8) for seed in range(count)]
    for number, image in enumerate(images):
        cv2.imwrite(str(folder / f"{number}.png"), image[..., ::-1])
    return images


@pytest.mark.parametrize(
    ("threads", "streams", "cores", "expected"),
    [
        (None, 1, 8, (None, 1)),  # the engine's own choice
        (3, 1, 8, (3, 1)),
        (None, None, 8, (1, 8)),
        (3, None, 8, (3, 2)),
        (9, None, 8, (9, 1)),
        (None, None, 64, (4, 16)),  # each stream needs memory of its own
        (None, 2, 8, (4, 2)),
        (None, 4, 2, (1, 4)),
        (2, 3, 8, (2, 3)),
    ],
)
def test_streams_share_the_cores(
    monkeypatch: pytest.MonkeyPatch,
    threads: int | None,
    streams: int | None,
    cores: int,
    expected: tuple[int | None, int],
) -> None:
    monkeypatch.setattr(base, "available_cores", lambda: cores)
    assert RunnerOptions(threads=threads, streams=streams).on_cpu() == expected


def test_measured_streams_do_not_keep_a_network_from_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were measured while no GPU could be used, and nobody asked for them."""
    assert RunnerOptions(streams=None, measured_streams=3, threads=2).on_cpu() == (2, 3)
    assert RunnerOptions(streams=2, measured_streams=3, threads=2).on_cpu() == (2, 2)
    artifact = make_artifact(tmp_path)

    def on_gpu(self: OnnxRuntimeRunner, onnxruntime: Any, provider: str) -> tuple[Any, str]:
        return onnxruntime.InferenceSession(str(artifact), providers=["CPUExecutionProvider"]), ""

    monkeypatch.setattr(OnnxRuntimeRunner, "_open_on_gpu", on_gpu)
    with OnnxRuntimeRunner(artifact, streams=None, measured_streams=3) as runner:
        assert runner.streams == 1
    with pytest.raises(ConfigError, match="streams are for the CPU"):
        OnnxRuntimeRunner(artifact, streams=3).activate()


class Meeting(Runner):
    """A network that ends only once as many threads are in it as it has streams."""

    description = "a meeting"

    def __init__(self, streams: int) -> None:
        self.streams = streams
        self._all_there = threading.Barrier(streams, timeout=20)
        self._inside = threading.Semaphore(streams)

    def activate(self) -> None:
        pass

    def infer(self, images: np.ndarray) -> dict[str, np.ndarray]:
        assert self._inside.acquire(blocking=False), "more threads than streams"
        self._all_there.wait()
        self._inside.release()
        return {"masks": images[..., 0]}

    def deactivate(self) -> None:
        pass


@pytest.mark.parametrize("streams", [1, 3])
def test_as_many_run_at_once_as_there_are_streams(tmp_path: Path, streams: int) -> None:
    contract = read_manifest(make_artifact(tmp_path)).contract
    predictor = Predictor(Meeting(streams), LABELS, contract)
    batches = [np.full((1, 8, 12, 3), value, np.uint8) for value in range(3 * streams)]
    results = list(run_streams(predictor.streams, predictor.infer, batches))
    assert [int(result["masks"][0, 0, 0]) for result in results] == list(range(3 * streams))


@pytest.mark.parametrize("streams", [1, 2, None])
def test_files_have_the_same_masks(command: CommandLine, tmp_path: Path, streams: int | None) -> None:
    images = photos(tmp_path / "photos")
    (tmp_path / "photos" / "4.png").write_bytes(b"no image")
    artifact = make_artifact(tmp_path)
    options = () if streams is None else ("--streams", str(streams))
    finished = command("predict", artifact, "--source", tmp_path / "photos", "--out", tmp_path / "out", *options)
    assert finished.code == 2
    assert "4.png" in finished.err
    record = (tmp_path / "out" / "predicted.jsonl").read_text().splitlines()
    assert record[::2] == [f'"masks/{number}.png"' for number in range(len(images)) if number != 4]
    for number, image in enumerate(images):
        if number != 4:
            mask = cv2.imread(str(tmp_path / "out" / "masks" / f"{number}.png"), cv2.IMREAD_UNCHANGED)
            assert np.array_equal(mask, expected_mask(image))


def test_many_threads_share_the_streams_of_onnx_runtime(tmp_path: Path) -> None:
    images = photos(tmp_path / "photos")
    with segkc_deploy.load(make_artifact(tmp_path), device="cpu", streams=3) as predictor:
        assert predictor.streams == 3
        masks = list(run_streams(6, predictor.predict, images))
    assert all(np.array_equal(mask, expected_mask(image)) for mask, image in zip(masks, images, strict=True))


@pytest.mark.parametrize(("streams", "used"), [(None, 1), (1, 1)])
def test_engines_without_streams_run_one_at_a_time(tmp_path: Path, streams: int | None, used: int) -> None:
    artifact = make_artifact(tmp_path)
    manifest = read_manifest(artifact).model_copy(update={"engine": "aoti"})
    assert create_runner(artifact, manifest, streams=streams).streams == used
    with pytest.raises(ConfigError, match="streams are for the engines onnx and openvino on a CPU"):
        create_runner(artifact, manifest, streams=2)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--tile",), "--streams is not for --tile"),
        (("--ray",), "--streams is not for --ray, use --ray-workers"),
    ],
)
def test_options_that_exclude_each_other(
    command: CommandLine, tmp_path: Path, options: tuple[str, ...], reason: str
) -> None:
    photos(tmp_path / "photos", 1)
    artifact, out = make_artifact(tmp_path), tmp_path / "out"
    line = command.refused("predict", artifact, "--source", tmp_path / "photos", "--out", out, "--streams", 2, *options)
    assert reason in line
    url = "http://localhost:1/v2/models/x"
    assert "the server has its own" in command.refused(
        "predict", url, "--source", tmp_path / "photos", "--out", out, "--streams", 2
    )
