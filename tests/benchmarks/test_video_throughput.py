"""The measurement of the video pipeline, in short."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_artifact import make_artifact

from segkc_deploy.benchmarks.measure.video_throughput import measure, shares

av = pytest.importorskip("av")


def test_it_compares_the_pipeline_with_the_network_alone(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for _ in range(7):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 48, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    artifact = make_artifact(tmp_path)
    measure(artifact, tmp_path / "clip.mp4", rounds=2, batch=3, threads=1, device="cpu", out=tmp_path / "video.json")
    result = json.loads((tmp_path / "video.json").read_text())
    assert result["frames"] == 7
    assert result["share_range"][0] <= result["share"] <= result["share_range"][1]
    assert len(result["memory_mib"]) == 3


def test_shares_are_the_medians_of_the_rounds() -> None:
    result = shares(10, [1.0, 2.0, 4.0], [2.0, 2.5, 5.0])
    assert (result["engine_frames_per_s"], result["pipeline_frames_per_s"]) == (5.0, 4.0)
    assert (result["share"], result["share_range"], result["share_interval"]) == (0.8, [0.5, 0.8], None)
