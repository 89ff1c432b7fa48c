"""`segkc-deploy pseudo-label`: a run's network labels images, as PNG masks of class ids that any trainer reads."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from segkc_deploy.data.images import read_image
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.errors import ConfigError, DataError
from segkc_deploy.invocation import command_line
from segkc_deploy.labels import Labels
from segkc_deploy.machine import describe_machine
from segkc_deploy.manifest import sha256_of
from segkc_deploy.pixel_format import PixelFormat
from segkc_deploy.prediction_files import images_to_predict, prepare_folder
from segkc_deploy.prediction_record import ResultFolder, foreign_file
from segkc_deploy.prefetch import prefetch
from segkc_deploy.progress import track
from segkc_deploy.result_files import Outputs, write_mask
from segkc_deploy.sources import SourceImage
from segkc_deploy.training.evaluation.prediction import probability_predictor, protocol_in_words
from segkc_deploy.training.files.network_file import NetworkMetadata, load_network
from segkc_deploy.training.files.run_directory import RunDirectory, read_config
from segkc_deploy.training.models.device import choose_device
from segkc_deploy.training.pseudo_label.calibrate import Calibration, calibrate
from segkc_deploy.training.pseudo_label.confidence import Thresholds
from segkc_deploy.training.pseudo_label.record import Record, Settings, digest_of
from segkc_deploy.training.pseudo_label.source_images import images_to_label, known_sets
from segkc_deploy.training.pseudo_label.training_data import TRAINING_DATA, write_training_data
from segkc_deploy.training.size_trial import require_image_sizes

#: The share of the kept pixels that is to be right where nothing else is asked for.
PRECISION = 0.95


@dataclass(frozen=True)
class Request:
    """What to label, and how sure the network has to be.

    Attributes:
        run: the run directory.
        out: the folder for the masks.
        source: an image, a folder or a glob pattern; by default the unlabeled images of the data spec.
        data: the data spec with validation images; by default the run's own.
        role: `junior` or `senior`; by default the senior where the run has one.
        precision: the share of the kept pixels, 0 to 1, that is to be right on the validation images; by default
            `PRECISION`, unless `confidence` is given.
        confidence: one threshold for all classes, 0 to 1, instead of those by `precision`.
        device: `auto`, `cpu` or `cuda`.
        resume: keep the masks that an earlier call wrote, and its thresholds.
        overwrite: write into a folder that is not empty.
    """

    run: Path
    out: Path
    source: str | None = None
    data: Path | None = None
    role: str | None = None
    precision: float | None = None
    confidence: float | None = None
    device: str = "auto"
    resume: bool = False
    overwrite: bool = False

    @property
    def wanted_precision(self) -> float:
        """The precision to choose thresholds by, 0 to 1."""
        return PRECISION if self.precision is None else self.precision


@dataclass(frozen=True)
class PseudoLabels:
    """What `pseudo_label` wrote.

    Attributes:
        labels: the classes.
        role: the network that labeled.
        precision: what was asked of the kept pixels, 0 to 1; None with a given confidence.
        calibration: thresholds, and their precision on the validation images.
        masks: how many masks there are.
        kept: int64 (classes,): pixels of each class in all masks.
        pixels: pixels of all masks, the ignored ones included.
        empty: how many masks have no kept pixel; they are not in the data spec that was written.
        known: how many images of the source the data spec labels or validates on; they were left out.
        left_out: for each image that could not be labeled, the reason.
        bad_masks: for each labeled or validation image whose mask could not be written, the reason.
        data: the data spec that trains on the masks.
    """

    labels: Labels
    role: str
    precision: float | None
    calibration: Calibration
    masks: int
    kept: np.ndarray
    pixels: int
    empty: int
    known: int
    left_out: tuple[str, ...]
    bad_masks: tuple[str, ...]
    data: Path


def pseudo_label(request: Request) -> PseudoLabels:
    """Write `masks/<id>.png`, `pseudo-label.json`, and a data spec that trains on the masks.

    Raises:
        RunDirectoryError: this is no run, or it has no such network.
        ConfigError: a folder, a spec or a value cannot be used, nothing says how sure the network has to be or two
            values do, or the network cannot take an image's size.
        DataError: there is no image to label.
    """
    if request.confidence is not None and request.precision is not None:
        raise ConfigError(
            "--confidence gives the threshold that --precision is to choose; give one of them (the precision of a given"
            " confidence is measured too)"
        )
    directory = RunDirectory(request.run)
    recipe, own_data = read_config(directory)
    role = request.role or ("senior" if directory.network("senior").is_file() else "junior")
    network, metadata = load_network(directory.network(role))
    sets = known_sets(request.data, own_data, metadata, request.run)
    images, known = images_to_label(request.source, sets, own_data, request.run, request.out)
    seen = [*(image.path for image in images), *(sample.image for sample in (sets.val if sets else ()))]
    require_image_sizes(network, recipe, seen, request.run)
    settings = Settings(
        run=str(request.run),
        role=role,
        weights_sha256=sha256_of(directory.network(role)),
        precision=None if request.confidence is not None else request.wanted_precision,
        confidence=request.confidence,
        protocol=protocol_in_words(recipe.validation, network.size_multiple),
        validation_set=digest_of(sets.val) if sets is not None else None,
    )
    _require_own_folder(request.out, request.data or own_data)
    prepare_folder(request.out, request.overwrite or request.resume)
    device = choose_device(request.device)
    predict = probability_predictor(network.to(device), device, recipe.validation)
    calibration = Record.calibration_of(request.out, settings, metadata.labels) if request.resume else None
    if calibration is None:
        calibration = _calibrate(request, predict, sets, own_data, metadata.labels)
    Record(settings, metadata.labels, calibration).write(request.out)

    left_out = _write_masks(request, predict, images, calibration.thresholds, metadata)
    counts = {image: pixels for image in images if (pixels := _count(request.out, image, metadata.labels)) is not None}
    useful = [image for image, pixels in counts.items() if pixels[:-1].any()]
    data, bad_masks = write_training_data(request.out, metadata.labels, metadata.network.pixels, useful, sets)
    total = np.sum(list(counts.values()), axis=0) if counts else np.zeros(metadata.labels.num_classes + 1, np.int64)
    result = PseudoLabels(
        labels=metadata.labels,
        role=role,
        precision=settings.precision,
        calibration=calibration,
        masks=len(counts),
        kept=total[:-1],
        pixels=int(total.sum()),
        empty=len(counts) - len(useful),
        known=known,
        left_out=tuple(left_out),
        bad_masks=tuple(bad_masks),
        data=data,
    )
    Record(settings, metadata.labels, calibration).write(request.out, _outcome(result))
    return result


def _require_own_folder(out: Path, spec: Path | None) -> None:
    """Refuse a folder in which files would be replaced that no earlier call wrote; masks are looked at later."""
    if spec is not None and out.resolve() == spec.resolve().parent:
        raise ConfigError(f"{out}: holds the data set; choose another --out")
    if Record.is_in(out):
        return
    for name in TRAINING_DATA:
        if os.path.lexists(out / name):
            raise foreign_file(out / name)


def _calibrate(
    request: Request,
    predict: Callable[[np.ndarray], Iterable[Tensor]],
    sets: ImageSets | None,
    own_data: Path | None,
    labels: Labels,
) -> Calibration:
    given = None
    if request.confidence is not None:
        given = Thresholds.fixed(request.confidence, labels.num_classes)
    where = str(request.data or own_data or request.run)
    if sets is not None and sets.val:
        return calibrate(predict, sets, request.wanted_precision, given, where)
    if given is None:
        problem = "is not there any more" if sets is None else "has no validation images"
        if request.data is None and own_data is None:
            problem = "imported without a data spec"
        raise ConfigError(
            f"{where}: {problem}, so no threshold can be chosen by --precision; name a data spec with a val section by"
            " --data, or give --confidence 0.9"
        )
    return Calibration(given)


def _write_masks(
    request: Request,
    predict: Callable[[np.ndarray], Iterable[Tensor]],
    images: Sequence[SourceImage],
    thresholds: Thresholds,
    metadata: NetworkMetadata,
) -> list[str]:
    """Write the masks and return the reasons for which images were left out."""
    left_out = []
    todo = images_to_predict(images, request.out, Outputs(alpha=None), request.resume)
    for image, pixels in track(
        prefetch(partial(_read, pixels=metadata.network.pixels), todo), "Labeling images", total=len(todo)
    ):
        if isinstance(pixels, DataError):
            left_out.append(str(pixels))
            continue
        ignored = metadata.labels.ignore_index
        mask = np.concatenate([thresholds.mask(probabilities, ignored) for probabilities in predict(pixels)])
        write_mask(ResultFolder(request.out), image, mask)
    return left_out


def _read(image: SourceImage, pixels: PixelFormat) -> tuple[SourceImage, np.ndarray | DataError]:
    try:
        return image, read_image(image.path, pixels)
    except DataError as error:
        return image, error


def _count(out: Path, image: SourceImage, labels: Labels) -> np.ndarray | None:
    """Return the pixels of each class in a mask, with the ignored ones last, int64 (classes + 1,); None without it."""
    path = out / "masks" / f"{image.id}.png"
    if not path.is_file():
        return None
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if mask is None or mask.dtype != np.uint8:
        raise DataError(f"{path}: not a mask that this command wrote; delete it, and add --resume")
    counts = np.bincount(mask.ravel(), minlength=256)
    return np.append(counts[: labels.num_classes], counts[labels.ignore_index])


def _outcome(result: PseudoLabels) -> dict[str, Any]:
    """Return what was written, as JSON values; shares are those of all pixels."""
    pixels = max(result.pixels, 1)
    return {
        "masks": result.masks,
        "kept_share": float(result.kept.sum()) / pixels,
        "class_shares": dict(zip(result.labels.names, (result.kept / pixels).tolist(), strict=True)),
        "masks_without_a_kept_pixel": result.empty,
        "known_images_left_out": result.known,
        "left_out": [*result.left_out, *result.bad_masks],
        "command": command_line(),
        "machine": describe_machine(),
    }
