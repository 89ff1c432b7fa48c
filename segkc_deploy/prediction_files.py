"""Predict image files and write the results.

Images are read and resized in the background before the network runs on them, and their masks are made and written in
the background after it, so that the network waits for neither.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from segkc_deploy.data.images import read_image
from segkc_deploy.errors import ConfigError, DataError
from segkc_deploy.machine import available_cores
from segkc_deploy.prediction_record import (
    Further,
    ResultFolder,
    foreign_file,
    record_settings,
    recorded_results,
    recorded_settings,
    remove_earlier,
    results_there,
)
from segkc_deploy.predictor import Predictor
from segkc_deploy.prefetch import prefetch, run_streams
from segkc_deploy.progress import console, track
from segkc_deploy.result_files import Outputs, ResultFile, results_of, write_results
from segkc_deploy.shrinking import SHRINK_NOTICE, ShrinkNotice
from segkc_deploy.sources import SourceImage

_EVERYTHING = Outputs()

#: What the pixels of results depend on, by name.
Settings = Mapping[str, str | int | float | None]

#: That decode, and as many that encode: a network on a GPU is faster than one thread. `prefetch` keeps few images in
#: memory whatever their number.
_THREADS = min(4, available_cores())

#: OpenCV raises an error of its own where memory is short.
OUT_OF_MEMORY = (MemoryError, cv2.error)


def prepare_folder(out: Path, overwrite: bool) -> None:
    """Make the folder for the results.

    Raises:
        ConfigError: it cannot be made, or holds files already and `overwrite` is not set.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        occupied = any(out.iterdir())
    except OSError as error:
        raise ConfigError(f"{out}: cannot be used as the output folder: {error.strerror}; choose another") from None
    if occupied and not overwrite:
        raise ConfigError(f"{out}: the folder is not empty; choose another, or add --overwrite to write into it")


def predict_files(
    predictor: Predictor,
    images: Sequence[SourceImage],
    out: Path,
    batch_size: int = 1,
    outputs: Outputs = _EVERYTHING,
    shrink_notice: float = SHRINK_NOTICE,
    resume: bool = False,
) -> int:
    """Write `out/masks/<id>.png`, and what `outputs` says, for each image.

    A mask file is a single-channel 8-bit PNG of class ids at the image's own size. An overlay that is too wide or high
    for JPEG is written as PNG. An image that cannot be read, or for which the memory is too small, is named on stderr
    and left out. What an earlier call wrote into `out` is deleted first, unless `resume` is set; other files stay.

    Args:
        predictor: what predicts.
        images: what is predicted.
        out: the folder for the results.
        batch_size: how many images run at once, where the artifact leaves that open.
        outputs: what is written besides masks.
        shrink_notice: how many times smaller a side may become for the network before it is said.
        resume: keep what an earlier call wrote, and leave out the images whose results are there.

    Returns:
        How many images were left out.

    Raises:
        ArtifactError: the confidence is wanted, and the artifact gives none.
        ConfigError: a result could not be written, would replace a file that no earlier call wrote, or `resume` is set
            and the results that are there were made otherwise.
    """
    _require(predictor, outputs)
    images = images_to_predict(images, out, outputs, resume, settings_of(network_of(predictor), outputs))
    shrinking = ShrinkNotice(predictor.contract, shrink_notice)
    each = predict_each(predictor, images, ResultFolder(out), batch_size, outputs, shrinking)
    failed = 0
    for reason in track(each, "Predicting", total=len(images), unit="images"):
        if reason is not None:
            failed += 1
            report_left_out(reason)
    return failed


def predict_each(
    predictor: Predictor,
    images: Sequence[SourceImage],
    folder: ResultFolder,
    batch_size: int,
    outputs: Outputs,
    shrinking: ShrinkNotice,
) -> Iterator[str | None]:
    """Predict images and write their results; yield for each, in order, why it was left out, or None.

    Raises:
        ArtifactError: the confidence is wanted, and the artifact gives none.
        ConfigError: a result could not be written.
    """
    _require(predictor, outputs)
    ready = prefetch(partial(_get_ready, predictor), images, threads=_THREADS)
    batches = _batches(ready, predictor.batch_size(batch_size), shrinking)
    inferred = chain.from_iterable(run_streams(predictor.streams, partial(_infer, predictor), batches))
    encoded = prefetch(partial(_encode, predictor, folder.path, outputs), inferred, threads=_THREADS)
    # One thread, so that the record lists the files in the images' order.
    return prefetch(partial(_write, folder), encoded, threads=1)


def _require(predictor: Predictor, outputs: Outputs) -> None:
    if Further.CONFIDENCE in outputs.also:
        predictor.require_confidence()


def images_to_predict(
    images: Sequence[SourceImage],
    out: Path,
    outputs: Outputs,
    resume: bool,
    settings: Settings | None = None,
) -> Sequence[SourceImage]:
    """Return the images that have no results in `out` yet; without `resume` all, after deleting earlier results.

    Results count for images below the same folder that were not changed after them; with `resume`, how many are kept is
    said on stderr. Files appear whole or not at all, so a killed run leaves none that is incomplete; those that a crash
    of the machine spoiled are made again.

    Raises:
        ConfigError: a file that no earlier call wrote would be replaced, or `resume` is set and the results that are
            there were made with other `settings` or of images elsewhere.
    """
    _require_own(images, out, outputs)
    settings = dict(settings or {}) | ({"images": _folder_of(images[0])} if images else {})
    todo = images
    if resume:
        require_same_settings(out, recorded_settings(out), settings)
        there = results_there(out)
        todo = [one for one in images if not outputs.are_there(one.id, there) or _changed_since(one, out)]
        if len(todo) < len(images):
            console.print(f"{len(images) - len(todo)} of {len(images)} images have results already", soft_wrap=True)
    else:
        remove_earlier(out)
    # A call without overlays leaves those that are there, and with them how strong their colors are.
    record_settings(out, recorded_settings(out) | settings)
    return todo


def _folder_of(image: SourceImage) -> str:
    """Return the folder below which an image has its id, as text whatever its name is."""
    folder = image.path.absolute().parents[len(PurePosixPath(image.id).parts) - 1]
    return str(folder).encode(errors="backslashreplace").decode()


def _changed_since(image: SourceImage, out: Path) -> bool:
    """Return whether an image was changed after its mask was made; a list may name images that are not there."""
    try:
        changed = image.path.stat().st_mtime_ns
        return all(changed > mask.stat().st_mtime_ns for mask in _masks_of(image, out) if mask.is_file())
    except OSError:
        return False


def _masks_of(image: SourceImage, out: Path) -> Sequence[Path]:
    return [out / "masks" / f"{image.id}{suffix}" for suffix in (".png", ".tif")]


def settings_of(network: str | None, outputs: Outputs, tile: bool = False, stride: int | None = None) -> Settings:
    """Return what the pixels of results depend on besides the images, for `images_to_predict`.

    `network` is that of `network_of`, None where it is not known.
    """
    known = {"network": network, "alpha": outputs.alpha}
    pixels = {"palette": outputs.palette, "tile": tile, "tile_stride": stride}
    return {name: value for name, value in known.items() if value is not None} | pixels


def network_of(predictor: Predictor) -> str:
    """Return what tells a network from others: the sha256 of its artifact, or the URL of a server that tells none."""
    return predictor.sha256 or predictor.description


def _require_own(images: Sequence[SourceImage], out: Path, outputs: Outputs) -> None:
    own = recorded_results(out)
    for image in images:
        for names in outputs.names(image.id):
            for name in names - own:
                if os.path.lexists(out / name):
                    raise foreign_file(out / name)


def require_same_settings(results: Path, known: Mapping[str, object], settings: Settings) -> None:
    """Refuse to continue results that were made otherwise.

    Args:
        results: where they are.
        known: what they were made with, as far as it is noted.
        settings: what they are to be made with.

    Raises:
        ConfigError: a noted setting differs.
    """
    for name, value in settings.items():
        if name in known and known[name] != value:
            what = "another network" if name == "network" else f"{name} {known[name]}, not {value}"
            raise ConfigError(
                f"{results}: its results were made with {what}; leave --resume out and choose another --out, or add"
                " --overwrite"
            )


def report_left_out(reason: str) -> None:
    """Name a file that has no results, and why."""
    console.print(f"left out: {reason}", style="yellow", markup=False, soft_wrap=True)


@dataclass(frozen=True)
class _Ready:
    """An image as it was read, and as the network takes it: (1, height, width, bands)."""

    image: SourceImage
    pixels: np.ndarray
    network_input: np.ndarray


@dataclass(frozen=True)
class _Inferred:
    """What the network gave for one image: its outputs for a batch of 1."""

    ready: _Ready
    outputs: dict[str, np.ndarray]


def _get_ready(predictor: Predictor, image: SourceImage) -> _Ready | str:
    """Read and resize an image, or return why it is left out."""
    try:
        pixels = read_image(image.path, predictor.contract.pixels)
    except DataError as error:
        return str(error)
    except OUT_OF_MEMORY:
        return f"{image.path}: too little memory to read it; use --tile"
    try:
        return _Ready(image, pixels, predictor.preprocess([pixels]))
    except OUT_OF_MEMORY:
        return _too_large(image, pixels)


def _batches(
    ready: Iterable[_Ready | str], batch_size: int, shrinking: ShrinkNotice
) -> Iterator[Sequence[_Ready] | str]:
    """Yield successive images in batches, in order, and between them why an image is left out.

    Where the network takes images of any size, one of another size begins a new batch.
    """
    batch: list[_Ready] = []
    for one in ready:
        if batch and (len(batch) == batch_size or not _share_a_batch(batch[0], one)):
            yield batch
            batch = []
        if isinstance(one, str):
            yield one
        else:
            shrinking.look_at(one.image.path, one.pixels.shape[:2])
            batch.append(one)
    if batch:
        yield batch


def _share_a_batch(first: _Ready, other: _Ready | str) -> bool:
    return isinstance(other, _Ready) and first.network_input.shape == other.network_input.shape


def _infer(predictor: Predictor, batch: Sequence[_Ready] | str) -> list[_Inferred | str]:
    """Run the network on a batch and return what it gives for each image, or why an image is left out."""
    if isinstance(batch, str):
        return [batch]
    try:
        outputs = predictor.infer(np.concatenate([one.network_input for one in batch]))
    except MemoryError:
        if len(batch) == 1:
            return [_too_large(batch[0].image, batch[0].pixels)]
        return [result for one in batch for result in _infer(predictor, [one])]
    return [
        _Inferred(one, {name: values[place : place + 1] for name, values in outputs.items()})
        for place, one in enumerate(batch)
    ]


def _encode(predictor: Predictor, out: Path, outputs: Outputs, inferred: _Inferred | str) -> list[ResultFile] | str:
    """Make the mask of an image and return its files, or why it has none."""
    if isinstance(inferred, str):
        return inferred
    image, pixels = inferred.ready.image, inferred.ready.pixels
    try:
        (mask,) = predictor.postprocess(inferred.outputs, [pixels.shape[:2]])
        confidence = None
        if Further.CONFIDENCE in outputs.also:
            (confidence,) = predictor.confidences(inferred.outputs, [pixels.shape[:2]])
        return list(results_of(out, image, pixels, mask, predictor.labels, outputs, confidence))
    except OUT_OF_MEMORY:
        return _too_large(image, pixels)


def _write(folder: ResultFolder, encoded: list[ResultFile] | str) -> str | None:
    """Write the files of an image; return why it has none."""
    if isinstance(encoded, str):
        return encoded
    try:
        write_results(folder, encoded)
    except DataError as error:
        return str(error)
    return None


def _too_large(image: SourceImage, pixels: np.ndarray) -> str:
    height, width = pixels.shape[:2]
    return f"{image.path}: too little memory for its {width}x{height} pixels; use --tile"
