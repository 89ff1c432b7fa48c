"""Measures one row in a process of its own: `python -m segkc_deploy.benchmarks.measure.worker JOB.json ROW.json`.

The row is written again after each part, so that what was measured survives a crash of a later part.
"""

import sys
import time
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict

from segkc_deploy import atomic
from segkc_deploy.benchmarks.measure.gpu_latency import add_cuda_graph, add_device_times, runs_on_gpu
from segkc_deploy.benchmarks.measure.latency import Budget, measure_batch, measure_latency
from segkc_deploy.benchmarks.measure.machine_state import MachineWatch
from segkc_deploy.benchmarks.measure.memory import device_used_mib, host_now_mib, host_peak_mib, reset_host_peak
from segkc_deploy.benchmarks.measure.meters import open_meter
from segkc_deploy.benchmarks.measure.miou_interval import RESAMPLES, SEED, miou_interval
from segkc_deploy.benchmarks.measure.nvidia_gpu import find_gpu_of_row
from segkc_deploy.benchmarks.measure.state_flags import ACCURACY, AFTER, drift_flag
from segkc_deploy.benchmarks.measure.sustained import best_batch, measure_sustained
from segkc_deploy.benchmarks.measure.worker_process import work_on_job
from segkc_deploy.benchmarks.options import MeasureOptions
from segkc_deploy.benchmarks.schema import Accuracy, BatchPoint, Memory, Role, Row
from segkc_deploy.benchmarks.store.image_ids import printable
from segkc_deploy.benchmarks.store.masks import save_counts, save_mask
from segkc_deploy.data.images import read_image
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.engines import number_formats
from segkc_deploy.errors import DataError, SegKCError
from segkc_deploy.evaluation import ScoredImage, evaluate
from segkc_deploy.labels import require_same_classes
from segkc_deploy.manifest import Manifest, sha256_of
from segkc_deploy.pixel_format import require_same_format
from segkc_deploy.predictor import Predictor, load
from segkc_deploy.preprocess import network_size
from segkc_deploy.progress import console

#: What an engine, PyTorch or OpenCV raises for a batch that takes more memory than there is.
_TOO_MUCH = (RuntimeError, MemoryError, cv2.error, SegKCError)

_WEIGHT_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1}


class RowJob(BaseModel):
    """Which row to measure and how; `masks` is the folder for the predicted masks of the validation images."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    role: Role
    target: Path
    data: Path
    masks: Path
    options: MeasureOptions


def measure(job: RowJob, row_file: Path) -> Row:
    """Measure the row and write it to `row_file` after each part.

    Raises:
        UserError: the target or the data cannot be used.
    """
    options = job.options
    sets = load_data_spec(job.data).resolve()
    images = some_images(sets, options.images)
    if options.threads is not None:
        cv2.setNumThreads(options.threads)
    budget = Budget(options.seconds, options.samples)

    gpu, no_gpu = (None, "") if options.device == "cpu" else find_gpu_of_row()
    watch = MachineWatch(gpu)
    reset_host_peak()  # that of decoding the images
    host_before, device_before = host_now_mib(), device_used_mib()
    began = time.perf_counter()
    with open_target(job.role, job.target, options) as predictor:
        predictor.predict(images[0])
        row = _new_row(job, predictor, cold_start_s=time.perf_counter() - began)
        require_same_classes(predictor.labels.names, sets.labels.names, job.target, job.data)
        require_same_format(predictor.contract.pixels, sets.pixels, job.target, job.data)
        if not runs_on_gpu(row.engine):
            watch.leave_gpu_out()
        elif gpu is None:
            row.not_measured["state.gpu"] = no_gpu

        console.print(f"{job.name}: latency", soft_wrap=True)
        row.latency = measure_latency(predictor, images, budget, watch.during("latency"))
        row.memory = _memory(host_before, device_before, row.engine)
        _write(row, row_file, watch)
        image_and_outputs = _image_and_outputs(row, predictor, images)
        row.threads = _threads(options.threads)
        if runs_on_gpu(row.engine):
            add_device_times(row, predictor, images, budget)
        _write(row, row_file, watch)

        with watch.during(ACCURACY):
            row.accuracy = _accuracy(predictor, sets, job)
        _write(row, row_file, watch)

        for batch in options.batches:
            console.print(f"{job.name}: batch {batch}", soft_wrap=True)
            row.throughput.append(_batch_point(predictor, images, batch, budget, watch))
            _write(row, row_file, watch)

        _add_sustained(row, predictor, images, options.sustained, watch)
    if predictor.manifest is not None and predictor.manifest.engine == "trt":
        console.print(f"{job.name}: CUDA graphs", soft_wrap=True)
        add_cuda_graph(row, job.target, images, budget, watch.during("CUDA graphs"))
    watch.read(AFTER)
    _describe(row, job, predictor.manifest)
    if row.parameters is not None and image_and_outputs is not None:
        row.moved_bytes = moved_bytes(row.parameters, row.precision, image_and_outputs)
    _write(row, row_file, watch)
    return row


def some_images(sets: ImageSets, count: int) -> list[np.ndarray]:
    """Decode up to `count` validation images, evenly spaced over the set."""
    if not sets.val:
        raise DataError("the data spec has no validation images, which a benchmark needs (section `val:`)")
    places = np.linspace(0, len(sets.val) - 1, min(count, len(sets.val))).round().astype(int)
    return [read_image(sets.val[place].image, sets.pixels) for place in places]


def open_target(role: Role, target: Path, options: MeasureOptions) -> Predictor:
    """Return the predictor of an artifact, or of the senior or the junior of a run directory.

    Raises:
        UserError: it cannot be used, or not on this device.
    """
    if role == "artifact":
        return load(target, options.device, options.threads)
    from segkc_deploy.export.torch_runner import load_run_predictor

    return load_run_predictor(target, role, options.device)


def moved_bytes(parameters: int, precision: str, image_and_outputs: int) -> int:
    """Return the fewest bytes that an inference moves: all weights, the image and the outputs, each once.

    Weights count by the row's precision and not by the file: an engine's file holds code and sometimes more than one
    form of a weight. Layers in a higher precision move more, so this is a lower bound.
    """
    return parameters * _WEIGHT_BYTES[number_formats(precision)[0]] + image_and_outputs


def _new_row(job: RowJob, predictor: Predictor, cold_start_s: float) -> Row:
    return Row(
        name=job.name,
        role=job.role,
        target=str(job.target),
        engine=predictor.description,
        precision=predictor.manifest.precision if predictor.manifest else "fp32",
        size=predictor.contract.size,
        cold_start_s=cold_start_s,
    )


def _memory(host_before: float, device_before: float | None, engine: str) -> Memory:
    peak = host_peak_mib()
    device_after = device_used_mib() if runs_on_gpu(engine) else None
    added = device_after - device_before if device_after is not None and device_before is not None else None
    return Memory(
        host_baseline_mib=host_before,
        host_peak_mib=peak,
        host_added_mib=peak - host_before,
        device_added_mib=added,
    )


def _image_and_outputs(row: Row, predictor: Predictor, images: list[np.ndarray]) -> int | None:
    """Return the bytes of the network's input and outputs for one image, or None where they depend on the image."""
    contract = predictor.contract
    if {network_size(contract, image.shape[:2]) for image in images} != {contract.size}:
        row.not_measured["moved_bytes"] = "the network runs images at their own sizes, but its FLOPs are for one size"
        return None
    if contract.batch > 1:
        row.not_measured["moved_bytes"] = (
            f"the artifact always runs {contract.batch} images, but its FLOPs are for one image"
        )
        return None
    batch = predictor.preprocess(images[:1])
    return batch.nbytes + sum(output.nbytes for output in predictor.infer(batch).values())


def _threads(asked: int | None) -> dict[str, int | None]:
    threads = {"asked": asked, "opencv": cv2.getNumThreads()}
    torch = sys.modules.get("torch")
    if torch is not None:
        threads["torch"] = torch.get_num_threads()
    return threads


def _accuracy(predictor: Predictor, sets: ImageSets, job: RowJob) -> Accuracy:
    image_miou: dict[str, float | None] = {}
    block = job.options.block

    def keep(scored: ScoredImage) -> None:
        save_mask(job.masks, len(image_miou), scored.prediction)
        image_miou[printable(scored.sample.id)] = scored.scores.miou

    evaluation = evaluate(predictor.predict, sets, f"{job.name}: mIoU", keep)
    save_counts(job.masks, evaluation.image_counts)
    scores, boundary = evaluation.scores, evaluation.boundary
    return Accuracy(
        images=evaluation.images,
        miou=scores.miou,
        pixel_accuracy=scores.pixel_accuracy,
        iou=list(scores.iou),
        boundary_miou=boundary.miou,
        boundary_iou=list(boundary.iou),
        miou_interval=miou_interval(evaluation.image_counts, block),
        resamples=RESAMPLES,
        resampling_seed=SEED,
        resampling_block=block,
        image_miou=image_miou,
        confusion=evaluation.confusion.tolist(),
    )


def _batch_point(
    predictor: Predictor, images: list[np.ndarray], batch: int, budget: Budget, watch: MachineWatch
) -> BatchPoint:
    contract = predictor.contract
    if 0 < contract.batch < batch:
        return BatchPoint(batch=batch, error=f"the artifact has a fixed batch size of {contract.batch}")
    if contract.max_batch is not None and contract.max_batch < batch:
        return BatchPoint(batch=batch, error=f"the artifact takes {contract.max_batch} images at most")
    reset_host_peak()  # that of the parts before
    try:
        point = measure_batch(predictor, images, batch, budget, watch.during(f"batch {batch}"))
    except _TOO_MUCH as error:
        # Most likely out of memory: the other sizes and the rest of the row are measured all the same.
        return BatchPoint(batch=batch, error=(str(error).strip().splitlines() or [type(error).__name__])[0])
    point.host_peak_mib = host_peak_mib()
    return point


def _add_sustained(
    row: Row, predictor: Predictor, images: list[np.ndarray], seconds: float, watch: MachineWatch
) -> None:
    """Set the throughput and energy of a long load, or the reason why they are missing in `not_measured`."""
    batch = best_batch(row.throughput)
    if seconds == 0 or batch is None:
        row.not_measured["sustained"] = "skipped by --sustained 0" if batch else "no batch size could be run"
        return
    console.print(f"{row.name}: batch {batch} for {seconds:g} s", soft_wrap=True)
    unknown_gpu = row.not_measured.get("state.gpu")
    with nullcontext((None, unknown_gpu)) if unknown_gpu else open_meter(watch.gpu) as (meter, no_meter):
        row.sustained = measure_sustained(predictor, images, batch, seconds, meter, watch.during("sustained"))
    if row.sustained.energy is None:
        row.not_measured["sustained.energy"] = no_meter or "the meter could no longer be read"


def _describe(row: Row, job: RowJob, manifest: Manifest | None) -> None:
    if manifest is not None:
        row.parameters, row.flops, row.file_bytes = manifest.parameters, manifest.flops, manifest.bytes
        row.activation_peak_bytes = manifest.activation_peak_bytes
        if manifest.activation_peak_bytes is None:
            row.not_measured["activation_peak_bytes"] = "its manifest is older than this metric; export again"
        row.about = manifest.source.model_dump()
        if manifest.verification is not None:
            row.about |= {"agreement": manifest.verification.agreement, "verified": manifest.verification.subject}
        return
    from segkc_deploy.export.torch_activations import run_activation_peak
    from segkc_deploy.export.torch_runner import describe_run

    run = describe_run(job.target, job.role)
    row.activation_peak_bytes = run_activation_peak(job.target, job.role)
    row.parameters, row.flops, row.file_bytes = run.parameters, run.flops, run.weights_bytes
    row.about = {
        "run": str(job.target),
        "weights_sha256": sha256_of(run.weights),
        "recipe": run.recipe,
        "method": run.method,
        "step": run.step,
        "backbone": run.backbone,
        "decoder": run.decoder,
    }


def _write(row: Row, row_file: Path, watch: MachineWatch) -> None:
    row.state = watch.state()
    row.not_measured |= watch.missing()
    if row.sustained is not None and (flag := drift_flag(row.sustained.drift)):
        row.state.flags.append(flag)
    atomic.write_text(row_file, row.model_dump_json())


if __name__ == "__main__":
    work_on_job(RowJob, measure)
