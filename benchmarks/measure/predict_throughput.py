"""How close `predict` comes to the engine's own throughput on the same images: a video, or a folder of files.

    python -m segkc_deploy.benchmarks.measure.predict_throughput junior-fp32.onnx --source drive.mp4 --out share.json

Each round runs the network alone on the images, decoded and resized before, and then `predict` of all of them:
decoding, network, masks at the images' size, overlays and encoding. Both see the same state of the machine. The memory
of this process is read after each round.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import typer

from segkc_deploy import atomic
from segkc_deploy.benchmarks.measure.median_interval import median_interval
from segkc_deploy.data.images import read_image
from segkc_deploy.error_messages import one_line_errors
from segkc_deploy.machine import describe_machine
from segkc_deploy.prediction_files import predict_files
from segkc_deploy.predictor import Predictor, load
from segkc_deploy.prefetch import run_streams
from segkc_deploy.result_files import Outputs
from segkc_deploy.sources import find_images
from segkc_deploy.video.pipeline import VideoOptions, predict_video
from segkc_deploy.video.source import Frame, names_video, open_video


def measure(
    artifact: Annotated[Path, typer.Argument(help="What predicts.")],
    source: Annotated[str, typer.Option(help="A short video, or images; resized, they stay in memory.")],
    rounds: Annotated[
        int, typer.Option(min=1, help="How often network and `predict` are timed, one after the other.")
    ] = 20,
    batch: Annotated[int, typer.Option(min=1, help="Images that run at once.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of one inference.")] = None,
    streams: Annotated[int, typer.Option(min=1, help="Batches that run at once, by the network alone too.")] = 1,
    device: Annotated[str, typer.Option(help="Where the network runs.")] = "auto",
    overlay: Annotated[bool, typer.Option(help="Whether overlays are written.")] = True,
    out: Annotated[Path | None, typer.Option(help="A JSON file for the result.")] = None,
) -> None:
    """Measure `predict`; see the module's docstring."""
    with load(artifact, device, threads, streams=streams) as predictor:
        inputs = network_inputs(predictor, source, batch)
        engine, pipeline, memory = [], [], []
        for number in range(rounds + 1):
            taken = (time_engine(predictor, inputs), time_predict(predictor, source, batch, overlay))
            memory.append(psutil.Process().memory_info().rss / 2**20)
            if number:  # the first one warms up
                engine.append(taken[0])
                pipeline.append(taken[1])
        ran_on = predictor.description
    images = sum(map(len, inputs))
    result = {"artifact": artifact.name, "ran_on": ran_on, "images": images, "batch": batch, "threads": threads}
    result |= {"streams": streams, "overlay": overlay, "rounds": rounds} | shares(images, engine, pipeline)
    result |= {"memory_mib": [round(value, 1) for value in memory], "machine": describe_machine()}
    if out is not None:
        atomic.write_text(out, json.dumps(result, indent=2) + "\n")
    typer.echo(json.dumps({name: value for name, value in result.items() if name != "machine"}, indent=2))


def network_inputs(predictor: Predictor, source: str, batch: int) -> list[np.ndarray]:
    """Return the images as the network takes them, uint8 (batch, height, width, 3) each."""
    pixels, inputs = _pixels(source), []
    while some := list(islice(pixels, predictor.batch_size(batch))):
        inputs.append(predictor.preprocess(some))
    return inputs


def _pixels(source: str) -> Iterator[np.ndarray]:
    if not names_video(source):
        yield from (read_image(image.path) for image in find_images(source))
        return
    with open_video(source) as opened:
        yield from (item.pixels for item in opened.read() if isinstance(item, Frame))


def time_engine(predictor: Predictor, inputs: list[np.ndarray]) -> float:
    """Return the seconds that the network alone takes."""
    started = time.perf_counter()
    for _ in run_streams(predictor.streams, predictor.infer, inputs):
        pass
    return time.perf_counter() - started


def time_predict(predictor: Predictor, source: str, batch: int, overlay: bool) -> float:
    """Return the seconds from opening the video or finding the files to the last file closed."""
    alpha = 0.5 if overlay else None
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        if names_video(source):
            with open_video(source) as opened:
                predict_video(predictor, opened, Path(folder), VideoOptions(batch_size=batch, alpha=alpha))
        else:
            predict_files(predictor, find_images(source), Path(folder), batch, Outputs(alpha))
        return time.perf_counter() - started


def shares(images: int, engine: list[float], pipeline: list[float]) -> dict[str, Any]:
    """Return images per second of both, and what `predict` reaches of the network's: median, its interval, range."""
    ratios = np.array(engine) / np.array(pipeline)
    interval = median_interval(ratios)
    return {
        "engine_images_per_s": round(images / float(np.median(engine)), 3),
        "predict_images_per_s": round(images / float(np.median(pipeline)), 3),
        "share": round(float(np.median(ratios)), 4),
        "share_interval": interval and [round(value, 4) for value in interval],
        "share_range": [round(float(ratios.min()), 4), round(float(ratios.max()), 4)],
    }


if __name__ == "__main__":
    with one_line_errors():
        typer.run(measure)
