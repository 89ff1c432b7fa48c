"""One contender of the study of inference speed: `python -m segkc_deploy.benchmarks.studies.inference_contender JOB`.

It answers as every contender of an interleaved timing does, see `segkc_deploy.benchmarks.interleaved.worker`.
"""

import sys
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict

from segkc_deploy.benchmarks.interleaved.timing import RUNS
from segkc_deploy.benchmarks.interleaved.worker import ReadyContender, serve
from segkc_deploy.benchmarks.measure.latency import warm_up
from segkc_deploy.benchmarks.store.masks import save_mask
from segkc_deploy.data.images import read_image
from segkc_deploy.manifest import read_manifest
from segkc_deploy.predictor import Predictor, load
from segkc_deploy.preprocess import resize_image
from segkc_deploy.runners.openvino_runner import OpenVINORunner

#: See `segkc_deploy.export.baselines` and `segkc_deploy.export.published_baselines`.
BaselineName = Literal["published", "autocast", "plain export"]


class InferenceJob(BaseModel):
    """What to run: a `baseline` of the run directory `target`, or the artifact `target`.

    Attributes:
        hint: the precision hint of OpenVINO, instead of the artifact's own.
        image: an image file, of which one is made of each of `sizes`, (height, width).
        masks: a folder for the masks, one for each size.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    baseline: BaselineName | None
    target: Path
    hint: str | None
    image: Path
    sizes: tuple[tuple[int, int], ...]
    masks: Path
    threads: int
    warm_up_s: float


def get_ready(job: InferenceJob) -> ReadyContender:
    """Open the contender and save its masks; it runs on each size `RUNS` times in a row."""
    cv2.setNumThreads(job.threads)
    original = read_image(job.image)
    images = [resize_image(original, size) for size in job.sizes]
    if job.baseline is not None:
        contender = _baseline(job)
    else:
        predictor = _hinted(job) if job.hint else load(job.target, "cpu", job.threads)
        contender = ReadyContender(predictor.description, predictor.predict, [])
    for place, image in enumerate(images):
        mask = contender.predict(image)
        assert isinstance(mask, np.ndarray)
        folder = job.masks / str(place)
        folder.mkdir()
        save_mask(folder, 0, mask)
        warm_up(lambda image=image: contender.predict(image), job.warm_up_s)  # type: ignore[misc]
    return ReadyContender(contender.engine, contender.predict, [image for image in images for _ in range(RUNS)])


def _baseline(job: InferenceJob) -> ReadyContender:
    from segkc_deploy.export.baselines import Baseline, PlainExportBaseline
    from segkc_deploy.export.published_baselines import AutocastBaseline, PublishedBaseline

    kinds: dict[str | None, type[Baseline]] = {
        "published": PublishedBaseline,
        "autocast": AutocastBaseline,
        "plain export": PlainExportBaseline,
    }
    baseline = kinds[job.baseline](job.target, "cpu", job.threads)
    return ReadyContender(baseline.description, baseline.predict, [])


def _hinted(job: InferenceJob) -> Predictor:
    """Open an OpenVINO artifact with another precision hint than its own."""
    manifest = read_manifest(job.target)
    assert job.hint is not None
    runner = OpenVINORunner(job.target, "cpu", job.threads, job.hint)
    runner.activate()
    return Predictor(runner, manifest.labels, manifest.contract, manifest)


if __name__ == "__main__":
    serve(lambda: get_ready(InferenceJob.model_validate_json(Path(sys.argv[1]).read_bytes())))
