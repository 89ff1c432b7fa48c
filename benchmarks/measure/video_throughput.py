"""How close predicting a video comes to the engine's own throughput on the same frames.

    python -m segkc_deploy.benchmarks.measure.video_throughput junior-fp32.onnx --video drive.mp4 --out video.json

Each round runs the network alone on the video's frames, decoded and resized before, and then `predict` of the whole
video: decoding, network, masks at the frames' size, overlay and encoding. Both see the same state of the machine. The
memory of this process is read after each round.
"""

import json
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import typer

from segkc_deploy import atomic
from segkc_deploy.benchmarks.measure.median_interval import median_interval
from segkc_deploy.machine import describe_machine
from segkc_deploy.predictor import Predictor, load
from segkc_deploy.video.pipeline import VideoOptions, predict_video
from segkc_deploy.video.source import Frame, open_video


def measure(
    artifact: Annotated[Path, typer.Argument(help="What predicts.")],
    video: Annotated[Path, typer.Option(help="A short video; its frames, resized for the network, stay in memory.")],
    rounds: Annotated[
        int, typer.Option(min=1, help="How often network and pipeline are timed, one after the other.")
    ] = 20,
    batch: Annotated[int, typer.Option(min=1, help="Frames that run at once.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of one inference.")] = None,
    device: Annotated[str, typer.Option(help="Where the network runs.")] = "auto",
    overlay: Annotated[bool, typer.Option(help="Whether the overlay video is written.")] = True,
    out: Annotated[Path | None, typer.Option(help="A JSON file for the result.")] = None,
) -> None:
    """Measure the pipeline; see the module's docstring."""
    options = VideoOptions(batch_size=batch, alpha=0.5 if overlay else None)
    with load(artifact, device, threads) as predictor:
        inputs = network_inputs(predictor, video, batch)
        engine, pipeline, memory = [], [], []
        for number in range(rounds + 1):
            taken = (time_engine(predictor, inputs), time_pipeline(predictor, video, options))
            memory.append(psutil.Process().memory_info().rss / 2**20)
            if number:  # the first one warms up
                engine.append(taken[0])
                pipeline.append(taken[1])
        ran_on = predictor.description
    frames = sum(map(len, inputs))
    result = {"artifact": artifact.name, "ran_on": ran_on, "frames": frames, "batch": batch, "threads": threads}
    result |= {"overlay": overlay, "rounds": rounds} | shares(frames, engine, pipeline)
    result |= {"memory_mib": [round(value, 1) for value in memory], "machine": describe_machine()}
    if out is not None:
        atomic.write_text(out, json.dumps(result, indent=2) + "\n")
    typer.echo(json.dumps({name: value for name, value in result.items() if name != "machine"}, indent=2))


def network_inputs(predictor: Predictor, video: Path, batch: int) -> list[np.ndarray]:
    """Return the frames of a video as the network takes them, uint8 (batch, height, width, 3) each."""
    with open_video(str(video)) as opened:
        frames = (item.pixels for item in opened.read() if isinstance(item, Frame))
        inputs = []
        while some := list(islice(frames, predictor.batch_size(batch))):
            inputs.append(predictor.preprocess(some))
        return inputs


def time_engine(predictor: Predictor, inputs: list[np.ndarray]) -> float:
    """Return the seconds that the network alone takes."""
    started = time.perf_counter()
    for images in inputs:
        predictor.infer(images)
    return time.perf_counter() - started


def time_pipeline(predictor: Predictor, video: Path, options: VideoOptions) -> float:
    """Return the seconds from opening the video to the last file closed."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with open_video(str(video)) as opened:
            predict_video(predictor, opened, Path(folder), options)
        return time.perf_counter() - started


def shares(frames: int, engine: list[float], pipeline: list[float]) -> dict[str, Any]:
    """Return frames per second of both, and what the pipeline reaches of the network's: median, its interval, range."""
    ratios = np.array(engine) / np.array(pipeline)
    interval = median_interval(ratios)
    return {
        "engine_frames_per_s": round(frames / float(np.median(engine)), 3),
        "pipeline_frames_per_s": round(frames / float(np.median(pipeline)), 3),
        "share": round(float(np.median(ratios)), 4),
        "share_interval": interval and [round(value, 4) for value in interval],
        "share_range": [round(float(ratios.min()), 4), round(float(ratios.max()), 4)],
    }


if __name__ == "__main__":
    typer.run(measure)
