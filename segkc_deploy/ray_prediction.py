"""Predict image files on many machines with Ray Data: workers read images and write results, this process counts."""

import logging
import os
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from segkc_deploy.errors import ConfigError, MissingDependencyError, UserError
from segkc_deploy.prediction_files import images_to_predict, predict_each, report_left_out, settings_of
from segkc_deploy.prediction_record import RECORD, ResultFolder, keep_existing
from segkc_deploy.predictor import Predictor
from segkc_deploy.progress import console, track
from segkc_deploy.result_files import Outputs
from segkc_deploy.shrinking import ShrinkNotice, print_notice
from segkc_deploy.sources import SourceImage
from segkc_deploy.tiled_files import check_tiling, predict_each_tiled

#: Batches that a worker takes at once: it reads the next images while the network runs.
_BATCHES_AT_ONCE = 8


#: How often images are tried again whose worker or machine is lost.
_RETRIES = 3


@dataclass(frozen=True)
class RayJob:
    """What the workers do.

    Attributes:
        opened: loads the network; called once in each worker.
        out: the folder for the results, which all machines share.
        batch_size, outputs, shrink_notice: see `prediction_files.predict_files`.
        tile: whether images are predicted in tiles, with `stride` pixels from one window to the next.
        cpus, gpus: what a worker occupies of the cluster; `gpus` None takes one where the cluster has some.
        workers: how many there are; as many as the cluster has room for if None.
        network: what tells the network from others, see `prediction_files.network_of`; None where it is not known.
    """

    opened: Callable[[], Predictor]
    out: Path
    batch_size: int
    outputs: Outputs
    shrink_notice: float
    tile: bool = False
    stride: int | None = None
    cpus: int = 1
    gpus: int | None = None
    workers: int | None = None
    network: str | None = None


def predict_files_on_ray(job: RayJob, images: Sequence[SourceImage], resume: bool = False) -> int:
    """Predict images on the cluster that the variable `RAY_ADDRESS` names, one that runs here, or a new local one.

    The files are those of `predict_files` and `predict_files_tiled`. Images that were left out are named at the end.

    Returns:
        How many images were left out.

    Raises:
        ConfigError: there is no such cluster, it has no room for a worker, a worker cannot load the network, does not
            see the folders or keeps dying, or a result cannot be written.
        MissingDependencyError: Ray is not installed.
    """
    ray = import_ray()
    job = replace(job, out=job.out.absolute())
    settings = settings_of(job.network, job.outputs, job.tile, job.stride)
    images = images_to_predict(images, job.out, job.outputs, resume, settings)
    # Named before there is one, since several machines cannot append to one file.
    ResultFolder(job.out).note(
        *(PurePosixPath(name) for image in images for names in job.outputs.names(image.id) for name in sorted(names))
    )
    try:
        ray.init(logging_level="error", log_to_driver=False)
    except (ConnectionError, ValueError) as error:
        raise ConfigError(f"no Ray cluster: {error}; see the variable RAY_ADDRESS") from None
    try:
        reasons = [
            reason
            for reason in track(_reasons(ray, job, images), "Predicting", total=len(images), unit="images")
            if reason is not None
        ]
    finally:
        ray.shutdown()
    keep_existing(job.out)
    for reason in sorted(reasons):
        report_left_out(reason)
    return len(reasons)


def _reasons(ray: Any, job: RayJob, images: Sequence[SourceImage]) -> Iterator[str | None]:
    """Yield for each image, as they are done, why it was left out, or None."""
    if not images:
        return
    cpus, gpus, workers = _room(ray.cluster_resources(), job)
    size = 1 if job.tile else job.batch_size * _BATCHES_AT_ONCE
    # Paths are bytes: they need not be text.
    items = [
        {
            "images": [
                [os.fsencode(image.path.absolute()), os.fsencode(image.id)] for image in images[start : start + size]
            ]
        }
        for start in range(0, len(images), size)
    ]
    workers = min(workers, len(items))
    console.print(f"{workers} Ray workers, each with {cpus} CPUs and {gpus} GPUs", soft_wrap=True)
    dataset = ray.data.from_items(items, override_num_blocks=min(len(items), 16 * workers))
    with warnings.catch_warnings():
        # Without a limit Ray would retry forever an image that crashes its worker. Ray 2.60 deprecates this argument
        # without a replacement, hence the upper bound on Ray's version.
        warnings.simplefilter("ignore", DeprecationWarning)
        results = dataset.map(
            _Worker,
            fn_constructor_args=(job,),
            num_cpus=cpus,
            num_gpus=gpus,
            concurrency=workers,
            max_task_retries=_RETRIES,
        ).iter_rows()
    noticed = False
    try:
        for row in results:
            if row["error"]:
                raise ConfigError(row["error"])
            if row["notice"] and not noticed:
                noticed = True
                print_notice(row["notice"])
            yield from (reason or None for reason in row["reasons"])
    except ray.exceptions.RayError as error:
        reason = str(error).strip().split(". ")[0]
        raise ConfigError(
            f"a Ray worker died {_RETRIES + 1} times over the same images, perhaps for want of memory; use fewer"
            f" --ray-workers, and --resume to continue ({reason})"
        ) from None


def _room(resources: dict[str, float], job: RayJob) -> tuple[int, int, int]:
    """Return the CPUs and GPUs of a worker, and how many workers there are.

    Raises:
        ConfigError: the cluster has no room for one.
    """
    gpus = job.gpus if job.gpus is not None else int(resources.get("GPU", 0) > 0)
    room = int(resources.get("CPU", 0) // job.cpus)
    if gpus:
        room = min(room, int(resources.get("GPU", 0) // gpus))
    if room < (job.workers or 1):
        raise ConfigError(
            f"the Ray cluster has {resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs,"
            f" room for {room} workers of {job.cpus} CPUs and {gpus} GPUs; lower --threads or --ray-workers"
        )
    return job.cpus, gpus, job.workers or room


class _Worker:
    """Predicts some images after others in a process of the cluster. What goes wrong is returned, not raised."""

    def __init__(self, job: RayJob) -> None:
        self._job = job
        self._predictor: Predictor | None = None
        self._notices: list[str] = []

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Predict the images of a row; return for each why it was left out, or nothing."""
        images = [SourceImage(Path(os.fsdecode(path)), os.fsdecode(name)) for path, name in row["images"]]
        try:
            reasons = [reason or "" for reason in self._predict(images)]
        except UserError as error:
            return {"reasons": [], "notice": "", "error": f"{error} (on {socket.gethostname()})"}
        notice, self._notices = next(iter(self._notices), ""), []
        return {"reasons": reasons, "notice": notice, "error": ""}

    def _predict(self, images: list[SourceImage]) -> Iterator[str | None]:
        job = self._job
        if not (job.out / RECORD).is_file():
            raise ConfigError(
                f"{job.out}: not the same folder on every machine; choose an --out that all of them share"
            )
        if self._predictor is None:
            self._predictor = job.opened()
            self._shrinking = ShrinkNotice(self._predictor.contract, job.shrink_notice, self._notices.append)
        folder = ResultFolder(job.out, recorded=True)
        if job.tile:
            check_tiling(self._predictor, images, job.outputs, job.stride)
            arguments = (job.stride, job.batch_size, job.outputs, lambda share, what: None)
            return predict_each_tiled(self._predictor, images, folder, *arguments)
        return predict_each(self._predictor, images, folder, job.batch_size, job.outputs, self._shrinking)


def import_ray() -> Any:
    """Return Ray, which then sends no statistics of its use and draws no progress of its own.

    Raises:
        MissingDependencyError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's core otherwise prints an error about every worker of Ray Data.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError:
        raise MissingDependencyError(
            '--ray needs Ray, which is not installed: pip install "segkc-deploy[ray]"'
        ) from None
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray
