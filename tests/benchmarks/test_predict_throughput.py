"""The measurement of `predict`, in short."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_artifact import make_artifact

from segkc_deploy.benchmarks.measure.predict_throughput import measure, shares

av = pytest.importorskip("av")


def test_it_compares_a_video_with_the_network_alone(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for _ in range(7):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 48, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    artifact = make_artifact(tmp_path)
    source = str(tmp_path / "clip.mp4")
    measure(artifact, source, rounds=2, batch=3, threads=1, device="cpu", out=tmp_path / "share.json")
    result = json.loads((tmp_path / "share.json").read_text())
    assert result["images"] == 7
    assert result["share_range"][0] <= result["share"] <= result["share_range"][1]
    assert len(result["memory_mib"]) == 3


def test_it_compares_files_with_the_network_alone(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / "photos").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "photos" / f"{number}.png"), np.zeros((8 + number, 12, 3), np.uint8))
    artifact = make_artifact(tmp_path)
    source = str(tmp_path / "photos")
    measure(artifact, source, rounds=1, threads=1, device="cpu", overlay=False, out=tmp_path / "share.json")
    result = json.loads((tmp_path / "share.json").read_text())
    assert (result["images"], result["overlay"]) == (5, False)
    assert result["share_range"][0] <= result["share"] <= result["share_range"][1]


def test_shares_are_the_medians_of_the_rounds() -> None:
    result = shares(10, [1.0, 2.0, 4.0], [2.0, 2.5, 5.0])
    assert (result["engine_images_per_s"], result["predict_images_per_s"]) == (5.0, 4.0)
    assert (result["share"], result["share_range"], result["share_interval"]) == (0.8, [0.5, 0.8], None)
