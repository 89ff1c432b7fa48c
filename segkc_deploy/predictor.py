"""From images to masks with an artifact: the Python interface of the runtime."""

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, overload

import cv2
import numpy as np

from segkc_deploy.data.images import read_image
from segkc_deploy.engine_choice import measured_streams
from segkc_deploy.errors import ArtifactError, ConfigError, DataError
from segkc_deploy.labels import Labels
from segkc_deploy.manifest import Contract, Manifest, read_manifest
from segkc_deploy.mask_head import mask_from_logits
from segkc_deploy.model_config import read_config, read_sha256
from segkc_deploy.pixel_format import PixelFormat
from segkc_deploy.preprocess import network_size, resize_image, resize_mask
from segkc_deploy.runners.base import Runner
from segkc_deploy.runners.factory import create_runner
from segkc_deploy.runners.remote_runner import RemoteRunner
from segkc_deploy.validation import require_text

_Result = TypeVar("_Result")

#: A uint8 RGB array (H, W, 3), or one of the bands and bits that the artifact takes, or the path of an image file.
Image = np.ndarray | str | os.PathLike[str]


def load(
    path: str | os.PathLike[str],
    device: str = "auto",
    threads: int | None = None,
    cuda_graph: bool = False,
    streams: int | None = 1,
) -> "Predictor":
    """Load an artifact and make it ready to predict.

    Args:
        path: the artifact; its manifest stands beside it as `<artifact>.json`.
        device: `auto` (CUDA where it can be had, else the CPU), `cpu`, `cuda`, or for ONNX files `tensorrt`.
        threads: CPU threads of one inference; the engine's own choice if None.
        cuda_graph: record each input shape's work as a CUDA graph and launch that, which saves a small network much
            of its latency; for the engine trt alone.
        streams: how many threads may run the network at once, for more images/s on a CPU with the engines onnx and
            openvino; each inference takes an equal part of the cores, or `threads` of them. None: as many as
            `export --engine auto` found best here for this artifact, else one for each core or `threads` cores, where
            the engine can.

    Raises:
        ArtifactError: the artifact or its manifest is missing, damaged, or made for an engine that is not known.
        ConfigError: the device cannot be had, CUDA graphs or streams are asked of an engine without them, or the path
            is not UTF-8.
    """
    path = Path(path)
    require_text(path, "artifact")
    manifest = read_manifest(path)
    measured = None
    if streams is None and device in ("auto", "cpu") and threads is None:
        measured = measured_streams(manifest)
    outputs = used_outputs(manifest.contract)
    runner = create_runner(path, manifest, device, threads, cuda_graph, outputs, streams, measured)
    runner.activate()
    return Predictor(runner, manifest.labels, manifest.contract, manifest)


def connect(url: str, api_key: str | None = None) -> "Predictor":
    """Return a predictor whose network runs on a server: Triton, or `segkc-deploy serve`.

    Images are read and resized here, and masks brought to the images' own sizes here, so that the masks are those of
    `load` with the same artifact. A server that is busy is asked again for up to a minute.

    Args:
        url: the model, such as `http://localhost:8000/v2/models/junior-fp32`.
        api_key: what the server asks for as `X-API-Key`.

    Raises:
        ArtifactError: the server has no such model, refuses the key, or serves a model of another origin.
        ConfigError: the URL names no model, or the server cannot be reached; `infer` raises it too.
    """
    runner = RemoteRunner(url, api_key)
    with ExitStack() as on_failure:
        on_failure.callback(runner.deactivate)
        runner.activate()
        config = runner.config()
        labels, contract = read_config(config, url)
        on_failure.pop_all()
    runner.outputs = used_outputs(contract)
    return Predictor(runner, labels, contract, sha256=read_sha256(config))


class Predictor:
    """Turns images into masks. A context manager: leaving it frees the network.

    `predict` does everything; `preprocess`, `infer` and `postprocess` are its three parts. `predict_with_confidence`
    also tells how sure the network is of every pixel. All of them may be called from several threads; the network
    runs for `streams` of them at a time.

    Args:
        runner: an activated runner; it is deactivated with the predictor.
        labels: the classes whose ids the masks hold.
        contract: what the network takes and gives.
        manifest: what is known about the artifact, where there is one.
        sha256: of the artifact where there is no manifest, as on a server; None where it is not known.
    """

    def __init__(
        self,
        runner: Runner,
        labels: Labels,
        contract: Contract,
        manifest: Manifest | None = None,
        sha256: str | None = None,
    ) -> None:
        self._runner = runner
        # Runners of GPU engines hold buffers and a stream.
        self._running = threading.BoundedSemaphore(runner.streams)
        self.streams = runner.streams
        self.labels = labels
        self.contract = contract
        self.manifest = manifest
        self.sha256 = manifest.sha256 if manifest else sha256

    @property
    def description(self) -> str:
        """What runs the network: `onnxruntime 1.31.1 CPUExecutionProvider`."""
        return self._runner.description

    @property
    def gives_confidence(self) -> bool:
        """Whether `predict_with_confidence` works with this artifact."""
        return "confidence" in (output.name for output in self.contract.outputs)

    @property
    def last_device_ms(self) -> float | None:
        """How long the network took on the GPU in the last `infer`, in milliseconds, without copies to and from the
        host; None unless `time_device` asked for it and the engine tells it."""
        return self._runner.last_device_ms

    def time_device(self, on: bool) -> None:
        """Have each `infer` set `last_device_ms` from now on, or no longer; it costs a little time on the host."""
        self._runner.time_device(on)

    def batch_size(self, wanted: int) -> int:
        """Return how many images run at once: the artifact's own number where it is fixed, else `wanted`.

        Never more than the artifact takes.

        Raises:
            ConfigError: `wanted` is less than 1.
        """
        if wanted < 1:
            raise ConfigError(f"a batch of {wanted} images is not possible; use 1 or more")
        if self.contract.batch > 0:
            return self.contract.batch
        return min(wanted, self.contract.max_batch or wanted)

    @overload  # mypy minds that a str is also a sequence
    def predict(self, images: Image, batch_size: int = ...) -> np.ndarray: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, images: Sequence[Image], batch_size: int = ...) -> list[np.ndarray]: ...
    @overload
    def predict(self, images: Iterator[Image], batch_size: int = ...) -> Iterator[np.ndarray]: ...
    def predict(
        self, images: Image | Sequence[Image] | Iterator[Image], batch_size: int = 8
    ) -> np.ndarray | list[np.ndarray] | Iterator[np.ndarray]:
        """Return the mask of an image, the list of masks of a list of images, or an iterator over those of an iterator.

        Args:
            images: a uint8 RGB array (H, W, 3), the path of an image file, a list of these, or an iterator over them,
                such as the frames of a video; sizes may differ.
            batch_size: how many images run at once; an artifact with a fixed batch keeps to its own. Where the
                network takes images of any size, only those for which it has the same size share a batch.

        Returns:
            uint8 (H, W) class ids at the image's own size, for each image. From an iterator the next batch is taken
            when the masks of the one before are used up, so that it may be endless.

        Raises:
            DataError: an array is not a uint8 RGB image, or a file cannot be read as one.
        """
        if isinstance(images, np.ndarray | str | os.PathLike):
            return self.predict([images])[0]
        if isinstance(images, Iterator):
            return self._predict_iterator(images, batch_size)
        return self._run(images, batch_size, self.postprocess)

    def _predict_iterator(self, images: Iterator[Image], batch_size: int) -> Iterator[np.ndarray]:
        while batch := list(islice(images, self.batch_size(batch_size))):
            yield from self._run(batch, batch_size, self.postprocess)

    def predict_with_confidence(
        self, images: Sequence[Image], batch_size: int = 8
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the mask and the confidence of each image of a list; see `predict`.

        Returns:
            for each image uint8 (H, W) class ids and float32 (H, W), 0-1: the softmax probability of the class,
            interpolated (bilinear) from the network's size to the image's own.

        Raises:
            ArtifactError: the artifact does not give a confidence.
            DataError: an array is not a uint8 RGB image, or a file cannot be read as one.
        """
        self.require_confidence()

        def finish(
            outputs: dict[str, np.ndarray], sizes: Sequence[tuple[int, int]]
        ) -> list[tuple[np.ndarray, np.ndarray]]:
            return list(zip(self.postprocess(outputs, sizes), self.confidences(outputs, sizes), strict=True))

        return self._run(images, batch_size, finish)

    def require_confidence(self) -> None:
        """Raise an ArtifactError unless `predict_with_confidence` works with this artifact."""
        if not self.gives_confidence:
            name = self.manifest.artifact if self.manifest else "the network"
            raise ArtifactError(f"{name}: gives no confidence; export it with --outputs masks,confidence")

    def preprocess(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Resize images, each uint8 (H, W, 3) RGB, to the network's input: uint8 (N, height, width, 3).

        Where the network takes any size, all are resized to the one that fits the first image.
        """
        size = network_size(self.contract, images[0].shape[:2])
        resized = [resize_image(image, size) for image in images]
        return np.ascontiguousarray(resized[0])[None] if len(resized) == 1 else np.stack(resized)

    def infer(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Run the network on `batch`, uint8 (N, height, width, 3), and return its outputs by name.

        A batch smaller than the artifact's fixed one is filled up, and the filling cut off again.
        """
        missing = max(self.contract.batch - len(batch), 0)
        filled = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing else batch
        with self._running:
            outputs = self._runner.infer(filled)
        return {name: output[: len(batch)] for name, output in outputs.items()} if missing else outputs

    def postprocess(self, outputs: dict[str, np.ndarray], sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """Return one mask for each of `sizes` (height, width), uint8 class ids, from the network's outputs.

        From `logits`, where the network gives them: they are upsampled to the very size. Else from `masks`, of which
        the nearest pixels are taken.
        """
        if "logits" in outputs:
            align = self.contract.align_corners
            return [
                mask_from_logits(logits, size, align) for logits, size in zip(outputs["logits"], sizes, strict=True)
            ]
        return [resize_mask(mask, size) for mask, size in zip(outputs["masks"], sizes, strict=True)]

    def confidences(self, outputs: dict[str, np.ndarray], sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """Return one confidence for each of `sizes` (height, width), float32 0-1, from the network's `confidence`."""
        return [
            cv2.resize(confidence, (width, height), interpolation=cv2.INTER_LINEAR)
            for confidence, (height, width) in zip(outputs["confidence"], sizes, strict=True)
        ]

    def _run(
        self,
        images: Sequence[Image],
        batch_size: int,
        finish: Callable[[dict[str, np.ndarray], Sequence[tuple[int, int]]], list[_Result]],
    ) -> list[_Result]:
        """Return the images' results in order; only those that wait for their batch to fill are in memory."""
        most = self.batch_size(batch_size)
        results: dict[int, _Result] = {}
        waiting: defaultdict[tuple[int, int], list[tuple[int, np.ndarray]]] = defaultdict(list)

        def flush(size: tuple[int, int]) -> None:
            positions, arrays = zip(*waiting.pop(size), strict=True)
            outputs = self.infer(self.preprocess(arrays))
            results.update(zip(positions, finish(outputs, [array.shape[:2] for array in arrays]), strict=True))

        for position, image in enumerate(images):
            array = _as_array(image, position, self.contract.pixels)
            size = network_size(self.contract, array.shape[:2])
            waiting[size].append((position, array))
            if len(waiting[size]) == most:
                flush(size)
        for size in list(waiting):
            flush(size)
        return [results[position] for position in range(len(images))]

    def close(self) -> None:
        """Free the network."""
        self._runner.deactivate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def used_outputs(contract: Contract) -> tuple[str, ...]:
    """Return the outputs that masks are made from: `masks` are not needed where `logits` give them more exactly."""
    names = tuple(output.name for output in contract.outputs)
    return tuple(name for name in names if name != "masks") if "logits" in names else names


def _as_array(image: Image, position: int, pixels: PixelFormat) -> np.ndarray:
    if not isinstance(image, np.ndarray):
        return read_image(Path(image), pixels)
    if pixels.fits(image):
        return image
    hint = ""
    if image.ndim == 4:
        hint = "; pass a batch as a list of images"
    elif np.issubdtype(image.dtype, np.floating):
        hint = f"; scale it to 0-{pixels.largest} and convert it with .astype(numpy.{pixels.dtype.__name__})"
    elif image.ndim == 2 and pixels.is_rgb:
        hint = "; repeat a gray image over three channels"
    kind = "uint8 RGB" if pixels.is_rgb else pixels.dtype.__name__
    wanted = f"{kind} (height, width, {pixels.bands})"
    raise DataError(f"image {position} is a {image.dtype} array of shape {image.shape}; pass {wanted}{hint}")
